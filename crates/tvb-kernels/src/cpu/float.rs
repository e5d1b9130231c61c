//! Conversions between f32 and the 16-bit formats, as branch-free integer and float steps that compilers vectorise.
//!
//! All are exact or rounded to nearest, ties to even; a value beyond the format's range becomes an infinity, as in
//! PyTorch; a NaN stays a NaN (its quiet bit is set). No step makes or reads a subnormal f32: those cost Intel cores a
//! microcode assist each, and f16 weights below 6e-5 are common.

/// Bit pattern of 2^-14, the smallest normal f16, as an f32.
const F16_MIN_NORMAL: u32 = 113 << 23;
/// Exponent bias of f32 less that of f16, in place.
const REBIAS: u32 = 112 << 23;

/// bf16 to f32: exact.
#[inline(always)]
pub(super) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to bf16, to nearest even.
#[inline(always)]
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded }) as u16
}

/// f16 to f32: exact.
#[inline(always)]
pub(super) fn from_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let sign = (bits & 0x8000) << 16;
    let magnitude = (bits & 0x7fff) << 13;
    let normal = magnitude + REBIAS;
    // Inf and NaN: the exponent goes all the way up.
    let top = normal + REBIAS;
    // A subnormal m·2^-24: put m behind the leading one of 2^-14 and take that one off again.
    let small = (f32::from_bits(magnitude | F16_MIN_NORMAL) - f32::from_bits(F16_MIN_NORMAL)).to_bits();
    let finite = if magnitude < 1 << 23 { small } else { normal };
    let magnitude = if magnitude >= 31 << 23 { top } else { finite };
    f32::from_bits(sign | magnitude)
}

/// f32 to f16, to nearest even.
#[inline(always)]
pub(super) fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: rebias, then add half a unit less the tie-breaking bit.
    let normal = magnitude.wrapping_sub(REBIAS).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
    // Subnormal results: adding 0.5 lines the f32's last bit up with 2^-24, and the adder rounds to even. A magnitude
    // that is subnormal in f32 is cleared first: it rounds to zero anyway.
    let kept = if magnitude < 1 << 23 { 0 } else { magnitude };
    let small = (f32::from_bits(kept) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < F16_MIN_NORMAL { small } else { normal };
    // 65,520 is the first value that rounds to infinity.
    let bounded = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    (sign | if magnitude > 0x7f80_0000 { nan } else { bounded }) as u16
}

/// f64 to f32, rounded to odd: truncated, with the last bit set where anything was cut off. Rounding that on to 16 bits
/// gives the same as rounding the f64 itself, which going through the nearest f32 would not.
#[inline(always)]
pub(super) fn to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let bits = nearest.to_bits();
    let back = f64::from(nearest);
    let truncated = if back.abs() > value.abs() { bits.wrapping_sub(1) } else { bits };
    // A NaN compares unequal to itself and keeps its bits but the last.
    f32::from_bits(if back == value { bits } else { truncated | 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_16_bit_pattern_widens_exactly() {
        for bits in 0..=u16::MAX {
            for (name, ours, theirs) in [
                ("f16", from_f16(bits), f16::from_bits(bits).to_f32()),
                ("bf16", from_bf16(bits), bf16::from_bits(bits).to_f32()),
            ] {
                let same = ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
                assert!(same, "{name} {bits:#06x}: {ours} against {theirs}");
            }
        }
    }

    #[test]
    fn f32_narrows_to_nearest_even() {
        // Every value a 16-bit format can hold, every midpoint between neighbours, and the f32s next to both.
        let halves = (0..=u16::MAX).flat_map(|bits| {
            let (f, b) = (f16::from_bits(bits).to_f32().to_bits(), u32::from(bits) << 16);
            [f, f + (1 << 12), b, b + (1 << 15)]
        });
        let stride = (0..=u32::MAX).step_by(65_521);
        for bits in halves.chain(stride).flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)]) {
            let value = f32::from_bits(bits);
            if value.is_nan() {
                assert!(f16::from_bits(to_f16(value)).is_nan() && bf16::from_bits(to_bf16(value)).is_nan());
                continue;
            }
            assert_eq!(to_f16(value), f16::from_f32(value).to_bits(), "f16 of {value:e} ({bits:#010x})");
            assert_eq!(to_bf16(value), bf16::from_f32(value).to_bits(), "bf16 of {value:e} ({bits:#010x})");
        }
    }

    #[test]
    fn f64_narrows_once() {
        // Just above a bf16 midpoint by less than f32 can show: the nearest f32 would be the midpoint, then go to even.
        let cases = [
            (1.0 + 2f64.powi(-8), 0x3f80), // the tie itself goes to even
            (1.0 + 2f64.powi(-8) + 2f64.powi(-40), 0x3f81),
            (1.0 + 3.0 * 2f64.powi(-8) - 2f64.powi(-40), 0x3f81),
            (-1.0 - 2f64.powi(-8) - 2f64.powi(-40), 0xbf81),
            (1e300, 0x7f80),
            (f64::NEG_INFINITY, 0xff80),
        ];
        for (value, expected) in cases {
            assert_eq!(to_bf16(to_f32_odd(value)), expected, "bf16 of {value:e}");
        }
        assert_eq!(to_f16(to_f32_odd(1.0 + 2f64.powi(-11) + 2f64.powi(-50))), 0x3c01);
        assert!(to_f32_odd(f64::NAN).is_nan());
    }
}
