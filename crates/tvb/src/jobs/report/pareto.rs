//! Error against size, one line for each method: which basis is worth its bytes.

use super::{Drawn, drawn};
use crate::error::Result;
use plotters::prelude::*;

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
/// Failed: the plot cannot be drawn.
pub fn pareto_svg(points: &[Pareto], n_tasks: usize) -> Result<String> {
    drawn(|svg| draw(svg, points, n_tasks))
}

fn draw(svg: &mut String, points: &[Pareto], n_tasks: usize) -> Drawn {
    let root = SVGBackend::with_string(svg, (760, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let share = |point: &Pareto| point.n_stored as f64 / n_tasks.max(1) as f64;
    let most = points.iter().map(share).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption("Error of recovered task vectors against storage", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most * 1.02, (ERROR_FLOOR..2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("stored vectors / tasks")
        .y_desc("relative squared error (solid: mean, faint: worst)")
        .y_label_formatter(&|error| format!("{error:.0e}"))
        .draw()?;
    let mut methods: Vec<&str> = Vec::new();
    for point in points {
        if !methods.contains(&point.method) {
            methods.push(point.method);
        }
    }
    for (index, method) in methods.into_iter().enumerate() {
        let color = Palette99::pick(index).mix(1.0);
        let of_method = || points.iter().filter(move |point| point.method == method);
        let mean = of_method().map(|point| (share(point), point.mean_error.max(ERROR_FLOOR)));
        let worst = of_method().map(|point| (share(point), point.worst_error.max(ERROR_FLOOR)));
        chart.draw_series(LineSeries::new(worst, color.mix(0.3)))?;
        chart
            .draw_series(LineSeries::new(mean, color.stroke_width(2)).point_size(2))?
            .label(method)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
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
        assert!(pareto_svg(&[], 0).is_ok());
    }
}
