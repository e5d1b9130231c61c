//! The eigendecompositions that solves of one Gram matrix share, whatever M: which there will be is known before they begin,
//! so whoever has a device may find them there, several at once, and leave them with the Gram matrix. The others are
//! found when they are first asked for.
//!
//! Not among them: what depends on M or on what was found so far. That is the Gram matrix of the atoms (M × M), another anchor at
//! every step of a search by `exact`, and the small factors of adapters.

use super::deflate::{CANCELS, left, named, uncancelled};
use super::gram::{Gram, Spectrum};
use super::problem::Problem;
use super::{Method, SolveOptions, cluster, pca};
use crate::matrix::Matrix;
use faer::Mat;
use std::sync::OnceLock;

/// What a spectrum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The Gram matrix.
    Itself,
    /// What is left of it once the equal-weight sum is taken out (`anchored`).
    Deflated,
    /// The Gram matrix of the centred tasks (`pca`).
    Centred,
    /// Positive cosines by degree (`cluster`, `nmf`).
    Affinity,
}

/// A spectrum that a solve will ask for.
#[derive(Clone, Debug)]
pub struct WantedSpectrum {
    of: Of,
    balanced: bool,
    matrix: Matrix,
}

/// The spectra that solving by these methods will ask for, where the tasks are scaled to one length or not; `has_target` where
/// M is to be found for an error. Those that are known already are not among them.
pub fn wanted_spectra(gram: &Gram, methods: &[Method], balance: bool, has_target: bool) -> Vec<WantedSpectrum> {
    let mut wanted: Vec<WantedSpectrum> = Vec::new();
    let mut add = |of: Of, balanced: bool, matrix: &dyn Fn() -> Mat<f64>| {
        let is_there = wanted.iter().any(|one| (one.of, one.balanced) == (of, balanced));
        if !is_there && place(gram, of, balanced).get().is_none() {
            wanted.push(WantedSpectrum { of, balanced, matrix: Matrix::of(matrix()) });
        }
    };
    let options = SolveOptions { balance, ..SolveOptions::atoms(1) };
    let problem = Problem::new(gram, &options, &|_| true);
    add(Of::Itself, false, &|| gram.unit().view().to_owned());
    if has_target {
        add(Of::Itself, true, &|| gram.balanced().unit().view().to_owned());
    }
    for method in methods {
        match method {
            Method::Exact(_) => add(Of::Itself, balance, &|| problem.gram.unit().view().to_owned()),
            Method::Anchored(own) if own.weights.is_none() => {
                let anchor = problem.stretched(&vec![1.0; gram.n_tasks()]);
                // Where the tasks cancel, `exact` takes over.
                match uncancelled(problem.gram, &anchor) > CANCELS {
                    true => add(Of::Deflated, balance, &|| left(problem.gram, &anchor)),
                    false => add(Of::Itself, balance, &|| problem.gram.unit().view().to_owned()),
                }
            }
            Method::Pca => add(Of::Centred, balance, &|| pca::centred(problem.gram)),
            Method::Cluster(_) | Method::Nmf(_) => add(Of::Affinity, balance, &|| cluster::affinity(problem.gram)),
            _ => {}
        }
    }
    wanted
}

impl WantedSpectrum {
    /// What is to be decomposed, \[n_tasks, n_tasks\], symmetric.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Leaves the answer with `gram`, of which it must have been asked: eigenvalues in descending order, eigenvectors in the columns,
    /// the largest entry of each positive. What is not of this order is not taken.
    pub fn give(&self, gram: &Gram, values: Vec<f64>, vectors: Matrix) {
        let n = gram.n_tasks();
        if (values.len(), vectors.n_rows(), vectors.n_columns()) != (n, n, n) {
            return;
        }
        let found = Spectrum::from_pairs(values, vectors);
        let of = target(gram, self.balanced);
        let found = if self.of == Of::Deflated { named(of, found) } else { found };
        // One that came first is as good.
        let _ = place(gram, self.of, self.balanced).set(found);
    }
}

/// The Gram matrix that solvers work on.
fn target(gram: &Gram, balanced: bool) -> &Gram {
    if balanced { gram.balanced() } else { gram.unit() }
}

fn place(gram: &Gram, of: Of, balanced: bool) -> &OnceLock<Spectrum> {
    let target = target(gram, balanced);
    match of {
        // Of trace 1, from which others are scaled.
        Of::Itself => &target.unit().kept().itself,
        Of::Deflated => &target.kept().deflated,
        Of::Centred => &target.kept().centred,
        Of::Affinity => &target.kept().affinity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::{linear, solve};

    /// Whatever a method asks for is what was given, and the answer is the same as its own.
    #[test]
    fn what_was_given_is_what_methods_use() {
        let v = Mat::from_fn(30, 7, |i, j| ((5 * i + 3 * j * j) as f64 * 0.71).sin() + 0.4 * (1.0 + j as f64).ln());
        let entries = linear::product(v.transpose(), v.as_ref());
        let fresh = || Gram::new(Matrix::of(entries.clone())).expect("a Gram matrix");
        for method in Method::all() {
            if !method.stores_atoms() {
                continue;
            }
            for balance in [false, true] {
                let n_atoms = method.fixed_atoms(7).unwrap_or(3);
                let options = SolveOptions { balance, ..SolveOptions::atoms(n_atoms) };
                let methods = std::slice::from_ref(&method);
                let own = fresh();
                let Ok(expected) = solve(&own, &method, &options, &|_| true) else { continue };
                let given = fresh();
                let wanted = wanted_spectra(&given, methods, balance, true);
                for one in &wanted {
                    let (values, vectors) = linear::eigen(one.matrix().view());
                    one.give(&given, values, Matrix::of(vectors));
                }
                let what = format!("{}, balance {balance}", method.name());
                assert!(wanted_spectra(&given, methods, balance, true).is_empty(), "{what}: something is still wanted");
                assert_eq!(solve(&given, &method, &options, &|_| true).expect("solved"), expected, "{what}");
                assert_eq!(given.spectrum(), own.spectrum(), "{what}");
                assert_eq!(given.balanced().spectrum(), own.balanced().spectrum(), "{what}");
                // Nothing that solving left behind is unknown to this file.
                let left_over = wanted_spectra(&own, methods, balance, false);
                assert!(left_over.is_empty(), "{what}: asked for and not used: {left_over:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let gram = Gram::new(Matrix::identity(3)).expect("a Gram matrix");
        let wanted = wanted_spectra(&gram, &[], false, false);
        wanted[0].give(&gram, vec![1.0; 2], Matrix::identity(2));
        assert_eq!(gram.spectrum().values.len(), 3);
    }
}
