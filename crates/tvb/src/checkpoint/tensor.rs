//! One named tensor of a checkpoint: what the header says about it and where its bytes are.

use super::limits::RANK_MAX;
use super::{Dtype, HeldBytes, Lent, LowRank, Rescaled};

/// One named tensor: what its header says and where its bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The full name, for example `model.visual.conv1.weight`.
    pub name: String,
    /// The stored element type.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar (0-d).
    pub shape: Vec<usize>,
    /// Where the bytes are.
    pub place: Place,
}

/// Where a tensor's elements lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Row-major and contiguous, little-endian, at `offset` bytes of file number `file`.
    Contiguous {
        /// Index into [`Checkpoint::files`](super::Checkpoint::files).
        file: usize,
        /// Bytes from the file's start.
        offset: u64,
    },
    /// A strided view (PyTorch): element (i, j, …) at `offset + (i·strides[0] + j·strides[1] + …)·dtype.size()`.
    Strided {
        /// Index into [`Checkpoint::files`](super::Checkpoint::files).
        file: usize,
        /// Bytes from the file's start to the first element.
        offset: u64,
        /// Steps in elements, one for each dimension.
        strides: Vec<usize>,
    },
    /// Bytes that had to be decompressed or rearranged when the file was opened; row-major.
    Held(HeldBytes),
    /// In the memory of whoever called; row-major.
    Lent(Lent),
    /// Nowhere: every byte is 0.
    Zeros,
    /// The difference from the base, formed from two factors where it is read; f32, row-major.
    LowRank(LowRank),
    /// The difference from the base, which is none: every byte is 0. What an adapter leaves alone.
    Unmoved,
    /// The difference from the base, as it lies in a file: row-major and contiguous, little-endian.
    Difference {
        /// Index into [`Checkpoint::files`](super::Checkpoint::files).
        file: usize,
        /// Bytes from the file's start.
        offset: u64,
    },
    /// Not here: a plan that was written down says what it was.
    Elsewhere {
        /// Whether it was a difference from the base.
        is_delta: bool,
    },
    /// The base's tensor, moved and rescaled where it is read; f32, row-major.
    Rescaled {
        /// Where the base's values are.
        base: Box<Tensor>,
        /// What is made of them.
        by: Rescaled,
    },
}

/// An entry of a PyTorch state dict that is no tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTensor {
    /// Its key.
    pub name: String,
    /// What it is, for messages: "a number", "an object made by `os.system`, which is not run".
    pub what: String,
}

impl Tensor {
    /// Whether it is a difference from the base rather than a tensor of a checkpoint.
    pub fn is_delta(&self) -> bool {
        let is_formed = matches!(self.place, Place::LowRank(_) | Place::Unmoved | Place::Elsewhere { is_delta: true });
        is_formed || matches!(self.place, Place::Difference { .. })
    }

    /// Number of elements; validated against overflow when the header was read.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of bytes of the elements, row-major.
    pub fn n_bytes(&self) -> u64 {
        self.n_elements() as u64 * self.dtype.size() as u64
    }

    /// Bytes of memory that it takes in an opened checkpoint: itself, its name here and in the table of names, and the
    /// allocator's share.
    pub(crate) fn cost(name: &str, rank: usize) -> u64 {
        const FIXED_BYTES: usize = 384;
        (FIXED_BYTES + 2 * name.len() + 16 * rank) as u64
    }
}

impl Place {
    /// (file, offset) of the first element; what is in memory comes after every file.
    pub(crate) fn sort_key(&self) -> (usize, u64) {
        match self {
            Place::Contiguous { file, offset }
            | Place::Difference { file, offset }
            | Place::Strided { file, offset, .. } => (*file, *offset),
            Place::Rescaled { base, .. } => base.place.sort_key(),
            Place::Held(_)
            | Place::Lent(_)
            | Place::Zeros
            | Place::LowRank(_)
            | Place::Unmoved
            | Place::Elsewhere { .. } => (usize::MAX, u64::MAX),
        }
    }
}

/// The bytes that `shape` elements of `dtype` take, or why no tensor can be like that.
///
/// Counts and sizes stay below 2^63, so that sums of two of them cannot overflow.
pub(crate) fn checked_bytes(dtype: Dtype, shape: &[usize]) -> Result<u64, String> {
    if shape.len() > RANK_MAX {
        return Err(format!("has {} dimensions, expected at most {RANK_MAX}", shape.len()));
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .and_then(|n_elements| (n_elements as u64).checked_mul(dtype.size() as u64))
        .filter(|&bytes| bytes <= i64::MAX as u64)
        .ok_or_else(|| format!("has shape {shape:?} of {dtype}, more bytes than any file can hold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let huge = 1usize << 40;
        let cases: [(&[usize], Option<u64>); 7] = [
            (&[], Some(4)),
            (&[0], Some(0)),
            (&[3, 0, 5], Some(0)),
            (&[2, 3], Some(24)),
            (&[huge, huge], None),
            (&[huge, huge, 0], None),
            (&[usize::MAX], None),
        ];
        for (shape, expected) in cases {
            assert_eq!(checked_bytes(Dtype::F32, shape).ok(), expected, "{shape:?}");
        }
        assert!(checked_bytes(Dtype::F32, &[1; RANK_MAX]).is_ok());
        assert!(checked_bytes(Dtype::F32, &[1; RANK_MAX + 1]).is_err());
    }
}
