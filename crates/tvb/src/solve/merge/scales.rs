//! MetaGPT: scales in closed form (arXiv 2406.11385).

use crate::error::{Error, Result};
use faer::Mat;

/// λt = ‖τt‖² / Σ ‖τ‖², from the inner products \[T, T\] of whole task vectors: the best scales for losses of one curvature and task
/// vectors at right angles.
///
/// # Errors
/// Rejected: no task moved.
pub fn meta_gpt(gram: &Mat<f64>) -> Result<Vec<f64>> {
    let squares: Vec<f64> = (0..gram.nrows()).map(|task| gram[(task, task)].max(0.0)).collect();
    let sum: f64 = squares.iter().sum();
    if sum <= 0.0 || !sum.is_finite() {
        return Err(Error::rejected("metagpt: a task that moved expected, none found"));
    }
    Ok(squares.into_iter().map(|square| square / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_squared_norms() {
        let gram = Mat::from_fn(2, 2, |a, b| [[3.0, 0.5], [0.5, 1.0]][a][b]);
        assert_eq!(meta_gpt(&gram).unwrap(), [0.75, 0.25]);
        assert!(meta_gpt(&Mat::zeros(2, 2)).is_err());
    }
}
