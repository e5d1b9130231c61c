//! Mergers in the words of those who merge: tasks in, one checkpoint out, a tensor at a time.
//!
//! [`Method`] says what it needs to know ([`Family`]): weights from inner products (`coefficients.rs`, `row_wise.rs`), thresholds and
//! chances (`elements.rs`, `della.rs`), or whole matrices (`matrices.rs`). [`MergeJob`] goes over the model.

mod coefficients;
mod della;
mod elements;
mod job;
mod matrices;
mod method;
mod row_wise;
mod settings;
mod parameters;
mod work;
pub mod recipe;

pub use elements::Ties;
pub use job::{MergeJob, MergeReport, Planned, Prepared, SettingsOf};
pub use method::{Family, Method};
pub use parameters::{Kind, Manner, Parameter, Wrong, drops_at_random, is_of_mergekit, parameters_of};
pub use settings::{Over, Rescale, RowWise, TensorSettings};
pub use work::merge_work;
