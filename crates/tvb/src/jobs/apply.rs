//! The shortest way from a basis to an edited checkpoint.

use crate::arithmetic::expression;
use crate::basis::Basis;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::jobs::edit::{Edit, EditJob, EditOutput, Source};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::Fidelity;
use std::path::Path;

/// Writes θ0 + Σ αt·τ̂t for a linear expression in the basis' tasks, such as `"0.4*cars - 0.1*mnist"`, to a file that is
/// not there yet, or to a folder where `output` has no `.safetensors` ending. Answers how true the edit is to the same
/// edit from the originals, from the Gram matrix alone; `None` where the basis does not know it. [`jobs::edit`] has what
/// else can be said of an edit.
///
/// # Errors
/// Usage: an expression that is none, or names no task. Rejected: an output that exists, a damaged basis, another base.
/// Failed: I/O, device. Interrupted.
///
/// [`jobs::edit`]: crate::jobs::edit
pub fn apply(
    basis: &Basis,
    text: &str,
    base: &Checkpoint,
    output: impl AsRef<Path>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Option<Fidelity>> {
    let edit = Edit::new(expression(&basis.task_names(), text)?, 1.0);
    let fidelity = edit.predict(basis)?;
    let output = EditOutput::new(output.as_ref()).command(format!("tvb apply '{text}'"));
    EditJob { source: Source::Basis(basis), edit: &edit, base: Some(base), output: &output }
        .write(runtime, progress)?;
    Ok(fidelity)
}
