//! The safetensors format: `header` reads and checks what a file says about itself, `layout` says where the tensors of
//! a new file will lie, `shards` deals them over several files, `write` writes them.

mod header;
mod layout;
mod shards;
mod write;

pub use header::SafetensorsHeader;
pub use layout::{SafetensorsLayout, TensorSpec, in_aligned_order};
pub use shards::{SHARD_BYTES, ShardPlan, index_json};
pub use write::{SafetensorsWriter, ShardedWriter};
