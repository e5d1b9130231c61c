//! What an eigendecomposition yields, in the one order and with the one choice of signs that both engines share.

use crate::error::KernelError;

/// Eigenvalues and eigenvectors of one symmetric matrix of order n: G = UΛUᵀ.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigh {
    /// λ1 ≥ … ≥ λn.
    pub values: Vec<f64>,
    /// U, column-major [n, n]: eigenvector k is `vectors[k * n..][..n]`. Its largest entry is positive.
    pub vectors: Vec<f64>,
}

impl Eigh {
    /// Sorts pairs by falling eigenvalue and fixes the signs; `None` where anything is not finite.
    pub(crate) fn sorted(values: Vec<f64>, vectors: Vec<f64>) -> Option<Self> {
        let n = values.len();
        if !values.iter().chain(&vectors).all(|value| value.is_finite()) {
            return None;
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let mut sorted = Self { values: Vec::with_capacity(n), vectors: Vec::with_capacity(n * n) };
        for k in order {
            let vector = &vectors[k * n..][..n];
            let sign = sign_of(vector);
            sorted.values.push(values[k]);
            sorted.vectors.extend(vector.iter().map(|entry| sign * entry));
        }
        Some(sorted)
    }
}

/// The sign that makes a vector's largest entry positive. Entries within a millionth of the largest tie, and the first
/// of them decides: (1, −1)/√2 then has one sign, whichever way its last bits fell.
fn sign_of(vector: &[f64]) -> f64 {
    let largest = vector.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
    let first = vector.iter().find(|entry| entry.abs() >= largest * (1.0 - 1e-6));
    if first.is_some_and(|entry| *entry < 0.0) { -1.0 } else { 1.0 }
}

/// Checks the number and the finiteness of a batch's entries.
pub(crate) fn check_matrices(matrices: &[f64], n: usize, n_matrices: usize) -> Result<(), KernelError> {
    let too_large = KernelError::TooLarge { what: "matrices" };
    let expected = n.checked_mul(n).and_then(|entries| entries.checked_mul(n_matrices)).ok_or(too_large)?;
    if matrices.len() != expected {
        return Err(KernelError::MatrixSize { expected, found: matrices.len() });
    }
    match matrices.iter().position(|entry| !entry.is_finite()) {
        Some(at) => Err(KernelError::MatrixNotFinite { matrix: at / (n * n) }),
        None => Ok(()),
    }
}
