//! A small matrix from a JSON file: the initial A of the autoencoder.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use std::path::Path;

/// A file of a matrix larger than this is something else.
const MAX_BYTES: u64 = 256 << 20;

/// Reads a JSON array of rows of finite numbers.
///
/// # Errors
/// Rejected: anything else, rows of different lengths. Failed: I/O.
pub(super) fn read_matrix(path: &Path) -> Result<Matrix> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let text = crate::checkpoint::read_capped_or_pipe(path, "a matrix", MAX_BYTES)?;
    let rows: Vec<Vec<f64>> = serde_json::from_slice(&text)
        .map_err(|error| rejected(format!("a JSON array of rows of numbers expected: {error}")))?;
    Matrix::from_rows(&rows).map_err(|error| error.context(path.display()))
}
