//! Images drawn from random numbers, one file per idea.
//!
//! `wild` says how far an image strays from its plainest form: 0 is a clean drawing in the middle, 1 is the task's
//! own look with its turns, clutter, low contrast and noise. The base sees little of it ([`SKETCH`]), a task all.

mod counts;
mod family;
mod fields;
mod figures;
pub(super) mod glyphs;
mod mazes;
mod shapes;
mod symmetry;
mod wild;

pub use family::Family;
pub use wild::{SKETCH, TASK};
