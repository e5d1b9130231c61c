//! `pca`: the reference's principal components of the centred tasks, and the mean as one more stored vector.
//!
//! With H = I − 11ᵀ/T and U the eigenvectors of HGH: atoms V·H·U (their norms are the singular values), coefficients Uᵀ,
//! mean V·1/T, recovery mean + Σ coefficient·atom. The mean is no atom: the plain sum of atoms leaves it out, which is
//! how the reference adds and why its PCA baseline fails at addition.

use super::gram::{Gram, Spectrum};
use super::linear;
use super::problem::{Found, Problem};
use crate::error::Result;
use faer::Mat;

pub(super) fn solve(problem: &Problem<'_>) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    let n_components = problem.n_atoms.min(n_tasks - 1);
    let center = center(n_tasks);
    let spectrum = problem.gram.kept().centred.get_or_init(|| Spectrum::of(centred(problem.gram).as_ref()));
    let components = spectrum.vectors.view().subcols(0, n_components);
    let encode_components = linear::product(center.as_ref(), components);
    let encode = Mat::from_fn(n_tasks, n_components + 1, |t, m| {
        if m < n_components { encode_components[(t, m)] } else { 1.0 / n_tasks as f64 }
    });
    let decode =
        Mat::from_fn(n_components + 1, n_tasks, |m, t| if m < n_components { components[(t, m)] } else { 1.0 });
    let mut notes = vec![format!(
        "pca stores {} vectors: {n_components} component{} and the mean",
        n_components + 1,
        if n_components == 1 { "" } else { "s" }
    )];
    if n_components < problem.n_atoms {
        notes.push(format!("{n_tasks} centred tasks span at most {} dimensions", n_tasks - 1));
    }
    let in_sum = (0..=n_components).map(|m| m < n_components).collect();
    Ok(Found { decode: Some(decode), in_sum: Some(in_sum), notes, convex: false, ..Found::encoded(encode) })
}

/// H.
fn center(n_tasks: usize) -> Mat<f64> {
    Mat::from_fn(n_tasks, n_tasks, |i, j| f64::from(u8::from(i == j)) - 1.0 / n_tasks as f64)
}

/// HGH.
pub(super) fn centred(gram: &Gram) -> Mat<f64> {
    let center = center(gram.n_tasks());
    let left = linear::product(center.as_ref(), gram.view());
    linear::product(left.as_ref(), center.as_ref())
}
