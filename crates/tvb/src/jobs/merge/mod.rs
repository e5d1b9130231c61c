//! Mergers in the words of those who merge: tasks in, one checkpoint out, a tensor at a time.

mod method;
mod settings;

pub use method::{Family, Method};
pub use settings::{Dropped, Over, Rescale, RowWise, TensorSettings};
