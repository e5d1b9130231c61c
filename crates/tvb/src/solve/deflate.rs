//! The Gram of what is left of the tasks once one weighted sum of them, V·a, is taken out.

use super::gram::{Gram, Spectrum};
use super::linear;
use faer::Mat;

/// aᵀGa below this part of what it would be without cancellation counts as zero: V·a is then nothing to anchor to.
pub(super) const CANCELS: f64 = 1e-10;
/// ‖Va‖² over (Σ|at|‖τt‖)²: 1 where the tasks are parallel, 1/T where orthogonal and equal, 0 where they cancel.
pub(super) fn uncancelled(gram: &Gram, a: &[f64]) -> f64 {
    let most: f64 = gram.norms().iter().zip(a).map(|(norm, weight)| norm * weight.abs()).sum();
    if most > 0.0 { linear::form(gram.view(), a, a) / (most * most) } else { 0.0 }
}

/// Spectrum of G' with a itself as the last vector, below all others, so that the vectors before it are orthogonal to a
/// even where G' has more zero eigenvalues than that of a. The values are those of G'.
pub(super) fn deflated(gram: &Gram, a: &[f64]) -> Spectrum {
    named(gram, Spectrum::of(left(gram, a).as_ref()))
}

/// The matrix whose spectrum that is.
pub(super) fn left(gram: &Gram, a: &[f64]) -> Mat<f64> {
    let n_tasks = gram.n_tasks();
    let length = linear::norm(a);
    let unit: Vec<f64> = a.iter().map(|weight| weight / length).collect();
    let ga = linear::times(gram.view(), &unit);
    let along = linear::dot(&unit, &ga);
    let inverse = if uncancelled(gram, a) > CANCELS { 1.0 / along } else { 0.0 };
    // Beyond the reach of rounding: eigenvalues of G' lie between 0 and tr G. Of an all-zero Gram any will do, but a tiny one
    // would bring the eigensolver among numbers that it cannot square.
    let below = if gram.trace() > 0.0 { gram.trace() } else { 1.0 };
    Mat::from_fn(n_tasks, n_tasks, |i, j| gram.matrix()[(i, j)] - ga[i] * ga[j] * inverse - below * unit[i] * unit[j])
}

/// Its spectrum, with the values of G'.
pub(super) fn named(gram: &Gram, mut spectrum: Spectrum) -> Spectrum {
    spectrum.lowest = 0.0;
    if gram.trace() <= 0.0 {
        spectrum.values.fill(0.0);
    }
    spectrum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;

    #[test]
    fn the_anchor_comes_last_even_where_all_tasks_are_zero() {
        for n in [1, 2, 7, 40] {
            let gram = Gram::new(Matrix::zeros(n, n)).expect("a Gram matrix");
            let spectrum = deflated(&gram, &vec![1.0; n]);
            assert_eq!(spectrum.values, vec![0.0; n]);
            for k in 0..n - 1 {
                let sum: f64 = (0..n).map(|t| spectrum.vectors[(t, k)]).sum();
                assert!(sum.abs() < 1e-12, "{n} tasks, vector {k}: {sum}");
            }
        }
    }
}
