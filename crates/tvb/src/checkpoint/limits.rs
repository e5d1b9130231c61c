//! Every bound that a hostile checkpoint can run into, in one place, and how the bounds relate.
//!
//! A bound is far above what real files need and low enough that time stays small: headers are read whole, so their
//! length is bounded before anything is allocated. What all files of a run may take of memory together is bounded by
//! their [`Budget`](super::Budget), not here.

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

/// The longest pickle of a PyTorch file; it describes tensors and does not hold them.
pub(crate) const PICKLE_BYTES_MAX: u64 = 64 << 20;
/// The most values a pickle may make, and the most it may remember.
pub(crate) const N_VALUES_MAX: usize = 4 << 20;
/// The most opcodes of a pickle: several for each value, and far fewer than its bytes.
pub(crate) const N_OPCODES_MAX: usize = 4 * N_VALUES_MAX;
/// The most references from containers to values.
pub(crate) const N_LINKS_MAX: usize = 16 << 20;
/// The longest directory of a zip archive.
pub(crate) const ZIP_DIRECTORY_BYTES_MAX: u64 = 128 << 20;
/// The most entries of a zip archive.
pub(crate) const N_ZIP_ENTRIES_MAX: u64 = 1 << 20;
/// The most bytes of a tensor that repeats the elements of a smaller storage (an expanded view).
pub(crate) const REPEATED_BYTES_MAX: u64 = 1 << 30;
/// All tensors of a PyTorch file together may have this many times its bytes, by sharing them, and what an expanded view
/// may have beyond.
pub(crate) const SHARED_TIMES_MAX: u64 = 16;
/// The longest name of a class or a function that is kept as the type of a storage.
pub(crate) const CLASS_NAME_BYTES_MAX: usize = 256;
/// The deepest nesting of modules.
pub(crate) const MODULE_DEPTH_MAX: usize = 256;
/// The most modules that are visited and names that are found for each value of a pickle: a shared module has as many of
/// both as there are ways to it, and modules that share each other all the way down are no model.
pub(crate) const N_SHARED_MAX: usize = 16;
/// How many of both any pickle may have.
pub(crate) const N_SHARED_LEAST: usize = 4096;
/// The most entries of a safetensors file's own metadata.
pub(crate) const N_METADATA_MAX: usize = 1 << 16;

// A shard holds at least one tensor.
const _: () = assert!(N_SHARDS_MAX <= N_TENSORS_MAX);
// The window must hold the largest element many times over.
const _: () = assert!(GATHER_WINDOW_BYTES >= 1024 * 8);
// Every tensor of a PyTorch file is a value of its pickle and may have an entry of its own.
const _: () = assert!(N_TENSORS_MAX <= N_VALUES_MAX && N_TENSORS_MAX as u64 <= N_ZIP_ENTRIES_MAX);
const _: () = assert!(N_VALUES_MAX <= N_LINKS_MAX && N_VALUES_MAX < u32::MAX as usize);
