//! Tasks join a basis whose originals are gone.
//!
//! | file | |
//! |---|---|
//! | `options.rs` | what is asked for, and what came of it |
//! | `newcomers.rs` | base and newcomers under the names that the basis knows, and whether they fit |
//! | `frozen.rs` | whether newcomers move what no task of the basis did |
//! | `kept.rs` | the shared columns carried on: R and Q |
//! | `estimates.rs` | the Gram matrix of all tasks, with what is estimated |
//! | `recode.rs` | new columns of coded tasks, and shared ones made anew: `drop` has it too |
//! | `coded.rs` | a basis of coded tasks, extended |
//! | `mixtures.rs`, `side_by_side.rs` | other bases, extended; their atoms and the newcomers in one plan |
//! | `remade.rs`, `joined.rs` | how such a basis was made; what is known of its tasks, and what its manifest says |
//! | `job.rs` | the job from end to end |

#[allow(clippy::indexing_slicing, reason = "tasks and columns of a basis whose own sizes have been checked")]
mod coded;
#[allow(clippy::indexing_slicing, reason = "tasks and columns of a basis whose own sizes have been checked")]
mod estimates;
#[allow(clippy::indexing_slicing, reason = "digests of a pass that has as many for each block")]
mod frozen;
mod job;
#[allow(clippy::indexing_slicing, reason = "rows of tasks of which the Gram matrix of all has as many")]
mod joined;
#[allow(clippy::indexing_slicing, reason = "rows of Q, of which the basis has one for each task")]
mod kept;
mod mixtures;
mod newcomers;
mod options;
mod recode;
mod remade;
mod side_by_side;

pub use job::extend;
pub(crate) use newcomers::Newcomers;
pub use options::{ExtendOptions, Extended};
pub(crate) use recode::{Recoded, Recoding};
