//! Which tensors of a coded atom are coded, and which are stored as they are.

use tvb_kernels::BLOCK;

/// A vector of more elements than this is coded too: no model's norms and biases are as long, but flattened parameters are.
const LONGEST_RAW: usize = 1 << 20;

/// Whether a tensor of this shape is coded. Tensors of one dimension (norms, biases, scales; sides of 1 do not count) are few
/// and feel noise most, and a code takes no less than a block: both are stored in bf16.
pub fn is_coded(shape: &[usize]) -> bool {
    let n_elements = shape.iter().fold(1_usize, |n, &side| n.saturating_mul(side));
    let n_sides = shape.iter().filter(|&&side| side > 1).count();
    n_elements >= BLOCK && (n_sides > 1 || n_elements > LONGEST_RAW)
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
