//! Stored floats as f64 or f32.

use super::Dtype;

/// The values of `bytes`, little-endian floats of type `dtype`; `None` for another type.
pub(crate) fn f64s(bytes: &[u8], dtype: Dtype) -> Option<Vec<f64>> {
    Some(match dtype {
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        _ => f32s(bytes, dtype)?.into_iter().map(f64::from).collect(),
    })
}

/// The same in f32: f64 is rounded, the others are exact.
pub(crate) fn f32s(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let half = |b: &[u8; 2]| half::f16::from_le_bytes(*b).to_f32();
    let bfloat = |b: &[u8; 2]| half::bf16::from_le_bytes(*b).to_f32();
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(half).collect(),
        Dtype::Bf16 => bytes.as_chunks::<2>().0.iter().map(bfloat).collect(),
        _ => return None,
    })
}
