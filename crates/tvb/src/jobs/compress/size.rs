//! How many atoms, as the user may say it.

use crate::error::{Error, Result};
use crate::solve::{MaxError, Method};
use crate::units::Amount;

/// How many atoms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// This many.
    Atoms(usize),
    /// This share of the number of tasks, rounded up: 0.5 of 9 tasks is 5.
    Ratio(f64),
    /// The fewest whose error stays under this.
    MaxError(MaxError),
    /// The most whose files stay under this many bytes together, or this share of the f32 task vectors.
    MaxBytes(Amount),
}

/// The number of atoms a share of the tasks stands for, rounded up.
///
/// # Errors
/// Usage: a share outside (0, 1].
pub fn atoms_for_ratio(ratio: f64, n_tasks: usize) -> Result<usize> {
    if !(ratio > 0.0 && ratio <= 1.0) {
        return Err(Error::usage(format!("a ratio above 0 and at most 1 expected, {ratio} found"))
            .hint("--ratio 0.5 stores half as many atoms as there are tasks"));
    }
    // A hair less than the product, so that 0.7 of 10 tasks is 7 whatever the last bit of 0.7·10.
    Ok(((ratio * n_tasks as f64 - 1e-9).ceil() as usize).clamp(1, n_tasks))
}

pub(super) fn atoms_for_bytes(limit: u64, bytes_each: u64, n_tasks: usize, method: &Method) -> Result<usize> {
    // The mean of `pca` is stored beside its M components.
    let n_extra = u64::from(matches!(method, Method::Pca));
    let affordable = limit.checked_div(bytes_each.max(1)).unwrap_or(0).saturating_sub(n_extra);
    if affordable == 0 {
        return Err(Error::rejected(format!(
            "at most {limit} bytes asked for, {} needed for the smallest basis",
            (1 + n_extra) * bytes_each
        ))
        .hint("--dtype bf16 halves an atom; --exclude leaves tensors out"));
    }
    Ok(usize::try_from(affordable).unwrap_or(n_tasks).min(n_tasks))
}
