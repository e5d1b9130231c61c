//! How coefficients are fitted.

use crate::checkpoint::{Existing, Inputs};
use crate::jobs::edit::Combination;
use crate::jobs::evaluate::Evaluator;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What gets a coefficient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Every task.
    Tasks,
    /// These tasks.
    Named(Vec<String>),
    /// Every atom of a basis.
    Atoms,
}

/// How coefficients are fitted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FitOptions {
    /// The folder for the results, the best candidate and what is needed to resume.
    pub output: PathBuf,
    /// The user's evaluator.
    pub evaluator: Evaluator,
    /// The metric that decides.
    pub metric: String,
    /// Whether less of it is better.
    pub minimize: bool,
    /// What gets a coefficient.
    pub over: Chosen,
    /// Runs of layers that have coefficients of their own; `None`: one for all tensors.
    pub n_blocks: Option<usize>,
    /// Points that are evaluated at most, those of runs before this one among them.
    pub n_evaluations: NonZeroUsize,
    /// How long points may be evaluated, the time of runs before this one included.
    pub time: Option<Duration>,
    /// What the sum of the coefficients' sizes costs.
    pub l1: f64,
    /// What the sum of their squares costs.
    pub l2: f64,
    /// Evaluators that run at once.
    pub n_jobs: NonZeroUsize,
    /// Of the search.
    pub seed: u64,
    /// Coefficients that are tried first, and may be searched from.
    pub init: Option<Combination>,
    /// A file for the best coefficients, beside the one in the folder.
    pub save: Option<PathBuf>,
    /// Replace another fit's results; the same fit always resumes.
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
    /// What the fit must leave alone beside the base and what edits are formed from.
    pub protect: Inputs,
}

impl FitOptions {
    /// 200 evaluations of a coefficient for each task, one at a time, into a folder that holds nothing yet, or the same fit.
    pub fn new(output: impl Into<PathBuf>, evaluator: Evaluator, metric: impl Into<String>) -> FitOptions {
        FitOptions {
            output: output.into(),
            evaluator,
            metric: metric.into(),
            minimize: false,
            over: Chosen::Tasks,
            n_blocks: None,
            n_evaluations: NonZeroUsize::new(200).unwrap_or(NonZeroUsize::MIN),
            time: None,
            l1: 0.0,
            l2: 0.0,
            n_jobs: NonZeroUsize::MIN,
            seed: 0,
            init: None,
            save: None,
            existing: Existing::Refuse,
            dtype: None,
            clip: false,
            force: false,
            command: String::new(),
            base_model: None,
            protect: Inputs::none(),
        }
    }

    /// What a point of this metric and these coefficients is worth; more is better.
    pub(super) fn objective(&self, metric: f64, values: &[Vec<f64>]) -> f64 {
        let sizes: f64 = values.iter().flatten().map(|value| value.abs()).sum();
        let squares: f64 = values.iter().flatten().map(|value| value * value).sum();
        (if self.minimize { -metric } else { metric }) - self.l1 * sizes - self.l2 * squares
    }
}
