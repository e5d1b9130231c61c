//! Block digests folded into those of tensors, and those of tensors into fingerprints.

use super::running::{Running, STATE_WORDS};
use super::value::Digest;

/// Folds the block digests of several columns into tensor digests, tensor by tensor as the stream passes.
///
/// Of the tensor that is passing a state of fixed size is kept for each column, so that memory does not grow with the
/// tensor, and an interrupted pass can be written down and resumed at any block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDigests {
    n_columns: usize,
    /// [n_closed_tensors, n_columns]
    closed: Vec<Digest>,
    /// \[n_columns\]: of the tensor that is passing.
    open: Vec<Running>,
}

impl TensorDigests {
    /// For `n_columns` columns, no block seen yet.
    pub fn new(n_columns: usize) -> TensorDigests {
        TensorDigests { n_columns, closed: Vec::new(), open: vec![Running::new(); n_columns] }
    }

    /// Resumes where another left off: [n_closed_tensors, n_columns] tensor digests and the state of the tensor that was
    /// passing. `None` where these are not what [`parts`](Self::parts) answers.
    pub fn from_parts(n_columns: usize, closed: Vec<Digest>, open: &[Digest]) -> Option<TensorDigests> {
        if n_columns == 0 || !closed.len().is_multiple_of(n_columns) || open.len() / STATE_WORDS != n_columns {
            return None;
        }
        let open = open.chunks(STATE_WORDS).map(Running::of_words).collect::<Option<_>>()?;
        Some(TensorDigests { n_columns, closed, open })
    }

    /// Columns, closed tensors' digests and the state of the passing tensor, for [`from_parts`](Self::from_parts).
    pub fn parts(&self) -> (usize, &[Digest], Vec<Digest>) {
        (self.n_columns, &self.closed, self.open.iter().flat_map(Running::words).collect())
    }

    /// Columns and closed tensors.
    pub fn size(&self) -> (usize, usize) {
        (self.n_columns, self.closed.len() / self.n_columns.max(1))
    }

    /// Adds the next block of `tensor`, \[n_columns\] digests. Blocks come in order; tensors never go back.
    pub fn push(&mut self, tensor: usize, block: &[Digest]) {
        self.close_until(tensor);
        self.open.iter_mut().zip(block).for_each(|(open, digest)| open.push(*digest));
    }

    /// Adds the digests of `tensor`, \[n_columns\], whose blocks were folded elsewhere. Tensors come in order.
    pub fn push_tensor(&mut self, tensor: usize, digests: &[Digest]) {
        self.close_until(tensor);
        self.closed.extend_from_slice(digests);
    }

    fn close_until(&mut self, tensor: usize) {
        while self.closed.len() < tensor * self.n_columns && self.n_columns > 0 {
            for open in &mut self.open {
                self.closed.push(std::mem::replace(open, Running::new()).finish());
            }
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
            let mut second = TensorDigests::from_parts(n_columns, closed.to_vec(), &open).unwrap();
            fold(&mut second, &blocks[at..]);
            assert_eq!(second.finish(5), whole.clone().finish(5), "resumed at block {at}");
        }
        let open = TensorDigests::new(2).parts().2;
        assert_eq!(TensorDigests::from_parts(2, vec![Digest(1)], &open), None);
        assert_eq!(TensorDigests::from_parts(2, Vec::new(), &open[1..]), None);
        assert!(TensorDigests::from_parts(2, Vec::new(), &open).is_some());
    }
}
