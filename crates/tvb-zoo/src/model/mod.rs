//! The model: a small vision transformer that turns a 16×16 image into a unit vector, and a frozen table of unit
//! vectors, one per class word. An image belongs to the class whose word is nearest.
//!
//! ```text
//! pixels [n, 256] → 16 patches of 4×4 → tokens [n, 16, 32] → 2 blocks → norm → side by side [n, 512] → embedding [n, 64]
//! ```
//! Fine-tuning moves `visual.*` only, so a task vector lives in the encoder and any merged encoder can be asked about
//! every task.
//!
//! This is the model as it is evaluated, in plain arithmetic. It is written a second time in `train/graph.rs`, where
//! gradients are needed; a test holds the two together.

mod classifier;
mod encode;
mod lanes;
mod layout;
mod tensors;
mod weights;

pub use classifier::Model;
pub use layout::{
    EMBED, HIDDEN, LOGIT_SCALE, N_BLOCKS, N_HEADS, N_TOKENS, PATCH, POSITION_IDS, Start, TensorSpec, WIDTH, WORD_TABLE,
    layout,
};
pub use tensors::{Elements, Tensor, Tensors};
