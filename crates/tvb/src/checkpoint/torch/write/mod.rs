//! Writing PyTorch files that `torch.load(weights_only=True)` accepts: a value with tensors in it, whose bytes are then
//! written by position, in any order and by several threads.
//!
//! `save_value` turns the value into a pickle, `zip_layout` says where every entry of the archive will lie, and `writer`
//! writes them. Checksums are computed of the parts as they pass and put together at the end.

mod save_value;
mod writer;
mod zip_layout;

pub use save_value::{SaveStorage, SaveTensor, SaveValue};
pub use writer::TorchWriter;

#[cfg(test)]
pub(super) use writer::forge;

#[cfg(test)]
mod tests;
