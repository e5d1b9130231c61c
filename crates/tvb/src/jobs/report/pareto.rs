//! What single tasks lose against size, a line for each method and one for codes: which basis is worth its bytes. Two pictures
//! over one axis, since networks feel a task that is shrunk (gain) far more than noise beside it, and a lost task has little of
//! either.

use super::chart::{Axis, COLORS, Chart, Line, Look, stacked};
use crate::error::Result;
use crate::solve::{PlanRow, Storage};

/// One basis that could be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pareto {
    /// What the line it belongs to is called.
    pub series: String,
    /// Bytes over those of the float32 task vectors.
    pub share: f64,
    /// Mean gain over the tasks, and the one furthest from 1.
    pub gain: [f64; 2],
    /// Mean noise over the tasks, and the largest.
    pub noise: [f64; 2],
}

impl Pareto {
    /// Of a row of a table; its line is that of the method, coded or not. `bytes` of `full_bytes` are stored.
    pub fn of(row: &PlanRow, bytes: u64, full_bytes: u64) -> Pareto {
        let series = match row.storage {
            Storage::Coded(_) if row.method == "identity" => "tasks, coded".to_owned(),
            Storage::Coded(rung) => format!("{}, {rung} bits", row.method),
            Storage::Plain(_) => row.method.to_owned(),
        };
        Pareto { series, ..Pareto::measured("", bytes, full_bytes, &row.gains, &row.noises) }
    }

    /// Of gains and noises that are known, one for each task.
    pub fn measured(series: &str, bytes: u64, full_bytes: u64, gains: &[f64], noises: &[f64]) -> Pareto {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let further = |worst: f64, gain: &f64| if (gain - 1.0).abs() > (worst - 1.0).abs() { *gain } else { worst };
        Pareto {
            series: series.to_owned(),
            share: bytes as f64 / full_bytes.max(1) as f64,
            gain: [mean(gains), gains.iter().fold(1.0, further)],
            noise: [mean(noises), noises.iter().fold(0.0, |most: f64, noise| most.max(*noise))],
        }
    }
}

/// Noises are shown from here to there; the axis is logarithmic.
const NOISES: [f64; 2] = [1e-5, 20.0];

/// A plot of noise and, below it, of gain against the share of bytes; the worst task's solid, the mean faint.
///
/// # Errors
/// None today: the `Result` leaves room for plots that cannot be drawn.
pub fn pareto_svg(points: &[Pareto]) -> Result<String> {
    let percents = || points.iter().map(|point| 100.0 * point.share).filter(|percent| *percent > 0.0);
    let least = percents().fold(50.0, f64::min) / 1.15;
    let most = percents().fold(100.0, f64::max) * 1.05;
    let mut series: Vec<&str> = Vec::new();
    for point in points {
        if !series.contains(&point.series.as_str()) {
            series.push(&point.series);
        }
    }
    let lines = |value: &dyn Fn(&Pareto) -> [f64; 2]| -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        for (index, name) in series.iter().enumerate() {
            let color = COLORS.iter().cycle().nth(index).copied().unwrap_or_default();
            let of = || points.iter().filter(|point| point.series == *name);
            let place = |point: &Pareto, value| (100.0 * point.share, value);
            let mean = |point| {
                let [mean, _] = value(point);
                place(point, mean)
            };
            let worst = |point| {
                let [_, worst] = value(point);
                place(point, worst)
            };
            lines.push(Line { name: "", color, look: Look::Faint, points: of().map(mean).collect() });
            lines.push(Line { name, color, look: Look::Solid, points: of().map(worst).collect() });
        }
        lines
    };
    let x = || Axis { label: "bytes, % of the float32 task vectors", from: least, to: most, is_log: true };
    let [from, to] = NOISES;
    let noise = Chart {
        title: "Noise beside recovered task vectors against storage",
        x: x(),
        y: Axis {
            label: "noise, ‖τ̂ − gain·τ‖²/‖τ‖² (solid: the worst task, faint: the mean)", from, to, is_log: true
        },
        lines: lines(&|point| point.noise),
    };
    let gains = points.iter().flat_map(|point| point.gain).filter(|gain| gain.is_finite());
    let (lowest, highest) = gains.fold((0.0, 1.05), |(low, high): (f64, f64), gain| (low.min(gain), high.max(gain)));
    let gain = Chart {
        title: "Gain of recovered task vectors against storage",
        x: x(),
        y: Axis {
            label: "gain, ⟨τ, τ̂⟩/‖τ‖² (solid: the worst task, faint: the mean)",
            from: lowest.max(-1.0),
            to: highest.min(3.0),
            is_log: false,
        },
        lines: lines(&|point| point.gain),
    };
    Ok(stacked("noise and gain of recovered task vectors against storage", &[noise, gain]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_in_both_pictures() {
        let point = |series: &str, share, gain, noise| Pareto {
            series: series.into(),
            share,
            gain: [gain, gain / 2.0],
            noise: [noise, noise * 2.0],
        };
        let points = [
            point("exact", 0.5, 0.5, 0.3),
            point("exact", 1.0, 1.0, 0.0),
            point("random", 0.0, 0.0, f64::NAN),
            point("tasks, coded", 0.05, 1.0, 0.5),
        ];
        let svg = pareto_svg(&points).unwrap();
        for name in ["exact", "random", "tasks, coded"] {
            assert_eq!(svg.matches(&format!(">{name}</text>")).count(), 2, "{name}");
        }
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
        for percent in ["5", "10", "20", "50", "100"] {
            assert_eq!(svg.matches(&format!(">{percent}</text>")).count(), 2, "{percent}");
        }
        assert!(pareto_svg(&[]).unwrap().ends_with("</svg>"));
    }
}
