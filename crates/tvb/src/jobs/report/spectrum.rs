//! What the tasks have in common: how much of all squared norms is left after the best k directions.

use super::chart::{Axis, COLORS, Chart, Line, Look};
use crate::error::Result;

/// Shares below this are drawn at it; the axis is logarithmic.
const FLOOR: f64 = 1e-3;

/// A plot of Σ_{i>k} λi / Σ λi over k, the least relative loss of any basis of k vectors, with a ring where this basis
/// is: `n_stored` vectors and their relative loss.
///
/// # Errors
/// None today: the `Result` leaves room for plots that cannot be drawn.
pub fn spectrum_svg(eigenvalues: &[f64], n_stored: usize, relative_loss: Option<f64>) -> Result<String> {
    let total: f64 = eigenvalues.iter().map(|value| value.max(0.0)).sum();
    let left = |k: usize| {
        let rest: f64 = eigenvalues.iter().skip(k).map(|value| value.max(0.0)).sum();
        if total > 0.0 { rest / total } else { 0.0 }
    };
    let n = eigenvalues.len();
    let bound = Line {
        name: "the least that any basis loses",
        color: COLORS[0],
        look: Look::Solid,
        points: (0..=n).map(|k| (k as f64, left(k))).collect(),
    };
    let here = relative_loss.map(|loss| Line {
        name: "this basis",
        color: COLORS[3],
        look: Look::Rings,
        points: vec![(n_stored as f64, loss)],
    });
    let chart = Chart {
        title: "What the best k vectors leave",
        x: Axis { label: "vectors", from: 0.0, to: n.max(1) as f64, is_log: false },
        y: Axis { label: "share of all squared norms that is lost", from: FLOOR, to: 1.5, is_log: true },
        lines: [bound].into_iter().chain(here).collect(),
    };
    Ok(chart.svg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spectrum_can_be_drawn() {
        for values in [&[][..], &[0.0, 0.0], &[3.0, 1.0, -1e-9], &[1e300, 1.0]] {
            assert!(spectrum_svg(values, 1, Some(0.5)).unwrap().contains("this basis"), "{values:?}");
        }
        assert!(!spectrum_svg(&[1.0], 1, None).unwrap().contains("this basis"));
    }
}
