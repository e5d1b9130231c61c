//! Tasks leave a basis.
//!
//! | file | |
//! |---|---|
//! | `options.rs` | what is asked for, and what came of it |
//! | `stays.rs` | which tasks stay, and what is kept of them |
//! | `coded.rs` | a basis of coded tasks: columns that stay keep their bytes; shared ones too, or they are made exact again |
//! | `plain.rs` | every other basis: files of single tasks go, mixtures stay as they are |
//! | `job.rs` | the job from end to end |

#[allow(clippy::indexing_slicing, reason = "tasks and columns of a basis whose own sizes have been checked")]
mod coded;
mod job;
mod options;
#[allow(clippy::indexing_slicing, reason = "tasks and columns of a basis whose own sizes have been checked")]
mod plain;
#[allow(clippy::indexing_slicing, reason = "tasks and columns of a basis whose own sizes have been checked")]
mod stays;

pub use job::drop_tasks;
pub use options::{DropOptions, Dropped, Promise};
