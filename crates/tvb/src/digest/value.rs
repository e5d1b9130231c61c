//! The digest itself: 128 bits and their text.

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
}
