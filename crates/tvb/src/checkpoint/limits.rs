//! Every bound that a hostile checkpoint can run into, in one place, and how the bounds relate.
//!
//! A bound is far above what real files need and low enough that memory and time stay small: headers are read
//! whole, so their length is bounded before anything is allocated.

/// The longest safetensors header, the limit of the format's own library.
pub(crate) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The longest shard index.
pub(crate) const INDEX_BYTES_MAX: u64 = HEADER_BYTES_MAX;
/// The most tensors of one checkpoint, several times what the largest mixtures of experts have.
pub(crate) const N_TENSORS_MAX: usize = 1 << 19;
/// The most shards of one checkpoint; each stays open.
pub(crate) const N_SHARDS_MAX: usize = 10_000;
/// The most dimensions of one tensor.
pub(crate) const RANK_MAX: usize = 64;
/// The longest name of a tensor, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 4096;
/// A strided tensor is gathered through a window of at most this many bytes of its file.
pub(crate) const GATHER_WINDOW_BYTES: usize = 1 << 20;

// A shard holds at least one tensor.
const _: () = assert!(N_SHARDS_MAX <= N_TENSORS_MAX);
// The window must hold the largest element many times over.
const _: () = assert!(GATHER_WINDOW_BYTES >= 1024 * 8);
