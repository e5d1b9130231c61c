//! Stored rows to floats and to other formats, for the few places that need no engine.

use super::rows::{narrow_f64, widen, widen_f64};
use crate::chunk::Dtype;

/// The elements of `bytes` (little-endian) as f32, one for each; f64 is rounded to nearest even. A rest shorter than an
/// element is left out.
pub fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.size()];
    widen(bytes, dtype, &mut out);
    out
}

/// The elements of `bytes` (little-endian) in another format, rounded once, to nearest even. A rest shorter than an element
/// is left out.
pub fn convert(bytes: &[u8], from: Dtype, to: Dtype) -> Vec<u8> {
    let n_rows = bytes.len() / from.size();
    let mut exact = vec![0.0; n_rows];
    widen_f64(bytes, from, &mut exact);
    let mut out = vec![0; n_rows * to.size()];
    narrow_f64(&exact, to, &mut out);
    out
}
