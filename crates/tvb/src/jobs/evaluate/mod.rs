//! Runs the user's evaluator on checkpoints and reads the metrics it prints.
//!
//! The evaluator is any program, in one of two ways. One that is started for each checkpoint gets its path as an argument, and
//! its last line on stdout that is not blank is a flat JSON object of numbers. One that serves is started once, reads a path
//! from each line of its stdin and answers each with such an object on a line of its own. Either runs in a process group of
//! its own, so that a hanging one is ended with everything it started. A child of it that left the group may live on, and may
//! hold the pipes: nothing here waits for it.

mod child;
mod evaluator;
mod metrics;
mod once;
mod serve;
mod session;

pub use evaluator::{CHECKPOINT, Evaluator, SCALE};
pub use metrics::{Metrics, parse_metrics};
pub use session::Session;
