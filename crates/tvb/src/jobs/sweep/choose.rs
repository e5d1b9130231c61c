//! Which point is best: the highest metric (or the lowest), among the points that keep the control. Pure.

use super::log::Point;
use crate::error::{Error, Result};
use crate::jobs::evaluate::Metrics;
use crate::nearest::nearest;

/// The name of the mean normalised metric; each key's own is `normalized.KEY`.
pub const NORMALIZED: &str = "normalized";
/// Values that differ by less than this, relatively, are equal: what it takes to write a number down and read it again.
const TIE: f64 = 1e-12;

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The metric that decides.
    pub metric: String,
    /// Whether less of it is better.
    pub minimize: bool,
    /// What must be kept, where something must.
    pub control: Option<Control>,
}

/// A metric that must not fall below a part of its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Its name.
    pub name: String,
    /// The part of the reference that is enough, such as 0.95.
    pub keep: f64,
    /// The unedited model's metrics; `None` evaluates the base.
    pub reference: Option<Metrics>,
}

/// The metrics with, for every key that `fine_tuned` has too, the ratio to its value there, and the mean of the ratios.
pub fn with_normalized(metrics: &Metrics, fine_tuned: Option<&Metrics>) -> Metrics {
    let mut all = metrics.clone();
    let ratios: Vec<(&String, f64)> = fine_tuned
        .into_iter()
        .flatten()
        .filter_map(|(name, own)| Some((name, metrics.get(name)? / own)))
        .filter(|(_, ratio)| ratio.is_finite())
        .collect();
    if !ratios.is_empty() {
        let mean = ratios.iter().map(|(_, ratio)| ratio).sum::<f64>() / ratios.len() as f64;
        all.insert(NORMALIZED.to_owned(), mean);
    }
    all.extend(ratios.into_iter().map(|(name, ratio)| (format!("{NORMALIZED}.{name}"), ratio)));
    all
}

/// The metric called `name`.
///
/// # Errors
/// Failed: it is not among the metrics; the message lists them, the hint names the nearest.
pub fn metric(metrics: &Metrics, name: &str) -> Result<f64> {
    metrics.get(name).copied().ok_or_else(|| {
        let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
        let error = Error::failed(format!("no metric {name:?} among those printed: {}", names.join(", ")));
        match nearest(name, names) {
            Some(known) => error.hint(format!("did you mean {known:?}?")),
            None => error.hint(
                "a metric is a key of the JSON object that the evaluator prints, on its last line or as its answer",
            ),
        }
    })
}

/// What came of the choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The control's lowest value that is enough, where there is a control.
    pub floor: Option<f64>,
    /// For each point, whether it keeps the control.
    pub eligible: Vec<bool>,
    /// The best point's position; `None` when no point keeps the control.
    pub best: Option<usize>,
}

/// Chooses among points (metrics with their normalised ones); of equal ones the smaller edit.
///
/// # Errors
/// Failed: a point lacks the metric or the control.
pub fn choose(points: &[Point], goal: &Goal, reference: Option<&Metrics>) -> Result<Choice> {
    let floor = match (&goal.control, reference) {
        (Some(control), Some(reference)) => {
            let kept = metric(reference, &control.name).map_err(|error| error.context("the control's reference"))?;
            if kept < 0.0 {
                return Err(Error::failed(format!(
                    "control {}: a reference of at least 0 expected, {kept} found",
                    control.name
                )));
            }
            Some(control.keep * kept)
        }
        _ => None,
    };
    let mut eligible = Vec::with_capacity(points.len());
    let mut best: Option<(usize, &Point, f64)> = None;
    for (index, point) in points.iter().enumerate() {
        let at = |error: Error| error.context(format!("evaluator at scale {}", point.scale));
        let value = metric(&point.metrics, &goal.metric).map_err(at)?;
        let value = if goal.minimize { -value } else { value };
        let keeps = match (&goal.control, floor) {
            (Some(control), Some(floor)) => {
                metric(&point.metrics, &control.name).map_err(at)? >= floor - TIE * floor.abs()
            }
            _ => true,
        };
        eligible.push(keeps);
        let is_better = best.is_none_or(|(_, chosen, best)| {
            let gain = value - best;
            let tie = TIE * best.abs().max(value.abs());
            gain > tie || (gain.abs() <= tie && point.scale.abs() < chosen.scale.abs())
        });
        if keeps && is_better {
            best = Some((index, point, value));
        }
    }
    Ok(Choice { floor, eligible, best: best.map(|(index, ..)| index) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        values.iter().map(|(name, value)| (name.to_string(), *value)).collect()
    }

    fn points(values: &[(f64, f64, f64)]) -> Vec<Point> {
        let point = |&(scale, acc, control)| Point {
            scale,
            metrics: metrics(&[("acc", acc), ("control", control)]),
            seconds: 0.0,
        };
        values.iter().map(point).collect()
    }

    #[track_caller]
    fn check(values: &[(f64, f64, f64)], minimize: bool, keep: Option<f64>, best: Option<f64>) {
        let points = points(values);
        let control = keep.map(|keep| Control { name: "control".into(), keep, reference: None });
        let goal = Goal { metric: "acc".into(), minimize, control };
        let choice = choose(&points, &goal, Some(&metrics(&[("control", 0.8)]))).unwrap();
        assert_eq!(choice.best.map(|index| points[index].scale), best);
    }

    #[test]
    fn the_best_point_keeps_the_control_and_ties_go_to_the_smaller_edit() {
        let values = [(-0.1, 0.9, 0.9), (0.0, 0.5, 0.8), (0.5, 0.9, 0.76), (1.0, 0.1, 0.3)];
        check(&values, false, None, Some(-0.1));
        check(&values[1..], false, None, Some(0.5));
        check(&values, true, None, Some(1.0));
        check(&values, true, Some(0.95), Some(0.0));
        check(&values[2..], true, Some(0.95), Some(0.5));
        check(&values[3..], true, Some(0.95), None);
        check(&[(0.2, 0.7, 1.0), (0.1, 0.7 * (1.0 + 1e-15), 1.0)], false, None, Some(0.1));
        check(&[], false, None, None);
    }

    #[test]
    fn metrics_are_normalised_by_the_shared_keys() {
        let found = with_normalized(
            &metrics(&[("a", 0.4), ("b", 0.9), ("mean", 0.65)]),
            Some(&metrics(&[("a", 0.8), ("b", 0.9), ("c", 1.0)])),
        );
        assert_eq!(found[NORMALIZED], 0.75);
        assert_eq!((found["normalized.a"], found["normalized.b"]), (0.5, 1.0));
        assert_eq!(found.len(), 6);
        assert_eq!(with_normalized(&metrics(&[("a", 0.4)]), None), metrics(&[("a", 0.4)]));
    }

    #[test]
    fn a_missing_metric_lists_what_there_is() {
        let found = metrics(&[("mean", 1.0), ("digits", 1.0)]);
        let error = metric(&found, "maen").unwrap_err();
        assert!(error.message().contains("digits, mean"), "{error}");
        assert_eq!(error.hint_text(), Some("did you mean \"mean\"?"));
    }
}
