//! Pictures and pages for people, as text: SVG plots and the self-contained report.

mod pareto;
mod sweep_plot;

pub use pareto::{Pareto, pareto_svg};
pub use sweep_plot::{Series, sweep_svg};
