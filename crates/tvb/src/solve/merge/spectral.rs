//! Singular vectors of matrices with one short side, through the inner products of that side.
//!
//! The eigenvectors of AᵀA (or AAᵀ, whichever is smaller) are singular vectors of A, and its eigenvalues the squares of the singular
//! values. Squares lose half of the digits: in f64 a singular value is good to about 1e-16·(σ₁/σ)² of itself. The inputs are f32, whose
//! own rounding is 6e-8 of σ₁, so what is below [`LEAST_SHARE`] of the largest is rounding, and is left out.

use crate::error::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

/// Singular values below this share of the largest are rounding.
pub(super) const LEAST_SHARE: f64 = 1e-6;

/// Singular triplets of a matrix \[m, n\], the largest first.
#[derive(Clone, Debug)]
pub(super) struct Triplets {
    /// \[m, r\]
    pub(super) left: Mat<f64>,
    /// All min(m, n) singular values, the largest first.
    pub(super) values: Vec<f64>,
    /// \[n, r\]
    pub(super) right: Mat<f64>,
}

/// A product on this thread alone, so that the same bits come out however many there are.
pub(super) fn times(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    out
}

/// Eigenvalues of a symmetric matrix, the largest first, and the eigenvectors of the first `r`.
fn eigen(symmetric: MatRef<'_, f64>, r: usize) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = symmetric.nrows();
    let eigen = symmetric
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| Error::failed("a matrix without an eigendecomposition"))?;
    let (values, vectors) = (eigen.S().column_vector(), eigen.U());
    let descending = (0..n).map(|at| values[n - 1 - at]).collect();
    Ok((descending, Mat::from_fn(n, r.min(n), |row, at| vectors[(row, n - 1 - at)])))
}

/// The `r` largest singular triplets; those of singular values that are rounding are zero.
///
/// # Errors
/// Failed: no eigendecomposition.
pub(super) fn triplets(a: MatRef<'_, f64>, r: usize) -> Result<Triplets> {
    if a.nrows() < a.ncols() {
        let Triplets { left, values, right } = triplets(a.transpose(), r)?;
        return Ok(Triplets { left: right, values, right: left });
    }
    let (squares, mut right) = eigen(times(a.transpose(), a).as_ref(), r)?;
    let values: Vec<f64> = squares.into_iter().map(|square| square.max(0.0).sqrt()).collect();
    let largest = values.first().copied().unwrap_or(0.0);
    let mut left = times(a, right.as_ref());
    for (at, value) in values.iter().enumerate().take(right.ncols()) {
        let is_there = *value > LEAST_SHARE * largest;
        left.col_mut(at).iter_mut().for_each(|x| *x = if is_there { *x / value } else { 0.0 });
        if !is_there {
            right.col_mut(at).iter_mut().for_each(|x| *x = 0.0);
        }
    }
    Ok(Triplets { left, values, right })
}

/// The polar factor of a matrix: the nearest with orthonormal columns, or rows, U·Vᵀ of its singular vectors; without directions that
/// are rounding, in which it is not determined.
///
/// # Errors
/// Failed: no eigendecomposition.
pub(super) fn polar(a: MatRef<'_, f64>) -> Result<Mat<f64>> {
    if a.nrows() < a.ncols() {
        return Ok(polar(a.transpose())?.transpose().to_owned());
    }
    let n = a.ncols();
    let (squares, vectors) = eigen(times(a.transpose(), a).as_ref(), n)?;
    let largest = squares.first().copied().unwrap_or(0.0).max(0.0);
    let is_there = |square: f64| square > LEAST_SHARE * LEAST_SHARE * largest;
    let scaled = Mat::from_fn(n, n, |row, at| match squares.get(at) {
        Some(square) if is_there(*square) => vectors[(row, at)] / square.sqrt(),
        _ => 0.0,
    });
    Ok(times(a, times(scaled.as_ref(), vectors.transpose()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(m: usize, n: usize) -> Mat<f64> {
        Mat::from_fn(m, n, |i, j| ((i * 7 + j * 13) as f64 * 0.37).sin() + if i == j { 2.0 } else { 0.0 })
    }

    fn difference(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_l2() / b.norm_l2()
    }

    #[test]
    fn triplets_make_the_matrix_again() {
        for (m, n) in [(9, 5), (5, 9), (6, 6)] {
            let a = made(m, n);
            let found = triplets(a.as_ref(), m.min(n)).unwrap();
            let scaled = Mat::from_fn(m, m.min(n), |i, at| found.left[(i, at)] * found.values[at]);
            assert!(difference(&(scaled * found.right.transpose()), &a) < 1e-10, "{m} {n}");
            assert!(found.values.windows(2).all(|pair| pair[0] >= pair[1]));
            let exact = a.svd().unwrap();
            for (at, value) in found.values.iter().enumerate() {
                assert!((value - exact.S().column_vector()[at]).abs() < 1e-9 * found.values[0]);
            }
        }
    }

    #[test]
    fn a_polar_factor_is_orthonormal_where_it_is_determined() {
        for (m, n) in [(9, 5), (5, 9)] {
            let factor = polar(made(m, n).as_ref()).unwrap();
            let inner = if m >= n { factor.transpose() * &factor } else { &factor * factor.transpose() };
            assert!(difference(&inner, &Mat::identity(5, 5)) < 1e-9);
        }
        // One direction alone: nothing is put into the others.
        let one = Mat::from_fn(4, 3, |i, j| (i + 1) as f64 * (j + 1) as f64);
        let factor = polar(one.as_ref()).unwrap();
        assert!((factor.norm_l2() - 1.0).abs() < 1e-9, "{}", factor.norm_l2());
        assert_eq!(polar(Mat::zeros(3, 2).as_ref()).unwrap().norm_l2(), 0.0);
    }
}
