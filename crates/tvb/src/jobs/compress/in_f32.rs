//! Whether the engines, which work in f32, can do with the coefficients that were found.
//!
//! They can unless the tasks' norms differ by more than f32's range: then a coefficient that takes a huge task into a small
//! atom is too small for f32, and one the other way round too large. The errors that are said of the basis would be wrong.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::solve::Solved;

/// What a coefficient may lose of an atom or a recovered task, as a part of its norm.
const HARMLESS: f64 = 1e-6;

/// Looks at B \[T, M\] and W \[M, T\].
///
/// # Errors
/// Rejected: a coefficient that f32 cannot hold, with the task.
pub(super) fn check_in_f32(solved: &Solved, names: &[&str]) -> Result<()> {
    let coefficients = &solved.coefficients;
    let (norms, atom_norms) = (&solved.assessment.norms, &solved.assessment.atom_norms);
    // B takes tasks into atoms, W atoms into tasks.
    let in_atoms = first_lost(&coefficients.encode, norms, atom_norms);
    let in_tasks =
        || first_lost(&coefficients.decode, atom_norms, norms).map(|(atom, task, value)| (task, atom, value));
    let Some((task, atom, value)) = in_atoms.or_else(in_tasks) else { return Ok(()) };
    Err(Error::rejected(format!(
        "task {}: a coefficient in f32 expected, {value:e} found for atom {atom}: the norms of the tasks are too far apart",
        names.get(task).copied().unwrap_or("")
    ))
    .hint("leave out the largest or the smallest tasks, or keep every task as it is with --method identity"))
}

/// The first coefficient \[from, to\] that f32 cannot hold, and that matters to what it goes into.
fn first_lost(matrix: &Matrix, from: &[f64], to: &[f64]) -> Option<(usize, usize, f64)> {
    for (i, from) in from.iter().enumerate().take(matrix.n_rows()) {
        for (j, to) in to.iter().enumerate().take(matrix.n_columns()) {
            let value = matrix[(i, j)];
            let is_small = value.abs() < f64::from(f32::MIN_POSITIVE) && value.abs() * from > HARMLESS * to;
            if !(value as f32).is_finite() || is_small {
                return Some((i, j, value));
            }
        }
    }
    None
}
