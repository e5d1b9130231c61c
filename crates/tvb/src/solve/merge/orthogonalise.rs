//! Task vectors made orthogonal to each other, each as near to itself as all of them together can be.
//!
//! Löwdin's symmetric way: of all orthogonal sets with the same lengths, that of unit vectors U·(UᵀU)^-½ is the nearest to the
//! unit vectors U in the sum of squares, and no task comes before another, as in Gram-Schmidt.

use crate::error::{Error, Result};
use faer::{Mat, Side};

/// Directions that are shorter than this are not told apart, as a share of the longest.
const LEAST_SHARE: f64 = 1e-6;

/// C \[T, T\] such that Σ_j C\[j, t\]·τj are orthogonal to each other, each as long as τt, from the inner products \[T, T\]. A task that
/// did not move stays as it is.
///
/// # Errors
/// Rejected: task vectors of which one is a sum of others. Failed: no eigendecomposition.
pub fn orthogonalise(gram: &Mat<f64>) -> Result<Mat<f64>> {
    let n = gram.nrows();
    let norms: Vec<f64> = (0..n).map(|task| gram[(task, task)].max(0.0).sqrt()).collect();
    let norm = |task: usize| norms.get(task).copied().filter(|norm| *norm > 0.0);
    let cosines = Mat::from_fn(n, n, |a, b| match (norm(a), norm(b)) {
        _ if a == b => 1.0,
        (Some(of_a), Some(of_b)) => 0.5 * (gram[(a, b)] + gram[(b, a)]) / (of_a * of_b),
        _ => 0.0,
    });
    let eigen = cosines
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| Error::failed("orthogonalise: the cosines have no eigendecomposition"))?;
    let (values, vectors) = (eigen.S().column_vector(), eigen.U());
    let largest = (0..n).map(|at| values[at]).fold(0.0, f64::max);
    if (0..n).any(|at| values[at] <= LEAST_SHARE * largest) {
        return Err(Error::rejected(
            "orthogonalise: task vectors that differ expected, one that is a sum of others found",
        )
        .hint("leave a task out that is there twice"));
    }
    let root = Mat::from_fn(n, n, |a, b| {
        (0..n).map(|at| vectors[(a, at)] * vectors[(b, at)] / values[at].sqrt()).sum::<f64>()
    });
    Ok(Mat::from_fn(n, n, |from, task| match (norm(from), norm(task)) {
        (Some(of_from), Some(of_task)) => root[(from, task)] * of_task / of_from,
        _ if from == task => 1.0,
        _ => 0.0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_orthogonal_and_as_long() {
        let gram = Mat::from_fn(3, 3, |a, b| [[4.0, 1.0, 0.0], [1.0, 9.0, 0.0], [0.0, 0.0, 0.0]][a][b]);
        let mixing = orthogonalise(&gram).unwrap();
        let made = mixing.transpose() * &gram * &mixing;
        for (row, column, expected) in [(0, 0, 4.0), (1, 1, 9.0), (0, 1, 0.0), (0, 2, 0.0), (2, 2, 0.0)] {
            assert!((made[(row, column)] - expected).abs() < 1e-12, "{row} {column}: {}", made[(row, column)]);
        }
        assert_eq!(mixing[(2, 2)], 1.0);
        assert!(orthogonalise(&Mat::full(2, 2, 1.0)).is_err());
    }
}
