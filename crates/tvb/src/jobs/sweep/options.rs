//! How a sweep is done, and what comes out of it.

use super::choose::{Choice, Goal};
use super::log::Point;
use crate::checkpoint::{Existing, Inputs};
use crate::digest::Digest;
use crate::jobs::evaluate::{Evaluator, Metrics};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How a sweep is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepOptions {
    /// The folder for the results, the best candidate and what is needed to resume.
    pub output: PathBuf,
    /// The grid, from [`parse_scales`](super::parse_scales).
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
    /// Write the largest finite value of the format in place of one beyond it; otherwise that is an error.
    pub clip: bool,
    /// Use a base that is not the one the basis was made from.
    pub force: bool,
    /// The command line, for model cards and results.
    pub command: String,
    /// The base's name on the Hugging Face hub, for model cards; `None` takes what its files say.
    pub base_model: Option<String>,
    /// What the sweep must leave alone beside the base and what the edit is formed from.
    pub protect: Inputs,
}

impl SweepOptions {
    /// These scales, one evaluator at a time, into a folder that holds nothing yet, or the same sweep.
    pub fn new(output: impl Into<PathBuf>, scales: Vec<f64>, evaluator: Evaluator, goal: Goal) -> SweepOptions {
        SweepOptions {
            output: output.into(),
            scales,
            evaluator,
            goal,
            zero_shot: false,
            fine_tuned: None,
            n_jobs: NonZeroUsize::MIN,
            keep_all: false,
            existing: Existing::Refuse,
            dtype: None,
            clip: false,
            force: false,
            command: String::new(),
            base_model: None,
            protect: Inputs::none(),
        }
    }

    /// Sets whether the base itself is evaluated too (λ = 0).
    #[must_use]
    pub fn zero_shot(self, zero_shot: bool) -> SweepOptions {
        SweepOptions { zero_shot, ..self }
    }

    /// Sets each task's metric after its own fine-tuning, which adds the normalised metrics.
    #[must_use]
    pub fn fine_tuned(self, fine_tuned: Option<Metrics>) -> SweepOptions {
        SweepOptions { fine_tuned, ..self }
    }

    /// Sets how many evaluators run at once.
    #[must_use]
    pub fn n_jobs(self, n_jobs: NonZeroUsize) -> SweepOptions {
        SweepOptions { n_jobs, ..self }
    }

    /// Sets whether every candidate is kept, not only the best.
    #[must_use]
    pub fn keep_all(self, keep_all: bool) -> SweepOptions {
        SweepOptions { keep_all, ..self }
    }

    /// Sets what to do with another sweep's results; the same sweep always resumes.
    #[must_use]
    pub fn existing(self, existing: Existing) -> SweepOptions {
        SweepOptions { existing, ..self }
    }

    /// Sets the format of the candidates' float tensors; `None` keeps each tensor's.
    #[must_use]
    pub fn dtype(self, dtype: Option<tvb_kernels::Dtype>) -> SweepOptions {
        SweepOptions { dtype, ..self }
    }

    /// Sets whether values beyond the format are written as its largest finite one.
    #[must_use]
    pub fn clip(self, clip: bool) -> SweepOptions {
        SweepOptions { clip, ..self }
    }

    /// Sets whether a base may be used that is not the one the basis was made from.
    #[must_use]
    pub fn force(self, force: bool) -> SweepOptions {
        SweepOptions { force, ..self }
    }

    /// Sets what the sweep must leave alone beside the base and what the edit is formed from.
    #[must_use]
    pub fn protect(self, protect: Inputs) -> SweepOptions {
        SweepOptions { protect, ..self }
    }

    /// Sets the base's name on the Hugging Face hub, which [`check_model_id`](crate::jobs::card::check_model_id) takes.
    #[must_use]
    pub fn base_model(self, id: Option<String>) -> SweepOptions {
        SweepOptions { base_model: id, ..self }
    }

    /// Sets the command line, for model cards and results.
    #[must_use]
    pub fn command(self, command: impl Into<String>) -> SweepOptions {
        SweepOptions { command: command.into(), ..self }
    }
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
        self.choice.best.and_then(|index| self.points.get(index))
    }
}
