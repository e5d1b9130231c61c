//! Digests of tensor data that can be taken in any order, in parallel, while the data streams by.
//!
//! A tensor is cut into blocks of [`BLOCK_ROWS`] elements; each block's raw bytes get an XXH3-128 digest as they pass;
//! a tensor's digest is the digest of its blocks' digests, and a file's or a checkpoint's is the digest of its tensors'.
//! The grid depends on nothing but the tensor, so neither threads, chunk sizes, devices nor containers change it.
//! XXH3 finds damage and mix-ups; it is no defence against someone who forges a file on purpose.

use std::fmt;
use std::str::FromStr;
use twox_hash::XxHash3_128;

/// Elements of one block: 64 KiB in f32, which stays in a core's own cache between reading, digesting and computing.
pub const BLOCK_ROWS: usize = 16_384;

/// A 128-bit digest, written as `xxh3-128:` and 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(XxHash3_128::oneshot(bytes))
    }

    /// The digest of some bytes that come in several parts.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hasher = XxHash3_128::new();
        parts.into_iter().for_each(|part| hasher.write(part));
        Digest(hasher.finish_128())
    }

    /// The digest of a sequence of digests, each as 16 little-endian bytes.
    pub fn of_digests(digests: impl IntoIterator<Item = Digest>) -> Digest {
        let mut hasher = XxHash3_128::new();
        for digest in digests {
            hasher.write(&digest.0.to_le_bytes());
        }
        Digest(hasher.finish_128())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", self.0)
    }
}

const PREFIX: &str = "xxh3-128:";

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 32);
        digits
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .map(Digest)
            .ok_or_else(|| format!("a digest such as {PREFIX}0123…cdef (32 hex digits) expected, {text:?} found"))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of bytes that come one piece after another; that of the whole, however it was cut.
#[derive(Default)]
pub struct Digester(XxHash3_128);

impl Digester {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(self.0.finish_128())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

/// Folds the block digests of several columns into tensor digests, tensor by tensor as the stream passes.
///
/// The blocks of the tensor that is passing are kept as they are (16 bytes each), so that an interrupted pass can be
/// written down and resumed at any block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDigests {
    n_columns: usize,
    /// [n_closed_tensors, n_columns]
    closed: Vec<Digest>,
    /// [n_blocks, n_columns] of the tensor that is passing.
    open: Vec<Digest>,
}

impl TensorDigests {
    /// For `n_columns` columns, no block seen yet.
    pub fn new(n_columns: usize) -> TensorDigests {
        TensorDigests { n_columns, closed: Vec::new(), open: Vec::new() }
    }

    /// Resumes where another left off: [n_closed_tensors, n_columns] tensor digests and the [n_blocks, n_columns] block
    /// digests of the tensor that was passing. `None` where these are not whole rows.
    pub fn from_parts(n_columns: usize, closed: Vec<Digest>, open: Vec<Digest>) -> Option<TensorDigests> {
        let whole = |digests: &[Digest]| n_columns > 0 && digests.len().is_multiple_of(n_columns);
        (whole(&closed) && whole(&open)).then_some(TensorDigests { n_columns, closed, open })
    }

    /// Columns, closed tensors' digests and the passing tensor's block digests, for [`from_parts`](Self::from_parts).
    pub fn parts(&self) -> (usize, &[Digest], &[Digest]) {
        (self.n_columns, &self.closed, &self.open)
    }

    /// Adds the next block of `tensor`, \[n_columns\] digests. Blocks come in order; tensors never go back.
    pub fn push(&mut self, tensor: usize, block: &[Digest]) {
        self.close_until(tensor);
        self.open.extend_from_slice(block);
    }

    fn close_until(&mut self, tensor: usize) {
        while self.closed.len() < tensor * self.n_columns {
            for column in 0..self.n_columns {
                let blocks = self.open.iter().skip(column).step_by(self.n_columns);
                self.closed.push(Digest::of_digests(blocks.copied()));
            }
            self.open.clear();
        }
    }

    /// Closes the last tensors (empty ones have no block): [n_tensors, n_columns] digests.
    pub fn finish(mut self, n_tensors: usize) -> TableOfDigests {
        self.close_until(n_tensors);
        TableOfDigests { n_columns: self.n_columns, digests: self.closed }
    }
}

