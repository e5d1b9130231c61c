//! Pictures and pages for people, as text: SVG plots and the self-contained report.

mod bars;
mod heatmap;
mod page;
mod pareto;
mod spectrum;
mod svg;
mod sweep_plot;

pub use page::basis_report;
pub use pareto::{Pareto, pareto_svg};
pub use spectrum::spectrum_svg;
pub use sweep_plot::{Series, sweep_svg};

use crate::error::{Error, Result};

/// What a plot's drawing may fail with.
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// The SVG text that `draw` writes.
fn drawn(draw: impl FnOnce(&mut String) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg).map_err(|error| Error::failed(format!("the plot could not be drawn: {error}")))?;
    Ok(svg)
}
