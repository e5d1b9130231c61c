//! Stored floats as f64 or f32, by the kernels' own conversions.

use super::Dtype;
use tvb_kernels::Dtype as Float;

/// Bytes in `dtype` as values.
pub(crate) fn values_of(bytes: &[u8], dtype: Float) -> Vec<f64> {
    let exact = tvb_kernels::convert(bytes, dtype, Float::F64);
    exact.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect()
}

/// The values of `bytes`, little-endian floats of type `dtype`; `None` for another type.
pub(crate) fn f64s(bytes: &[u8], dtype: Dtype) -> Option<Vec<f64>> {
    dtype.float().map(|float| values_of(bytes, float))
}

/// The same in f32: f64 is rounded, the others are exact.
pub(crate) fn f32s(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    dtype.float().map(|float| tvb_kernels::decode(bytes, float))
}
