//! Coefficients over tasks or atoms that work best by the user's own evaluator, found without gradients.
//!
//! A few starts are tried first: the base, sums, every task alone. From the best of them CMA-ES searches, a generation of points at
//! a time. Points of a generation may be evaluated at once; what comes out does not depend on how many at a time. Every finished
//! point is on the disk before the next generation is made of it, so that an interrupted fit resumes where it was, and one with
//! a larger budget goes on.

mod candidates;
mod options;
mod point;
mod results;
mod run;
mod search;
mod starts;

pub use options::{Chosen, FitOptions};
pub use point::{Fitted, Point};
pub use run::fit;
