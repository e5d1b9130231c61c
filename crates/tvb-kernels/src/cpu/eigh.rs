//! eigh: the symmetric eigendecomposition G = UΛUᵀ, by the library's divide and conquer in f64.

use crate::eigh::{Eigh, check_matrices};
use crate::error::KernelError;
use faer::{MatRef, Side};

pub(super) fn run(matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
    check_matrices(matrices, n, n_matrices)?;
    (0..n_matrices)
        .map(|matrix| {
            if n == 0 {
                return Ok(Eigh { values: Vec::new(), vectors: Vec::new() });
            }
            let entries = &matrices[matrix * n * n..][..n * n];
            let found = MatRef::from_column_major_slice(entries, n, n)
                .self_adjoint_eigen(Side::Lower)
                .map_err(|_| KernelError::EighFailed { matrix })?;
            let values: Vec<f64> = found.S().column_vector().iter().copied().collect();
            let vectors: Vec<f64> =
                found.U().col_iter().flat_map(|column| column.iter().copied().collect::<Vec<_>>()).collect();
            Eigh::sorted(values, vectors).ok_or(KernelError::EighFailed { matrix })
        })
        .collect()
}
