//! Images and labels: for a task's training, validation and test, and for the base's mixture.
//!
//! | what | from |
//! |---|---|
//! | a task's train, val, test | `digits.rs` (UCI images, three fixed parts) or `procedural/` (three random streams) |
//! | a few training images of each class | the same, drawn by a number |
//! | the base's mixture | `procedural/` drawn cleanly; digits only as printed strokes, never the UCI images |

mod batches;
pub mod digits;
mod evaluated;
pub mod procedural;
mod set;
mod shots;
mod split;

pub use batches::{mixture_batch, train_batch};
pub use evaluated::{N_EVAL, control_sets, eval_set};
pub use set::Set;
pub use shots::few_shots;
pub use split::Split;
