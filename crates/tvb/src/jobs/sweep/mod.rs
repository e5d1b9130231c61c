//! The scale that works: candidates over a grid of scales λ, the user's own evaluator run on each, the best one kept.
//!
//! The edit is formed once; each scale is one pass base + λ·edit. Every finished point is on the disk before the next
//! begins, so that an interrupted sweep resumes where it was. [`choose`](mod@choose) decides, from metrics alone.

pub mod choose;
mod candidates;
mod log;
mod options;
mod results;
mod run;
mod scales;

pub use choose::{Choice, Control, Goal, NORMALIZED};
pub use log::Point;
pub use options::{SweepOptions, Swept};
pub use run::{read_metrics, sweep};
pub use scales::{DEFAULT_SCALES, MAX_SCALES, parse_scales};
