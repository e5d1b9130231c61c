//! Coded columns: which tensors of an atom are coded, what both kinds take, and where the codes of a column lie.

use crate::checkpoint::{Checkpoint, Place, Tensor};
use crate::error::{Error, Result};
use tvb_kernels::{BLOCK, Rate, n_blocks};

/// A vector of more elements than this is coded too: no model's norms and biases are as long, but flattened parameters are.
const LONGEST_RAW: usize = 1 << 16;

/// Whether a tensor of this shape is coded. Tensors of one dimension (norms, biases, scales; sides of 1 do not count) are few
/// and feel noise most, and a code takes no less than a block: both are stored in bf16.
pub fn is_coded(shape: &[usize]) -> bool {
    let n_elements = shape.iter().fold(1_usize, |n, &side| n.saturating_mul(side));
    let n_sides = shape.iter().filter(|&&side| side > 1).count();
    n_elements >= BLOCK && (n_sides > 1 || n_elements > LONGEST_RAW)
}

/// What a tensor's codes are called in an atom's file: its name and this. They lie there in pieces, one for each 16,384
/// elements: the words of its blocks, then their scales.
pub const CODES: &str = ".codes";

/// Bytes of one block: its words and its scale.
pub fn block_bytes(rate: Rate) -> usize {
    4 * rate.words() + SCALE_BYTES
}

/// A column that is read as codes.
#[derive(Clone, Debug)]
pub struct CodedColumn {
    /// The file that holds them.
    pub checkpoint: Checkpoint,
    /// Of all its tensors.
    pub rate: Rate,
    /// Where each tensor's lie, in the plan's order: number of the file's data file, and bytes from its start.
    pub places: Vec<(usize, u64)>,
}

impl CodedColumn {
    /// Finds the codes of these tensors (names and numbers of elements), in this order.
    ///
    /// # Errors
    /// Rejected: codes that are missing, or not as long as the tensor's size and the rate have them.
    pub fn open<'a>(
        checkpoint: Checkpoint,
        rate: Rate,
        tensors: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Result<CodedColumn> {
        let find = |name: String, n_bytes: usize| -> Result<(usize, u64)> {
            let path = || checkpoint.path().display();
            let hint = "make the basis again, or copy it again";
            let found: &Tensor = checkpoint
                .get(&name)
                .ok_or_else(|| Error::rejected(format!("{}: tensor {name} expected, none found", path())).hint(hint))?;
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
            find(format!("{name}{CODES}"), n_blocks(n_elements).saturating_mul(block_bytes(rate)))
        });
        Ok(CodedColumn { places: places.collect::<Result<_>>()?, checkpoint, rate })
    }
}

/// Bytes of a block's scale.
const SCALE_BYTES: usize = 2;
/// Bytes of an element of a tensor that is not coded.
const RAW_BYTES: u64 = 2;

/// Bytes of one column's data over tensors of these shapes; only an atom's own column `has_raw` tensors, a shared one has
/// those that are coded. Shapes may come from a file: what is too much to count is `u64::MAX`.
pub fn column_bytes<S: AsRef<[usize]>>(shapes: &[S], rate: Rate, has_raw: bool) -> u64 {
    let block_bytes = block_bytes(rate) as u64;
    let bytes = |shape: &[usize]| {
        let n_elements = shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
        match n_elements {
            None => u64::MAX,
            Some(n_elements) if is_coded(shape) => (n_blocks(n_elements) as u64).saturating_mul(block_bytes),
            Some(n_elements) if has_raw => (n_elements as u64).saturating_mul(RAW_BYTES),
            Some(_) => 0,
        }
    };
    shapes.iter().fold(0, |sum: u64, shape| sum.saturating_add(bytes(shape.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_take_their_blocks_and_what_is_not_coded() {
        // 4,096 + 300 elements are 16 + 2 blocks; the vector is not coded.
        let shapes = [vec![2, 2198], vec![100], vec![]];
        assert_eq!(column_bytes(&shapes, Rate::Signs, false), 18 * (32 + 2));
        assert_eq!(column_bytes(&shapes, Rate::Signs, true), 18 * (32 + 2) + 2 * 101);
        assert_eq!(column_bytes(&shapes, Rate::Quarter, false), 18 * (8 + 2));
        assert_eq!(column_bytes(&shapes, Rate::Three, false), 18 * (4 * 13 + 2));
        assert_eq!(column_bytes(&[vec![0, 512]], Rate::Signs, true), 0);
        for shape in [vec![1 << 40, 1 << 40], vec![usize::MAX, 1]] {
            assert!(column_bytes(&[shape.clone(), shape], Rate::TwoFiveSix, true) > 1 << 62);
        }
    }

    #[test]
    fn matrices_are_coded_and_vectors_are_not() {
        for (shape, expected) in [
            (&[16, 16][..], true),
            (&[768, 3, 16, 16], true),
            (&[1, 1 << 21], true),
            (&[1 << 16], false),
            (&[(1 << 16) + 1], true),
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
