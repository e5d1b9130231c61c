//! Digests of tensor data that can be taken in any order, in parallel, while the data streams by.
//!
//! A tensor is cut into blocks of [`BLOCK_ROWS`] elements; each block's raw bytes get an XXH3-128 digest as they pass;
//! a tensor's digest is the digest of its blocks' digests, and a file's or a checkpoint's is the digest of its tensors'.
//! The grid depends on nothing but the tensor, so neither threads, chunk sizes, devices nor containers change it.
//! XXH3 finds damage and mix-ups; it is no defence against someone who forges a file on purpose.

mod low_rank;
#[allow(clippy::indexing_slicing, reason = "places in a state of a fixed size")]
mod running;
mod tensors;
mod value;

pub use low_rank::{of_factors, of_unmoved};
pub use tensors::{TableOfDigests, TensorDigests, fingerprint};
pub use value::{BLOCK_ROWS, Digest, Digester};
