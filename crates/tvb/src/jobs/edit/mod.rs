//! One edit from end to end: weights over tasks, what they become over atoms, how true the result will be, and the
//! edited checkpoint itself.

mod coefficients_file;
mod combination;
mod head;
mod job;
mod lora;
mod output;
mod patch;
mod predicted;
mod tensor_weights;
mod weights;
mod work;

pub use crate::columns::layers::blocks_by_layer;
pub use combination::{Block, Combination, Mixer, Over};
pub use head::OwnHead;
pub use job::{CombinationJob, EditJob};
pub use lora::{AdapterReport, ModuleReport, write_adapter};
pub use output::{EditOutput, writer_for};
pub use patch::write_patch;
pub use tensor_weights::{Lines, TensorNames, TensorWeights, WeightWords};
pub use weights::{COSINE_MIN, Edit, Source};
pub use work::{edit_work, patch_work, sweep_work};