/// The digest of every tensor in every column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOfDigests {
    /// Columns of the table (base first).
    pub n_columns: usize,
    /// [n_tensors, n_columns], row-major.
    pub digests: Vec<Digest>,
}

impl TableOfDigests {
    /// Number of rows.
    pub fn n_tensors(&self) -> usize {
        self.digests.len() / self.n_columns.max(1)
    }

    /// All columns' digests of one tensor.
    pub fn tensor(&self, tensor: usize) -> &[Digest] {
        self.digests.chunks_exact(self.n_columns.max(1)).nth(tensor).unwrap_or_default()
    }

    /// One column's digest of every tensor.
    pub fn column(&self, column: usize) -> impl Iterator<Item = Digest> + '_ {
        self.digests.iter().skip(column).step_by(self.n_columns.max(1)).copied()
    }
}

/// The fingerprint of a checkpoint's tensors: (name, type, shape, digest of the data) of each, whatever their order and
/// container.
pub fn fingerprint<'a>(
    tensors: impl IntoIterator<Item = (&'a str, crate::checkpoint::Dtype, &'a [usize], Digest)>,
) -> Digest {
    let mut parts: Vec<(&str, Digest)> = tensors
        .into_iter()
        .map(|(name, dtype, shape, data)| {
            let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
            (name, Digest::of(format!("{name}\n{dtype}\n[{}]\n{data}", dims.join(", ")).as_bytes()))
        })
        .collect();
    parts.sort_unstable();
    Digest::of_digests(parts.into_iter().map(|(_, digest)| digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_through_text() {
        let digest = Digest::of(b"task vectors");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("xxh3-128:12".parse::<Digest>().is_err());
        assert!(format!("sha256:{:032x}", 1).parse::<Digest>().is_err());
    }

    /// The text that is digested is part of every basis: these never change.
    #[test]
    fn fingerprints_are_those_of_the_first_version() {
        use crate::checkpoint::Dtype;
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let found = fingerprint([("w", Dtype::F32, &[2, 3][..], a), ("b", Dtype::Bf16, &[][..], b)]);
        let texts = [format!("b\nbf16\n[]\n{b}"), format!("w\nf32\n[2, 3]\n{a}")];
        assert_eq!(found, Digest::of_digests(texts.map(|text| Digest::of(text.as_bytes()))));
    }

    #[test]
    fn tensors_are_told_apart_and_empty_ones_have_the_empty_digest() {
        let block = |n: u8| [Digest::of(&[n]), Digest::of(&[n, n])];
        let mut digests = TensorDigests::new(2);
        digests.push(0, &block(1));
        digests.push(0, &block(2));
        digests.push(2, &block(3));
        let table = digests.finish(4);
        assert_eq!(table.n_tensors(), 4);
        assert_eq!(table.tensor(0)[0], Digest::of_digests([block(1)[0], block(2)[0]]));
        assert_eq!(table.tensor(2)[1], Digest::of_digests([block(3)[1]]));
        assert_eq!(table.tensor(1), table.tensor(3));
        assert_eq!(table.column(0).nth(3), Some(Digest::of_digests([])));
        assert_ne!(table.tensor(0), table.tensor(2));
    }

    #[test]
    fn digests_resumed_at_any_block_are_the_same() {
        let blocks: Vec<(usize, [Digest; 2])> = [0, 0, 2, 2, 2, 3]
            .iter()
            .enumerate()
            .map(|(n, &t)| (t, [Digest(n as u128), Digest(77 + n as u128)]))
            .collect();
        let fold = |digests: &mut TensorDigests, blocks: &[(usize, [Digest; 2])]| {
            blocks.iter().for_each(|(tensor, block)| digests.push(*tensor, block));
        };
        let mut whole = TensorDigests::new(2);
        fold(&mut whole, &blocks);
        for at in 0..=blocks.len() {
            let mut first = TensorDigests::new(2);
            fold(&mut first, &blocks[..at]);
            let (n_columns, closed, open) = first.parts();
            let mut second = TensorDigests::from_parts(n_columns, closed.to_vec(), open.to_vec()).unwrap();
            fold(&mut second, &blocks[at..]);
            assert_eq!(second.finish(5), whole.clone().finish(5), "resumed at block {at}");
        }
        assert_eq!(TensorDigests::from_parts(2, vec![Digest(1)], Vec::new()), None);
    }
}
