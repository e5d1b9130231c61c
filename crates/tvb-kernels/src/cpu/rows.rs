//! Rows between their stored bytes and floats: widening on the way in, rounding on the way out.
//!
//! Every function is one plain loop per format, inlined into the caller so that it is compiled for the instruction set
//! the caller was dispatched to. Bytes are read through `from_le_bytes`, so a chunk may start at any address.

use super::float::{from_bf16, from_f16, to_bf16, to_f16, to_f32_odd};
use crate::chunk::Dtype;

/// Calls `$body` with an expression that reads one element, and its size, for the format at hand.
macro_rules! for_each_element {
    ($bytes:expr, $dtype:expr, |$element:ident: $float:ident, $($other:ident),*| $step:expr) => {
        match $dtype {
            Dtype::F64 => for_each_element!(@loop 8, $bytes, raw, f64::from_le_bytes(raw) as $float, $element, $($other),*, $step),
            Dtype::F32 => for_each_element!(@loop 4, $bytes, raw, f32::from_le_bytes(raw) as $float, $element, $($other),*, $step),
            Dtype::F16 => for_each_element!(@loop 2, $bytes, raw, from_f16(u16::from_le_bytes(raw)) as $float, $element, $($other),*, $step),
            Dtype::Bf16 => for_each_element!(@loop 2, $bytes, raw, from_bf16(u16::from_le_bytes(raw)) as $float, $element, $($other),*, $step),
        }
    };
    (@loop $size:literal, $bytes:expr, $raw:ident, $read:expr, $element:ident, $out:ident, $step:expr) => {
        for ($out, &$raw) in $out.iter_mut().zip($bytes.as_chunks::<$size>().0) {
            let $element = $read;
            $step
        }
    };
    (@loop $size:literal, $bytes:expr, $raw:ident, $read:expr, $element:ident, $out:ident, $base:ident, $step:expr) => {
        for (($out, &$raw), &$base) in $out.iter_mut().zip($bytes.as_chunks::<$size>().0).zip($base) {
            let $element = $read;
            $step
        }
    };
}

/// out\[x\] = element x, rounded to f32 where it is f64.
#[inline(always)]
pub(super) fn widen(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    for_each_element!(bytes, dtype, |element: f32, out| *out = element);
}

/// out\[x\] = element x − base\[x\], in f32.
#[inline(always)]
pub(super) fn widen_less_base(bytes: &[u8], dtype: Dtype, base: &[f32], out: &mut [f32]) {
    for_each_element!(bytes, dtype, |element: f32, out, base| *out = element - base);
}

/// out\[x\] = element x, exactly.
#[inline(always)]
pub(super) fn widen_f64(bytes: &[u8], dtype: Dtype, out: &mut [f64]) {
    for_each_element!(bytes, dtype, |element: f64, out| *out = element);
}

/// out\[x\] = element x − base\[x\], in f64.
#[inline(always)]
pub(super) fn widen_f64_less_base(bytes: &[u8], dtype: Dtype, base: &[f64], out: &mut [f64]) {
    for_each_element!(bytes, dtype, |element: f64, out, base| *out = element - base);
}

/// Stores f32 rows as `dtype`, to nearest even.
#[inline(always)]
pub(super) fn narrow(rows: &[f32], dtype: Dtype, out: &mut [u8]) {
    match dtype {
        Dtype::F64 => store(rows, out, |row| f64::from(row).to_le_bytes()),
        Dtype::F32 => store(rows, out, f32::to_le_bytes),
        Dtype::F16 => store(rows, out, |row| to_f16(row).to_le_bytes()),
        Dtype::Bf16 => store(rows, out, |row| to_bf16(row).to_le_bytes()),
    }
}

/// Stores f64 rows as `dtype`, to nearest even, rounding once.
#[inline(always)]
pub(super) fn narrow_f64(rows: &[f64], dtype: Dtype, out: &mut [u8]) {
    match dtype {
        Dtype::F64 => store(rows, out, f64::to_le_bytes),
        Dtype::F32 => store(rows, out, |row| (row as f32).to_le_bytes()),
        Dtype::F16 => store(rows, out, |row| to_f16(to_f32_odd(row)).to_le_bytes()),
        Dtype::Bf16 => store(rows, out, |row| to_bf16(to_f32_odd(row)).to_le_bytes()),
    }
}

#[inline(always)]
fn store<F: Copy, const SIZE: usize>(rows: &[F], out: &mut [u8], encode: impl Fn(F) -> [u8; SIZE]) {
    for (out, &row) in out.as_chunks_mut::<SIZE>().0.iter_mut().zip(rows) {
        *out = encode(row);
    }
}
