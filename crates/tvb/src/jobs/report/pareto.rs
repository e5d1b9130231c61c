//! Error against size, one line for each method: which basis is worth its bytes.

use super::chart::{Axis, COLORS, Chart, Line, Look};
use crate::error::Result;

/// One basis that could be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pareto {
    /// Its method.
    pub method: &'static str,
    /// Vectors that are stored.
    pub n_stored: usize,
    /// Mean relative squared error over the tasks.
    pub mean_error: f64,
    /// The worst task's.
    pub worst_error: f64,
}

/// Errors are shown from here up; the axis is logarithmic.
const ERROR_FLOOR: f64 = 1e-4;

/// A plot of mean (solid) and worst (faint) errors against the share of storage kept.
///
/// # Errors
/// None today: the `Result` leaves room for plots that cannot be drawn.
pub fn pareto_svg(points: &[Pareto], n_tasks: usize) -> Result<String> {
    let share = |point: &Pareto| point.n_stored as f64 / n_tasks.max(1) as f64;
    let most = points.iter().map(share).fold(1.0, f64::max);
    let mut methods: Vec<&str> = Vec::new();
    for point in points {
        if !methods.contains(&point.method) {
            methods.push(point.method);
        }
    }
    let lines = methods.into_iter().enumerate().flat_map(|(index, method)| {
        let color = COLORS.iter().cycle().nth(index).copied().unwrap_or_default();
        let of_method = || points.iter().filter(|point| point.method == method);
        let worst = of_method().map(|point| (share(point), point.worst_error)).collect();
        let mean = of_method().map(|point| (share(point), point.mean_error)).collect();
        [
            Line { name: "", color, look: Look::Faint, points: worst },
            Line { name: method, color, look: Look::Solid, points: mean },
        ]
    });
    let chart = Chart {
        title: "Error of recovered task vectors against storage",
        x: Axis { label: "stored vectors / tasks", from: 0.0, to: most * 1.02, is_log: false },
        y: Axis {
            label: "relative squared error (solid: mean, faint: worst)",
            from: ERROR_FLOOR,
            to: 2.0,
            is_log: true,
        },
        lines: lines.collect(),
    };
    Ok(chart.svg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_in_the_picture() {
        let point =
            |method, n_stored, mean_error| Pareto { method, n_stored, mean_error, worst_error: mean_error * 2.0 };
        let svg = pareto_svg(&[point("exact", 1, 0.5), point("exact", 2, 0.0), point("pca", 3, 0.1)], 4).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("exact") && svg.contains("pca"));
        assert!(pareto_svg(&[], 0).unwrap().ends_with("</svg>"));
    }
}
