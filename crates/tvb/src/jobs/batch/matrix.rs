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
    let io = |error: std::io::Error| Error::io("reading", path, &error);
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let n_bytes = std::fs::metadata(path).map_err(io)?.len();
    if n_bytes > MAX_BYTES {
        return Err(rejected(format!("a matrix of at most {MAX_BYTES} bytes expected, {n_bytes} found")));
    }
    let text = std::fs::read(path).map_err(io)?;
    let rows: Vec<Vec<f64>> = serde_json::from_slice(&text)
        .map_err(|error| rejected(format!("a JSON array of rows of numbers expected: {error}")))?;
    let n_columns = rows.first().map_or(0, Vec::len);
    if let Some(row) = rows.iter().position(|row| row.len() != n_columns) {
        return Err(rejected(format!("row {row}: {n_columns} numbers expected, {} found", rows[row].len())));
    }
    Ok(Mat::from_fn(rows.len(), n_columns, |i, j| rows[i][j]))
}
