//! Weights as the engines, which work in f32, take them.

use crate::error::{Error, Result};

/// The weight in f32; `what` names it in the message: `a.safetensors: the weight of cars`.
///
/// # Errors
/// Usage: a weight beyond f32.
pub(super) fn weight_in_f32(weight: f64, what: impl FnOnce() -> String) -> Result<f32> {
    let narrow = weight as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    Err(Error::usage(format!("{} comes to {weight:e}: at most ±{:.1e} expected", what(), f32::MAX))
        .hint("use a smaller --scale or smaller weights"))
}
