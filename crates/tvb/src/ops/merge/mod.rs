//! Merging: the same rows of the base and of all task vectors, whatever they come from, surveyed and then made into one.
//!
//! ```text
//! Edits, one output for each task ─▶ MergeColumns: parts of the model that are read in one way
//!                                        │ a tensor (or all of them)
//!                                        ▼
//!                       Stream ─▶ count, sums, gather (surveys) ─▶ write
//! ```
//! A tensor is read as often as its rule asks for; the second time it mostly comes from the system's cache, since it is asked for
//! at once. Nothing is held but lists of the values near a threshold.

mod columns;
mod merge_rows;
mod passes;
mod select;

pub use columns::{MergeColumns, MergePart};
pub use merge_rows::{RowGroup, Rows};
pub use passes::Stream;
pub use select::{Threshold, Wanted, thresholds};
