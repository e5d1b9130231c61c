//! Small matrices of f64 as bytes, which numpy makes an array of.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tvb::Matrix;

/// Rows, columns, and the rows' values one after another.
pub(crate) type Packed<'py> = (usize, usize, Bound<'py, PyBytes>);

/// A matrix row after row, in the machine's own order of bytes.
pub(crate) fn packed<'py>(py: Python<'py>, matrix: &Matrix) -> Packed<'py> {
    let bytes: Vec<u8> = matrix.rows().flatten().flat_map(f64::to_ne_bytes).collect();
    (matrix.n_rows(), matrix.n_columns(), PyBytes::new(py, &bytes))
}
