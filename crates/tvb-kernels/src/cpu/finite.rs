//! Values that are not finite, counted in stored rows, and how large the others are.

use crate::chunk::Dtype;
use pulp::Arch;

/// Elements counted in an integer of their own width at a time: that vectorises, and cannot overflow 16 bits.
const PIECE: usize = 1 << 12;

/// How many elements of `bytes` (little-endian) are infinite or NaN. A rest shorter than an element is left out.
///
/// Meant for rows that have just been written and lie in a cache; much faster than any disk.
pub fn count_non_finite(bytes: &[u8], dtype: Dtype) -> usize {
    Arch::new().dispatch(
        #[inline(always)]
        || count(bytes, dtype),
    )
}

/// A value is finite unless all bits of its exponent are set.
#[inline(always)]
fn count(bytes: &[u8], dtype: Dtype) -> usize {
    macro_rules! count {
        ($int:ty, $exponent:expr) => {{
            let mut n_bad = 0;
            // Plain loops: a closure would not be compiled for the instruction set that was dispatched to.
            for piece in bytes.as_chunks::<{ size_of::<$int>() }>().0.chunks(PIECE) {
                let mut in_piece: $int = 0;
                for raw in piece {
                    in_piece += <$int>::from(<$int>::from_le_bytes(*raw) & $exponent == $exponent);
                }
                n_bad += in_piece as usize;
            }
            n_bad
        }};
    }
    match dtype {
        Dtype::F64 => count!(u64, 0x7ff0_0000_0000_0000),
        Dtype::F32 => count!(u32, 0x7f80_0000),
        Dtype::F16 => count!(u16, 0x7c00),
        Dtype::Bf16 => count!(u16, 0x7f80),
    }
}

/// The largest magnitude among the finite elements of `bytes` (little-endian); 0 where there is none. A rest shorter than an
/// element is left out.
pub fn largest_finite(bytes: &[u8], dtype: Dtype) -> f64 {
    Arch::new().dispatch(
        #[inline(always)]
        || largest(bytes, dtype),
    )
}

/// Magnitudes are in the order of their bits.
#[inline(always)]
fn largest(bytes: &[u8], dtype: Dtype) -> f64 {
    macro_rules! largest {
        ($int:ty, $exponent:expr) => {{
            let mut most: $int = 0;
            for raw in bytes.as_chunks::<{ size_of::<$int>() }>().0 {
                let magnitude = <$int>::from_le_bytes(*raw) & (<$int>::MAX >> 1);
                most = most.max(if magnitude < $exponent { magnitude } else { 0 });
            }
            most
        }};
    }
    match dtype {
        Dtype::F64 => f64::from_bits(largest!(u64, 0x7ff0_0000_0000_0000)),
        Dtype::F32 => f64::from(f32::from_bits(largest!(u32, 0x7f80_0000))),
        Dtype::F16 => f64::from(half::f16::from_bits(largest!(u16, 0x7c00))),
        Dtype::Bf16 => f64::from(half::bf16::from_bits(largest!(u16, 0x7f80))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::convert;

    #[test]
    fn the_largest_finite_one_is_found_wherever_it_stands() {
        for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert_eq!(largest_finite(&[0xff], dtype), 0.0);
            for (at, value) in [(0, -3.0), (17, 1024.0), (40, -dtype.largest()), (63, 0.5)] {
                let mut values = [0.25; 64];
                (values[5], values[9]) = (f64::NEG_INFINITY, f64::NAN);
                values[at] = value;
                let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let stored = convert(&exact, Dtype::F64, dtype);
                assert_eq!(largest_finite(&stored, dtype), value.abs(), "{dtype}");
            }
        }
    }

    #[test]
    fn infinities_and_nans_are_counted_in_every_format() {
        for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let largest = dtype.largest();
            for n_rows in [0, 1, 15, 16, 17, PIECE, 3 * PIECE + 5] {
                let values: Vec<f64> = (0..n_rows)
                    .map(|row| match row % 16 {
                        3 => f64::INFINITY,
                        7 => f64::NEG_INFINITY,
                        11 => -f64::NAN,
                        12 => largest,
                        13 => -largest,
                        _ => row as f64 * 1e-3,
                    })
                    .collect();
                let expected = values.iter().filter(|value| !value.is_finite()).count();
                let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let mut stored = convert(&exact, Dtype::F64, dtype);
                stored.push(0xff);
                assert_eq!(count_non_finite(&stored, dtype), expected, "{dtype}, {n_rows} rows");
            }
            let all = convert(&f64::INFINITY.to_le_bytes(), Dtype::F64, dtype).repeat(2 * PIECE + 1);
            assert_eq!(count_non_finite(&all, dtype), 2 * PIECE + 1, "{dtype}");
        }
    }
}
