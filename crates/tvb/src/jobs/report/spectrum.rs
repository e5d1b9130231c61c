//! What the tasks have in common: how much of all squared norms is left after the best k directions.

use super::{Drawn, drawn};
use crate::error::Result;
use plotters::prelude::*;

/// Shares below this are drawn at it; the axis is logarithmic.
const FLOOR: f64 = 1e-3;

/// A plot of Σ_{i>k} λi / Σ λi over k, the least relative loss of any basis of k vectors, with a ring where this basis
/// is: `n_stored` vectors and their relative loss.
///
/// # Errors
/// Failed: the plot cannot be drawn.
pub fn spectrum_svg(eigenvalues: &[f64], n_stored: usize, relative_loss: Option<f64>) -> Result<String> {
    drawn(|svg| draw(svg, eigenvalues, n_stored, relative_loss))
}

fn draw(svg: &mut String, eigenvalues: &[f64], n_stored: usize, relative_loss: Option<f64>) -> Drawn {
    let total: f64 = eigenvalues.iter().map(|value| value.max(0.0)).sum();
    let left = |k: usize| {
        let rest: f64 = eigenvalues.iter().skip(k).map(|value| value.max(0.0)).sum();
        if total > 0.0 { (rest / total).max(FLOOR) } else { FLOOR }
    };
    let root = SVGBackend::with_string(svg, (760, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let n = eigenvalues.len();
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..n.max(1) as f64, (FLOOR..1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("vectors")
        .y_desc("share of all squared norms that is lost")
        .y_label_formatter(&|share| format!("{share:.0e}"))
        .draw()?;
    let bound = (0..=n).map(|k| (k as f64, left(k)));
    chart
        .draw_series(LineSeries::new(bound, BLUE.stroke_width(2)).point_size(2))?
        .label("the least that any basis loses")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLUE.stroke_width(2)));
    if let Some(loss) = relative_loss {
        let at = (n_stored as f64, loss.max(FLOOR));
        chart
            .draw_series([Circle::new(at, 6, RED.stroke_width(2))])?
            .label("this basis")
            .legend(|(x, y)| Circle::new((x + 8, y), 5, RED.stroke_width(2)));
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
    fn any_spectrum_can_be_drawn() {
        for values in [&[][..], &[0.0, 0.0], &[3.0, 1.0, -1e-9], &[1e300, 1.0]] {
            assert!(spectrum_svg(values, 1, Some(0.5)).unwrap().contains("this basis"), "{values:?}");
        }
        assert!(!spectrum_svg(&[1.0], 1, None).unwrap().contains("this basis"));
    }
}
