//! Orthogonal coordinates: the same subspace, other atoms.
//!
//! Convex atoms are nearly parallel, so their weights are large and what 16-bit storage rounds off is multiplied by them.
//! Orthogonal atoms of equal length have the smallest weights there are. Of all such atoms those are taken whose sum is
//! the sum of the convex ones: an orthonormal frame of the subspace is reflected so that this sum makes the same angle
//! with every atom. Kept: span, loss, recovery, and the rule `sum`. Lost: atoms are no longer non-negative mixtures.

use super::{Gram, linear};
use faer::Mat;

/// Eigenvalues of the atoms' Gram below this part of the largest are no dimension.
const NO_DIMENSION: f64 = 1e-13;
/// A sum of atoms shorter than this part of what it could be gives no direction.
const NO_SUM: f64 = 1e-10;

/// Turns convex B \[n_tasks, n_atoms\] into the encode of orthogonal atoms; fewer columns where the atoms span less.
pub(super) fn turn(gram: &Gram, encode: &Mat<f64>) -> Mat<f64> {
    let n_tasks = gram.n_tasks();
    let frame = principal_frame(gram, encode);
    let n_dims = frame.ncols();
    if n_dims == 0 {
        return Mat::zeros(n_tasks, 1);
    }
    let sum = linear::times(encode.as_ref(), &vec![1.0; encode.ncols()]);
    let along = linear::times_transposed(frame.as_ref(), &linear::times(gram.view(), &sum));
    let length = linear::norm(&along);
    let typical = (gram.trace() / n_tasks as f64).sqrt();
    if length <= NO_SUM * typical {
        return faer::Scale(typical) * frame;
    }
    // The reflection that carries (1, …, 1)/√r to the direction of the sum; then r equal shares add up to the sum.
    let share = 1.0 / (n_dims as f64).sqrt();
    let mirror: Vec<f64> = along.iter().map(|x| x / length - share).collect();
    let square = linear::dot(&mirror, &mirror);
    let reflect = Mat::from_fn(n_dims, n_dims, |i, j| {
        let turned = if square > 1e-30 { 2.0 * mirror[i] * mirror[j] / square } else { 0.0 };
        length * share * (f64::from(u8::from(i == j)) - turned)
    });
    linear::product(frame.as_ref(), reflect.as_ref())
}

/// Y \[n_tasks, r\] with the atoms' span, YᵀGY = I, in the order of how much of the tasks each direction holds.
fn principal_frame(gram: &Gram, encode: &Mat<f64>) -> Mat<f64> {
    let gram_encode = linear::product(gram.view(), encode.as_ref());
    let inner = linear::product(encode.transpose(), gram_encode.as_ref());
    let (values, vectors) = linear::eigen(inner.as_ref());
    let n_dims = values.iter().filter(|&&v| v > NO_DIMENSION * values[0] && v > 0.0).count();
    if n_dims == 0 {
        return Mat::zeros(encode.nrows(), 0);
    }
    let white = Mat::from_fn(encode.ncols(), n_dims, |m, k| vectors[(m, k)] / values[k].sqrt());
    let frame = linear::product(encode.as_ref(), white.as_ref());
    // Once more: whitening twice takes the first pass's rounding away.
    let frame = whitened_again(gram, &frame);
    let held = linear::product(frame.transpose(), gram.view());
    let (_, turned) = linear::eigen(linear::product(held.as_ref(), held.transpose()).as_ref());
    linear::product(frame.as_ref(), turned.as_ref())
}

fn whitened_again(gram: &Gram, frame: &Mat<f64>) -> Mat<f64> {
    let inner = linear::product(frame.transpose(), linear::product(gram.view(), frame.as_ref()).as_ref());
    let (values, vectors) = linear::eigen(inner.as_ref());
    let white = Mat::from_fn(frame.ncols(), frame.ncols(), |m, k| vectors[(m, k)] / values[k].max(1e-3).sqrt());
    linear::product(frame.as_ref(), white.as_ref())
}
