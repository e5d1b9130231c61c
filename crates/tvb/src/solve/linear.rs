//! The few dense operations every method is made of, on f64 `faer` matrices and on one thread, so that the same machine
//! gives the same bits whatever else it is doing.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::SelfAdjointEigen;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};

/// a·b.
pub(super) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    product_into(out.as_mut(), a, b);
    out
}

/// out = a·b, into memory that is already there.
pub(super) fn product_into(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
}

/// a·x for a plain vector.
pub(super) fn times(a: MatRef<'_, f64>, x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; a.nrows()];
    for (j, &weight) in x.iter().enumerate() {
        add_column(&mut out, a, j, weight);
    }
    out
}

/// out += weight·(column j of a), without a bounds check per entry where the column is contiguous.
pub(super) fn add_column(out: &mut [f64], a: MatRef<'_, f64>, j: usize, weight: f64) {
    match a.col(j).try_as_col_major() {
        Some(column) => out.iter_mut().zip(column.as_slice()).for_each(|(value, x)| *value += weight * x),
        None => out.iter_mut().enumerate().for_each(|(i, value)| *value += weight * a[(i, j)]),
    }
}

/// aᵀ·x for a plain vector.
pub(super) fn times_transposed(a: MatRef<'_, f64>, x: &[f64]) -> Vec<f64> {
    (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * x[i]).sum()).collect()
}

/// xᵀ·y.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

/// xᵀ·g·y.
pub(super) fn form(g: MatRef<'_, f64>, x: &[f64], y: &[f64]) -> f64 {
    dot(x, &times(g, y))
}

/// ‖x‖.
pub(super) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// One column as a plain vector.
pub(super) fn column(a: MatRef<'_, f64>, j: usize) -> Vec<f64> {
    (0..a.nrows()).map(|i| a[(i, j)]).collect()
}

/// One row as a plain vector.
pub(super) fn row(a: MatRef<'_, f64>, i: usize) -> Vec<f64> {
    (0..a.ncols()).map(|j| a[(i, j)]).collect()
}

/// Sum of the diagonal.
pub(super) fn trace(a: MatRef<'_, f64>) -> f64 {
    (0..a.nrows()).map(|i| a[(i, i)]).sum()
}

/// Row i of `a` times `factors[i]`.
pub(super) fn scale_rows(a: &mut Mat<f64>, factors: &[f64]) {
    for j in 0..a.ncols() {
        for (i, factor) in factors.iter().enumerate() {
            a[(i, j)] *= factor;
        }
    }
}

/// Column j of `a` times `factors[j]`.
pub(super) fn scale_columns(a: &mut Mat<f64>, factors: &[f64]) {
    for (j, factor) in factors.iter().enumerate() {
        for i in 0..a.nrows() {
            a[(i, j)] *= factor;
        }
    }
}

/// Eigenvalues in descending order and orthonormal eigenvectors in the columns, each with its largest entry positive
/// (the first of equals), of a finite symmetric matrix.
pub(super) fn eigen(a: MatRef<'_, f64>) -> (Vec<f64>, Mat<f64>) {
    let n = a.nrows();
    let (values, vectors) = match SelfAdjointEigen::new(a, Side::Lower) {
        Ok(found) => ((0..n).map(|k| found.S()[k]).collect::<Vec<_>>(), found.U().to_owned()),
        Err(_) => jacobi(a),
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]).then(i.cmp(&j)));
    let mut sorted = Mat::zeros(n, n);
    for (to, &from) in order.iter().enumerate() {
        let mut largest = 0.0_f64;
        for i in 0..n {
            // A hair of slack keeps the choice among equal entries from depending on their last bit.
            if vectors[(i, from)].abs() > largest.abs() * (1.0 + 1e-9) {
                largest = vectors[(i, from)];
            }
        }
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        for i in 0..n {
            sorted[(i, to)] = sign * vectors[(i, from)];
        }
    }
    (order.iter().map(|&k| values[k]).collect(), sorted)
}

