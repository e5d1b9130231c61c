//! Coded columns: which tensors of an atom are coded, and where the codes of a column lie.

use crate::checkpoint::{Checkpoint, Place, Tensor};
use crate::error::{Error, Result};
use tvb_kernels::{BLOCK, Rate, n_blocks};

/// A vector of more elements than this is coded too: no model's norms and biases are as long, but flattened parameters are.
const LONGEST_RAW: usize = 1 << 20;

/// Whether a tensor of this shape is coded. Tensors of one dimension (norms, biases, scales; sides of 1 do not count) are few
/// and feel noise most, and a code takes no less than a block: both are stored in bf16.
pub fn is_coded(shape: &[usize]) -> bool {
    let n_elements = shape.iter().fold(1_usize, |n, &side| n.saturating_mul(side));
    let n_sides = shape.iter().filter(|&&side| side > 1).count();
    n_elements >= BLOCK && (n_sides > 1 || n_elements > LONGEST_RAW)
}

/// What a tensor's codes are called in an atom's file: its name and this.
pub const CODES: &str = ".codes";
/// What the scales are called.
pub const SCALES: &str = ".scales";

/// A column that is read as codes.
#[derive(Clone, Debug)]
pub struct CodedColumn {
    /// The file that holds them.
    pub checkpoint: Checkpoint,
    /// Of all its tensors.
    pub rate: Rate,
    /// Where each tensor's lie, in the plan's order.
    pub places: Vec<CodedPlace>,
}

/// Where the codes of one tensor lie in their column's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodedPlace {
    /// Number of the file's data file, and bytes from its start to the codes.
    pub codes: (usize, u64),
    /// The same for the scales.
    pub scales: (usize, u64),
}

impl CodedColumn {
    /// Finds the codes of these tensors (names and numbers of elements), in this order.
    ///
    /// # Errors
    /// Rejected: codes or scales that are missing, or not as long as the tensor's size and the rate have them.
    pub fn open<'a>(
        checkpoint: Checkpoint,
        rate: Rate,
        tensors: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Result<CodedColumn> {
        let find = |name: String, n_bytes: usize| -> Result<(usize, u64)> {
            let path = || checkpoint.path().display();
            let hint = "make the basis again, or copy it again";
            let found: &Tensor = checkpoint.get(&name).ok_or_else(|| {
                Error::rejected(format!("{}: tensor {name} expected, none found", path())).hint(hint)
            })?;
            match found.place {
                Place::Contiguous { file, offset } if found.n_bytes() == n_bytes as u64 => Ok((file, offset)),
                _ => Err(Error::rejected(format!(
                    "{}: tensor {name}: {n_bytes} bytes expected at {} bits, {} found",
                    path(),
                    rate.name(),
                    found.n_bytes()
                ))
                .hint(hint)),
            }
        };
        let places = tensors.into_iter().map(|(name, n_elements)| {
            let n_blocks = n_blocks(n_elements);
            let codes = find(format!("{name}{CODES}"), n_blocks.saturating_mul(4 * rate.words()))?;
            Ok(CodedPlace { codes, scales: find(format!("{name}{SCALES}"), n_blocks.saturating_mul(2))? })
        });
        Ok(CodedColumn { places: places.collect::<Result<_>>()?, checkpoint, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_coded_and_vectors_are_not() {
        for (shape, expected) in [
            (&[16, 16][..], true),
            (&[768, 3, 16, 16], true),
            (&[1, 1 << 21], true),
            (&[1 << 20], false),
            (&[768], false),
            (&[1, 1, 768], false),
            (&[8, 8], false),
            (&[], false),
            (&[0, 512], false),
        ] {
            assert_eq!(is_coded(shape), expected, "{shape:?}");
        }
    }
}
