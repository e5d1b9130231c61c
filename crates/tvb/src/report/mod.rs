//! Pictures and pages for people, as text: SVG plots and the self-contained report.

mod pareto;

pub use pareto::{Pareto, pareto_svg};

