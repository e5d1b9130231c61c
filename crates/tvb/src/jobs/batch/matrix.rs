//! A small matrix from a JSON file: the initial A of the autoencoder.

use crate::error::{Error, Result};
use faer::Mat;
use std::path::Path;

/// A file of a matrix larger than this is something else.
const MAX_BYTES: u64 = 256 << 20;

/// Reads a JSON array of rows of finite numbers.
///
/// # Errors
/// Rejected: anything else, rows of different lengths. Failed: I/O.
pub fn read_matrix(path: &Path) -> Result<Mat<f64>> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let text = crate::checkpoint::read_capped_or_pipe(path, "a matrix", MAX_BYTES)?;
    let rows: Vec<Vec<f64>> = serde_json::from_slice(&text)
        .map_err(|error| rejected(format!("a JSON array of rows of numbers expected: {error}")))?;
    let n_columns = rows.first().map_or(0, Vec::len);
    if let Some(row) = rows.iter().position(|row| row.len() != n_columns) {
        return Err(rejected(format!("row {row}: {n_columns} numbers expected, {} found", rows[row].len())));
    }
    Ok(Mat::from_fn(rows.len(), n_columns, |i, j| rows[i][j]))
}
