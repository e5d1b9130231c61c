//! Sizes of panels and blocks, and how a scale is stored; see [`code`](crate::code).

/// Elements of a whole panel.
pub const PANEL: usize = 4096;

/// Blocks that `n_rows` elements of one tensor make, the last one not full.
pub const fn n_blocks(n_rows: usize) -> usize {
    n_rows / PANEL * 16 + (n_rows % PANEL).div_ceil(256)
}

/// A scale as it is stored: the bits of the f32 below its sign, rounded to nearest. It has the range of f32 and nine bits of
/// precision.
#[inline(always)]
pub const fn scale_bits(scale: f32) -> u16 {
    (scale.to_bits().wrapping_add(1 << 14) >> 15) as u16
}

/// The scale that is stored as `bits`.
#[inline(always)]
pub const fn scale_from_bits(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_keep_nine_bits_over_the_range_of_f32() {
        for scale in [0.0, f32::MIN_POSITIVE, 1e-30, 3.0e-5, 1.0, 1.0019, 65504.0, 1e30, 3.0e38] {
            let back = scale_from_bits(scale_bits(scale));
            assert!((back - scale).abs() <= scale / 512.0, "{scale:e} {back:e}");
        }
        assert_eq!((n_blocks(0), n_blocks(1), n_blocks(256), n_blocks(257)), (0, 1, 1, 2));
        assert_eq!((n_blocks(4096), n_blocks(4097), n_blocks(16384)), (16, 17, 64));
    }
}
