//! What every method sees and what it hands back: one scaled Gram matrix in, one pair B and W out.

use super::method::SolveOptions;
use super::{Gram, linear};
use crate::error::{Error, Result};
use faer::Mat;

/// What a method sees.
pub(super) struct Problem<'a> {
    /// The Gram to solve on: trace 1 (0 where all tasks are zero).
    pub(super) gram: &'a Gram,
    /// The Gram as it was given, for a recipe that depends on its scale; scaled to one length where that was asked for.
    pub(super) paper_gram: &'a Gram,
    /// \[n_tasks\]: how many times longer each task is than `gram` has it, up to a common factor.
    pub(super) stretch: Vec<f64>,
    pub(super) n_atoms: usize,
    pub(super) progress: &'a dyn Fn(f64) -> bool,
}

impl<'a> Problem<'a> {
    pub(super) fn new(gram: &'a Gram, options: &SolveOptions, progress: &'a dyn Fn(f64) -> bool) -> Problem<'a> {
        let n_atoms = options.n_atoms;
        if !options.balance {
            let stretch = vec![1.0; gram.n_tasks()];
            return Problem { gram: gram.unit(), paper_gram: gram, stretch, n_atoms, progress };
        }
        // In parts of the longest, so that norms far from 1 do not leave f64's range; a zero task keeps its place.
        let norms = gram.norms();
        let longest = norms.iter().fold(0.0_f64, |most, norm| most.max(*norm));
        let stretch = norms.iter().map(|norm| if *norm > 0.0 { norm / longest } else { 1.0 }).collect();
        Problem { gram: gram.balanced(), paper_gram: gram.balanced(), stretch, n_atoms, progress }
    }

    /// A mixture of the true tasks as a mixture of the scaled ones.
    pub(super) fn stretched(&self, mixture: &[f64]) -> Vec<f64> {
        mixture.iter().zip(&self.stretch).map(|(b, g)| b * g).collect()
    }

    /// A mixture of the scaled tasks as a mixture of the true ones.
    pub(super) fn unstretched(&self, mixture: &[f64]) -> Vec<f64> {
        mixture.iter().zip(&self.stretch).map(|(b, g)| b / g).collect()
    }

    /// The same for every column.
    pub(super) fn unstretch(&self, mixtures: &mut Mat<f64>) {
        let inverse: Vec<f64> = self.stretch.iter().map(|g| 1.0 / g).collect();
        linear::scale_rows(mixtures, &inverse);
    }

    /// Tells how far the work is.
    pub(super) fn report(&self, done: f64) -> Result<()> {
        if (self.progress)(done) { Ok(()) } else { Err(Error::interrupted()) }
    }
}

/// What a method finds.
pub(super) struct Found {
    /// B. Of the scaled tasks, unless the method went back to the true ones itself: see `convex`.
    pub(super) encode: Mat<f64>,
    /// W, where the method has its own.
    pub(super) decode: Option<Mat<f64>>,
    /// Which vectors take part in rule `sum`, where not all do.
    pub(super) in_sum: Option<Vec<bool>>,
    pub(super) notes: Vec<String>,
    /// Whether the columns are mixtures to be brought to sum 1.
    pub(super) convex: bool,
}

impl Found {
    /// Non-negative B, the best W, nothing to say.
    pub(super) fn encoded(encode: Mat<f64>) -> Found {
        Found { encode, decode: None, in_sum: None, notes: Vec::new(), convex: true }
    }
}
