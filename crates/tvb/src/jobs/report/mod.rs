//! Pictures and pages for people, as text: SVG plots and the self-contained report.

mod bars;
mod chart;
mod heatmap;
mod page;
mod pareto;
mod spectrum;
mod svg;
mod sweep_plot;

pub use page::basis_report;
pub use pareto::{Pareto, pareto_svg};
pub use spectrum::spectrum_svg;
pub use sweep_plot::{Series, fit_svg, sweep_svg};
