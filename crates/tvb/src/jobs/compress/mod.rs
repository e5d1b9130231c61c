//! The main job: base and fine-tunes → a basis folder.
//!
//! | file | |
//! |---|---|
//! | `options.rs`, `size.rs` | what to make, and of what size |
//! | `coding.rs` | how atoms are coded, and what is kept |
//! | `keeping.rs` | whether inputs stay in memory between the passes |
//! | `of_adapter.rs` | what an adapter has of each tensor |
//! | `adapters.rs` | whether adapters are kept as their factors |
//! | `sharing.rs`, `share.rs` | which tensors adapters keep in shared spaces; the spaces, cores and errors |
//! | `forecast.rs` | what would be done, from headers alone; room on the disk |
//! | `solving.rs` | Gram matrices → M, B and W |
//! | `in_f32.rs` | whether f32 can hold B and W |
//! | `make.rs`, `make_coded.rs`, `make_factors.rs`, `make_shared.rs` | the folder, filled |
//! | `parted.rs`, `joining.rs`, `part_job.rs`, `recorded.rs` | one part of the work, and the folder from all parts |
//! | `work.rs` | what it asks of an engine |
//! | `job.rs` | the job from end to end |

mod adapters;
mod coding;
mod forecast;
mod in_f32;
mod job;
mod joining;
mod keeping;
mod make;
mod make_coded;
mod make_factors;
mod make_shared;
mod options;
mod part_job;
mod parted;
mod of_adapter;
mod recorded;
mod share;
mod sharing;
mod size;
mod solving;
mod work;

/// Parts of a basis, for the job that is made in parts.
pub(crate) mod parts {
    pub(crate) use super::joining::{PartOfJob, PartResult, PartsOfJob, READ, SUMS, WRITTEN};
    pub(crate) use super::part_job::{check_part, is_undivided, join_parts, make_part};
    pub(crate) use super::parted::MadePart;
    pub(crate) use super::recorded::RecordedOptions;
}

pub use coding::{CodingOptions, CodingWords, KeptEdit, parse_rate};
pub use forecast::{Forecast, check_room, forecast};
pub use job::{Compressed, compress};
pub(crate) use make::CLIPPED;
pub(crate) use make_factors::difference;
pub(crate) use of_adapter::{first_without_factors, parts_of};
pub use options::CompressOptions;
pub use share::{Foretold, foretell};
pub(crate) use sharing::n_bytes as shared_bytes;
pub use size::{Size, atoms_for_ratio};
pub use solving::solve_for;
pub use work::compress_work;
pub(crate) use work::passes;
