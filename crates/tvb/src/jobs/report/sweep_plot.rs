//! A metric against the scale of an edit, with the control that must be kept and the point that was chosen.

use super::{Drawn, drawn};
use crate::error::Result;
use plotters::prelude::*;

/// One metric over the scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// (scale, value), ascending in scale.
    pub values: Vec<(f64, f64)>,
}

/// A plot of `metric` (solid) and `control` (faint), the control's floor (a line) and the best point (a ring).
///
/// # Errors
/// Failed: the plot cannot be drawn.
pub fn sweep_svg(
    metric: &Series,
    control: Option<&Series>,
    floor: Option<f64>,
    best: Option<(f64, f64)>,
) -> Result<String> {
    drawn(|svg| draw(svg, metric, control, floor, best))
}

fn draw(
    svg: &mut String,
    metric: &Series,
    control: Option<&Series>,
    floor: Option<f64>,
    best: Option<(f64, f64)>,
) -> Drawn {
    let root = SVGBackend::with_string(svg, (760, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || metric.values.iter().chain(control.iter().flat_map(|control| &control.values));
    let (x_min, x_max) = padded(points().map(|point| point.0));
    let (y_min, y_max) = padded(points().map(|point| point.1).chain(floor));
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{} against the scale of the edit", metric.name), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x_min..x_max, y_min..y_max)?;
    chart.configure_mesh().x_desc("scale").y_desc(metric.name.as_str()).draw()?;
    let mut line = |series: &Series, color: RGBAColor| -> Drawn {
        chart
            .draw_series(LineSeries::new(series.values.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(series.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        Ok(())
    };
    line(metric, BLUE.mix(1.0))?;
    if let Some(control) = control {
        line(control, RED.mix(0.5))?;
    }
    if let Some(floor) = floor {
        chart.draw_series(DashedLineSeries::new([(x_min, floor), (x_max, floor)], 4, 4, RED.mix(0.5).into()))?;
    }
    chart.draw_series(best.map(|at| Circle::new(at, 7, BLACK.stroke_width(2))))?;
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
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
            assert!(sweep_svg(&series("x", values), None, None, None).is_ok(), "{values:?}");
        }
    }
}
