//! Files ↔ named tensors: the first and the last stage of the data's way.
//!
//! [`Checkpoint::open`] reads headers only and answers with every tensor's name, dtype, shape and place; tensor bytes
//! are fetched later by positioned reads ([`Checkpoint::read`]), never a whole file at once. One type stands for every
//! layout: a safetensors file, a Hugging Face folder with shards, a PyTorch file, a state dict in memory.
//!
//! Everything in a checkpoint may be hostile. Bounds stand in `limits`, and every reader checks a header completely
//! before it answers, so that later stages may rely on shapes, sizes and offsets.

mod assemble;
mod budget;
mod capped;
mod config;
mod data_file;
mod dtype;
mod edited;
mod folder;
mod foreign;
#[allow(clippy::indexing_slicing, reason = "ranges inside a shape that the header's check has bounded")]
mod gather;
mod held;
mod hub;
mod in_memory;
mod index;
mod json;
mod layout;
mod lent;
mod limits;
mod low_rank;
pub(crate) mod names;
mod open;
mod opened;
mod options;
mod output_file;
mod parts;
mod pipeline;
mod read;
mod regular;
mod rescaled;
mod safetensors;
mod shown;
mod side_files;
mod staged;
mod tensor;
mod tied;
mod tokenizers;
pub mod torch;
mod views;
mod widen;

pub use budget::Budget;
pub(crate) use budget::Charge;
pub(crate) use capped::{read_capped, read_capped_or_pipe, read_capped_within};
pub use config::Config;
pub use data_file::{DataFile, FileStamp, raise_open_file_limit};
pub use dtype::{Dtype, FLOATS_HINT};
pub use edited::CheckpointWriter;
pub use held::HeldBytes;
pub(crate) use hub::snapshot;
pub use index::ShardIndex;
pub(crate) use index::resolve as resolve_inside;
pub(crate) use json::{EntryValue, cost as json_cost, for_each_entry};
pub use layout::{Component, Layout};
pub use lent::{Lent, LentTensor};
pub use low_rank::{Form, LowRank, Module, Sides};
pub use opened::{Checkpoint, OfAdapter};
pub use options::OpenOptions;
pub use output_file::{OutputFile, free_bytes};
pub(crate) use regular::{open_regular, refuse_named_pipe};
pub use rescaled::{Axis, Rescaled};
pub use safetensors::{
    SHARD_BYTES, SafetensorsHeader, SafetensorsLayout, SafetensorsWriter, ShardPlan, ShardedWriter, TensorSpec,
    in_aligned_order, index_json,
};
pub(crate) use shown::shown;
pub use staged::{
    Existing, Inputs, Leftover, OutputKind, StagedOutput, check_output, commit_all, remove_stale_lock, write_whole,
};
pub(crate) use staged::{has_no_locks, open_itself, say_without_lock, true_place};
pub use tensor::{NotTensor, Place, Tensor};
pub(crate) use widen::{f32s, f64s, values_of};

#[cfg(test)]
mod tests;

/// How many damaged files a mutation test tries; `TVB_MUTATIONS` asks for a longer run.
#[cfg(test)]
fn n_mutations() -> usize {
    std::env::var("TVB_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500)
}
