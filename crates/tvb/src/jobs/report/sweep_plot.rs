//! Plots of candidates: a metric against the scale of an edit, with the control that must be kept and the point that was chosen, and
//! the points of a search.

use super::chart::{Axis, COLORS, Chart, Line, Look};
use crate::error::Result;

/// One metric over the scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// (scale, value), ascending in scale.
    pub values: Vec<(f64, f64)>,
}

/// A plot of `metric` and `control` over the scales, the control's floor (dashed) and the best point (a ring).
///
/// # Errors
/// None today: the `Result` leaves room for plots that cannot be drawn.
pub fn sweep_svg(
    metric: &Series,
    control: Option<&Series>,
    floor: Option<f64>,
    best: Option<(f64, f64)>,
) -> Result<String> {
    let points = || metric.values.iter().chain(control.iter().flat_map(|control| &control.values));
    let (x_min, x_max) = padded(points().map(|point| point.0));
    let (y_min, y_max) = padded(points().map(|point| point.1).chain(floor));
    let line = |name, color, look, points| Line { name, color, look, points };
    let mut lines = vec![line(metric.name.as_str(), COLORS[0], Look::Solid, metric.values.clone())];
    lines.extend(control.map(|control| line(&control.name, COLORS[3], Look::Solid, control.values.clone())));
    lines.extend(floor.map(|y| line("the control's floor", COLORS[3], Look::Dashed, vec![(x_min, y), (x_max, y)])));
    lines.extend(best.map(|at| line("the best point", COLORS[2], Look::Rings, vec![at])));
    let title = format!("{} against the scale of the edit", metric.name);
    let chart = Chart {
        title: &title,
        x: Axis { label: "scale", from: x_min, to: x_max, is_log: false },
        y: Axis { label: &metric.name, from: y_min, to: y_max, is_log: false },
        lines,
    };
    Ok(chart.svg())
}

/// A plot of a search: what every point is worth (dots) and the best so far (a line), over the number of evaluations, with a ring
/// around the best point. `is_least` says that less is better.
pub fn fit_svg(values: &Series, is_least: bool) -> String {
    let mut best_so_far: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in &values.values {
        let is_better = |best: f64| if is_least { y < best } else { y > best };
        match best_so_far.last() {
            Some(&(_, best)) if !is_better(best) => best_so_far.push((x, best)),
            _ => best_so_far.push((x, y)),
        }
    }
    let best = best_so_far.last().and_then(|&(_, best)| values.values.iter().find(|at| at.1 == best)).copied();
    let (x_min, x_max) = padded(values.values.iter().map(|point| point.0));
    let (y_min, y_max) = padded(values.values.iter().map(|point| point.1));
    let line = |name, color, look, points| Line { name, color, look, points };
    let mut lines = vec![
        line("every point", COLORS[0], Look::Dots, values.values.clone()),
        line("the best so far", COLORS[1], Look::Dashed, best_so_far),
    ];
    lines.extend(best.map(|at| line("the best point", COLORS[2], Look::Rings, vec![at])));
    let title = format!("{} over the evaluations", values.name);
    let chart = Chart {
        title: &title,
        x: Axis { label: "evaluations", from: x_min, to: x_max, is_log: false },
        y: Axis { label: &values.name, from: y_min, to: y_max, is_log: false },
        lines,
    };
    chart.svg()
}

/// The range of some values, a little wider; never empty.
fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (min, max) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
    if min > max {
        return (0.0, 1.0);
    }
    let pad = ((max - min) * 0.04).max(max.abs().max(1e-6) * 1e-3);
    (min - pad, max + pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_shows_every_point_and_the_best_so_far() {
        let values: Vec<(f64, f64)> =
            [0.5, 0.7, 0.2, 0.9].into_iter().enumerate().map(|(x, y)| (x as f64, y)).collect();
        let series = Series { name: "accuracy".into(), values };
        // Four points, the best one, and the legend's dot and ring.
        for (is_least, best) in [(false, "the best point: 3.0000, 0.9000"), (true, "the best point: 2.0000, 0.2000")] {
            let svg = fit_svg(&series, is_least);
            assert!(svg.contains(best) && svg.matches("<circle").count() == 7, "{svg}");
        }
        assert!(fit_svg(&Series { name: "x".into(), values: Vec::new() }, false).ends_with("</svg>"));
    }

    #[test]
    fn both_series_and_the_best_point_are_in_the_picture() {
        let series = |name: &str, values: &[(f64, f64)]| Series { name: name.into(), values: values.to_vec() };
        let metric = series("accuracy", &[(0.0, 0.5), (1.0, 0.9)]);
        let control = series("kept", &[(0.0, 0.9), (1.0, 0.8)]);
        let svg = sweep_svg(&metric, Some(&control), Some(0.85), Some((1.0, 0.9))).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("accuracy") && svg.contains("kept"));
        assert!(
            svg.matches("<circle").count()
                > sweep_svg(&metric, Some(&control), None, None).unwrap().matches("<circle").count()
        );
        for values in [&[][..], &[(0.5, 0.0)], &[(0.0, 1e300), (1.0, -1e300)]] {
            assert!(sweep_svg(&series("x", values), None, None, None).unwrap().ends_with("</svg>"), "{values:?}");
        }
    }
}
