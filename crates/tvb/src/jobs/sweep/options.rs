//! How a sweep is done, and what comes out of it.

use super::choose::{Choice, Goal};
use super::log::Point;
use crate::checkpoint::Existing;
use crate::digest::Digest;
use crate::jobs::evaluate::{Evaluator, Metrics};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How a sweep is done.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// The folder for the results, the best candidate and what is needed to resume.
    pub output: PathBuf,
    /// The grid, from [`parse_scales`].
    pub scales: Vec<f64>,
    /// The user's evaluator.
    pub evaluator: Evaluator,
    /// What is looked for.
    pub goal: Goal,
    /// Evaluate the base itself too (λ = 0).
    pub zero_shot: bool,
    /// Each task's metric after its own fine-tuning: adds the normalised metrics.
    pub fine_tuned: Option<Metrics>,
    /// Evaluators that run at once.
    pub n_jobs: NonZeroUsize,
    /// Keep every candidate, not only the best.
    pub keep_all: bool,
    /// Replace another sweep's results; the same sweep always resumes.
    pub existing: Existing,
    /// Format of the candidates' float tensors; `None` keeps each tensor's.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// Use a base that is not the one the basis was made from.
    pub force: bool,
    /// The command line, for model cards and results.
    pub command: String,
}

/// A finished sweep.
#[derive(Clone, Debug)]
pub struct Swept {
    /// The points of the grid, ascending, with their normalised metrics.
    pub points: Vec<Point>,
    /// What the base scores, where it was evaluated.
    pub zero_shot: Option<Metrics>,
    /// Which points keep the control, and the best of them.
    pub choice: Choice,
    /// Where the best candidate is.
    pub best_path: Option<PathBuf>,
    /// Points that were evaluated by this run; the others were there already.
    pub n_evaluated: usize,
    /// Of the edit, the base and the evaluator.
    pub fingerprint: Digest,
}

impl Swept {
    /// The best point.
    pub fn best(&self) -> Option<&Point> {
        self.choice.best.map(|index| &self.points[index])
    }
}
