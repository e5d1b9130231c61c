//! The points of a fit, what they belong to, and what comes out of them.

use super::options::FitOptions;
use crate::checkpoint::Checkpoint;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::edit::{Combination, Over, Source};
use crate::jobs::evaluate::Metrics;
use crate::jobs::point_log::{Identity, Kind, files, source_json};
use crate::jobs::sweep::choose::metric;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;

/// Coefficients and what the evaluator said of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its number among the points that the search asks for, from 0; `None` for the mean of the last generation, which is evaluated
    /// at the end.
    pub number: Option<usize>,
    /// Where it comes from: `start: zero`, `run 1, generation 3`, `mean`.
    pub from: String,
    /// \[n_blocks\]\[n_names\], or one row.
    pub values: Vec<Vec<f64>>,
    /// The evaluator's metrics.
    pub metrics: Metrics,
    /// How long forming and evaluating the candidate took.
    pub seconds: f64,
    /// Seconds that the fit had taken when it was finished, those of runs before included.
    pub elapsed: f64,
}

impl Point {
    /// What it is worth; more is better.
    ///
    /// # Errors
    /// Failed: the evaluator's answer lacks the metric.
    pub fn objective(&self, options: &FitOptions) -> Result<f64> {
        Ok(options.objective(self.metric(options)?, &self.values))
    }

    /// The metric that decides.
    ///
    /// # Errors
    /// Failed: the evaluator's answer lacks it.
    pub fn metric(&self, options: &FitOptions) -> Result<f64> {
        metric(&self.metrics, &options.metric).map_err(|error| error.context(format!("evaluator at {}", self.name())))
    }

    /// How messages call it.
    pub(super) fn name(&self) -> String {
        self.number.map_or_else(|| self.from.clone(), |number| format!("point {number}"))
    }

    /// Σc², which decides between points of the same worth.
    pub(super) fn squares(&self) -> f64 {
        self.values.iter().flatten().map(|value| value * value).sum()
    }
}

/// Fitted coefficients.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Every point, in the order in which they were asked for.
    pub points: Vec<Point>,
    /// The best point's position among them.
    pub best: usize,
    /// The best point's coefficients.
    pub combination: Combination,
    /// Where the best candidate is.
    pub best_path: PathBuf,
    /// Points that were evaluated by this run; the others were there already.
    pub n_evaluated: usize,
    /// Of everything that the points depend on.
    pub fingerprint: Digest,
}

impl Fitted {
    /// The best point.
    pub fn best(&self) -> Option<&Point> {
        self.points.get(self.best)
    }
}

/// Everything that the points depend on. The budget is not part of it: a fit with a larger one goes on.
pub(super) fn identity(
    source: Source<'_>,
    shape: &Combination,
    base: &Checkpoint,
    options: &FitOptions,
) -> Result<Identity> {
    let blocks = shape.blocks.iter().flatten().map(|block| {
        let names = block.tensors.iter().map(|name| Digest::of(name.as_bytes()));
        json!({ "name": block.name, "tensors": Digest::of_digests(names) })
    });
    let init = options.init.as_ref().map(|init| init.to_json()).transpose()?;
    if !(options.l1.is_finite() && options.l1 >= 0.0 && options.l2.is_finite() && options.l2 >= 0.0) {
        return Err(Error::usage(format!(
            "--l1 and --l2: 0 or more expected, {} and {} found",
            options.l1, options.l2
        )));
    }
    let members = [
        ("source", source_json(source)),
        ("over", json!(if shape.over == Over::Tasks { "tasks" } else { "atoms" })),
        ("names", json!(shape.names)),
        ("blocks", json!(blocks.collect::<Vec<_>>())),
        ("base", files(base)),
        ("dtype", json!(options.dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).to_string()))),
        ("evaluator", json!(options.evaluator.command)),
        ("serve", json!(options.evaluator.serve)),
        ("metric", json!(options.metric)),
        ("minimize", json!(options.minimize)),
        ("l1", json!(options.l1)),
        ("l2", json!(options.l2)),
        ("seed", json!(options.seed)),
        ("init", json!(init.map(|text| Digest::of(text.as_bytes())))),
    ];
    Ok(Identity::new(Kind::Fit, members))
}
