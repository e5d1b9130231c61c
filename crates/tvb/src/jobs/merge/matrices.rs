//! Whole matrices: all tasks' values of one tensor in memory, merged by their singular vectors.

use super::method::Method;
use super::settings::TensorSettings;
use crate::error::{Error, Result};
use crate::ops::merge::Stream;
use crate::solve::merge::{iso_c, iso_cts, tsv_m};

/// Copies of all tasks' matrices that are in memory at a time, about.
const COPIES: u64 = 3;

/// The merged task vector of the stream's one tensor; `None` where it is no matrix.
///
/// # Errors
/// Usage: a memory cap that the matrices do not fit in. Rejected: values that are not finite. Else as [`Stream::gather`].
pub(super) fn merged_matrix(
    stream: &Stream<'_>,
    method: Method,
    shape: &[usize],
    settings: &TensorSettings,
) -> Result<Option<Vec<f32>>> {
    let Some((n_rows, n_columns)) = matrix_of(shape) else { return Ok(None) };
    let n_tasks = stream.part.n_tasks() as u64;
    let n_bytes = stream.n_rows().saturating_mul(4).saturating_mul(n_tasks).saturating_mul(COPIES);
    stream.runtime.check_memory(n_bytes, &format!("the matrices of {n_tasks} tasks"))?;
    let mut all = stream.gather()?;
    if all.iter().flatten().any(|value| !value.is_finite()) {
        return Err(Error::rejected("finite values expected, others found").hint("`tvb check` names the task"));
    }
    for (task, weight) in all.iter_mut().zip(&settings.weight) {
        if *weight != 1.0 {
            task.iter_mut().for_each(|value| *value = (f64::from(*value) * weight) as f32);
        }
    }
    let tasks: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
    let n_threads = stream.runtime.n_threads;
    match method {
        Method::TsvM => tsv_m(&tasks, n_rows, n_columns, n_threads).map(Some),
        Method::IsoC => iso_c(&tasks, n_rows, n_columns).map(Some),
        Method::IsoCts => iso_cts(&tasks, n_rows, n_columns, settings.common, n_threads).map(Some),
        _ => Err(Error::failed(format!("{method}: a method of matrices expected"))),
    }
}

/// Rows and columns of what is a matrix: two dimensions of more than one. Convolutions are none, as in the papers' code.
fn matrix_of(shape: &[usize]) -> Option<(usize, usize)> {
    match shape {
        [rows, columns] if *rows > 1 && *columns > 1 => Some((*rows, *columns)),
        _ => None,
    }
}
