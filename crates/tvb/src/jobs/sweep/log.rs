//! The points of a sweep, and what they belong to: the edit, the base and the evaluator.
//!
//! How the best is chosen is not part of it: another metric needs no new evaluation.

use super::scales::is_same_scale;
use crate::checkpoint::Checkpoint;
use crate::jobs::edit::{Edit, Source};
use crate::jobs::evaluate::Metrics;
use crate::jobs::point_log::{Identity, Kind, files, source_json};
use crate::solve::Rule;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One scale and what the evaluator said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// λ.
    pub scale: f64,
    /// The evaluator's metrics.
    pub metrics: Metrics,
    /// How long forming and evaluating the candidate took.
    pub seconds: f64,
}

/// The finished point at `scale`, where there is one.
pub(super) fn find(points: &[Point], scale: f64) -> Option<&Point> {
    points.iter().find(|point| is_same_scale(point.scale, scale))
}

pub(super) fn identity(
    source: Source<'_>,
    edit: &Edit,
    base: &Checkpoint,
    dtype: Option<tvb_kernels::Dtype>,
    evaluator: &[String],
) -> Identity {
    // As text: a number that is read back may differ in its last bit.
    let alpha: Vec<String> = edit.alpha.iter().map(f64::to_string).collect();
    let rule = match edit.rule {
        Rule::Projected => "projected",
        Rule::Sum => "sum",
    };
    let members = [
        ("source", source_json(source)),
        ("alpha", json!(alpha)),
        ("rule", json!(rule)),
        ("base", files(base)),
        ("dtype", json!(dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).to_string()))),
        ("evaluator", json!(evaluator)),
    ];
    let mut identity = Identity::new(Kind::Sweep, members);
    if let Some(factors) = &edit.by_tensor {
        identity.add("by_tensor", factors.words().to_json());
    }
    identity
}
