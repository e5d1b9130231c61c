//! Mergers in the words of those who merge: tasks in, one checkpoint out, a tensor at a time.

mod method;
mod settings;
mod parameters;
pub mod recipe;

pub use method::{Family, Method};
pub use parameters::{Kind, Manner, Parameter, Wrong, drops_at_random, is_of_mergekit, parameters_of};
pub use settings::{Dropped, Over, Rescale, RowWise, TensorSettings};