/// Cyclic Jacobi: slow and sure, for the matrix on which the fast algorithm gives up.
fn jacobi(a: MatRef<'_, f64>) -> (Vec<f64>, Mat<f64>) {
    let n = a.nrows();
    let mut d = a.to_owned();
    let mut u = Mat::<f64>::identity(n, n);
    let scale = (0..n).map(|i| a[(i, i)].abs()).fold(f64::MIN_POSITIVE, f64::max);
    for _sweep in 0..60 {
        let mut off = 0.0_f64;
        for q in 1..n {
            for p in 0..q {
                off = off.max(d[(p, q)].abs());
                if d[(p, q)].abs() > f64::EPSILON * 1e-3 * scale {
                    rotate(&mut d, &mut u, p, q);
                }
            }
        }
        if off <= f64::EPSILON * scale {
            break;
        }
    }
    ((0..n).map(|i| d[(i, i)]).collect(), u)
}

/// One Jacobi rotation that zeroes d[p,q].
fn rotate(d: &mut Mat<f64>, u: &mut Mat<f64>, p: usize, q: usize) {
    let n = d.nrows();
    let theta = (d[(q, q)] - d[(p, p)]) / (2.0 * d[(p, q)]);
    let t =
        if theta.abs() > 1e150 { 0.5 / theta } else { theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt()) };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (d[(k, p)], d[(k, q)]);
        d[(k, p)] = c * x - s * y;
        d[(k, q)] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (d[(p, k)], d[(q, k)]);
        d[(p, k)] = c * x - s * y;
        d[(q, k)] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (u[(k, p)], u[(k, q)]);
        u[(k, p)] = c * x - s * y;
        u[(k, q)] = s * x + c * y;
    }
}

/// An orthonormal basis [n, n−1] of the complement of `v` in R^n: the Householder reflection that carries v to an axis,
/// less the column that is v itself. `v` must not be zero.
pub(super) fn complement(v: &[f64]) -> Mat<f64> {
    let n = v.len();
    let length = norm(v);
    let mut w: Vec<f64> = v.iter().map(|x| x / length).collect();
    let sign = if w[0] < 0.0 { -1.0 } else { 1.0 };
    w[0] += sign;
    let half = dot(&w, &w) / 2.0;
    Mat::from_fn(n, n - 1, |i, k| f64::from(u8::from(i == k + 1)) - w[i] * w[k + 1] / half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symmetric(n: usize) -> Mat<f64> {
        Mat::from_fn(n, n, |i, j| ((i * j + i + j) as f64 * 0.7).sin() + f64::from(u8::from(i == j)))
    }

    #[test]
    fn both_eigensolvers_satisfy_the_identity() {
        for n in [1, 2, 3, 8, 33] {
            let a = symmetric(n);
            for (name, (values, u)) in [("library", eigen(a.as_ref())), ("jacobi", jacobi(a.as_ref()))] {
                let au = product(a.as_ref(), u.as_ref());
                let utu = product(u.transpose(), u.as_ref());
                for i in 0..n {
                    for (k, value) in values.iter().enumerate() {
                        assert!((au[(i, k)] - u[(i, k)] * value).abs() < 1e-12 * n as f64, "{name} n={n}");
                        assert!((utu[(i, k)] - f64::from(u8::from(i == k))).abs() < 1e-13 * n as f64, "{name} n={n}");
                    }
                }
            }
            let (values, u) = eigen(a.as_ref());
            assert!(values.windows(2).all(|w| w[0] >= w[1]));
            for k in 0..n {
                let x = column(u.as_ref(), k);
                let top = x.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
                assert!(x.iter().any(|&v| v > 0.0 && v >= top * (1.0 - 1e-8)), "sign of column {k}, n={n}");
            }
        }
    }

    #[test]
    fn the_complement_is_orthonormal_and_misses_only_v() {
        for v in [vec![2.0], vec![-1.0, 0.0], vec![0.0, 3.0, -4.0], vec![1.0; 17]] {
            let n = v.len();
            let c = complement(&v);
            assert_eq!((c.nrows(), c.ncols()), (n, n - 1));
            for i in 0..n - 1 {
                assert!(dot(&v, &column(c.as_ref(), i)).abs() < 1e-14 * norm(&v) * n as f64);
                for j in 0..n - 1 {
                    let inner = dot(&column(c.as_ref(), i), &column(c.as_ref(), j));
                    assert!((inner - f64::from(u8::from(i == j))).abs() < 1e-14);
                }
            }
        }
    }
}
