//! Files ↔ named tensors: the first and the last stage of the data's way.
//!
//! [`Checkpoint::open`] reads headers only and answers with every tensor's name, dtype, shape and place; tensor bytes
//! are fetched later by positioned reads ([`Checkpoint::read`]), never a whole file at once. One type stands for every
//! layout: a safetensors file, a Hugging Face folder with shards, a PyTorch file.
//!
//! Everything in a checkpoint may be hostile. Bounds stand in `limits`, and every reader checks a header completely
//! before it answers, so that later stages may rely on shapes, sizes and offsets.

mod data_file;
mod dtype;
mod edited;
mod gather;
mod index;
mod json;
mod limits;
mod open;
mod output_file;
mod safetensors;
mod shown;
mod staged;
mod tensor;
pub mod torch;

pub use data_file::{DataFile, FileStamp, raise_open_file_limit};
pub use dtype::Dtype;
pub use edited::CheckpointWriter;
pub use index::ShardIndex;
pub(crate) use index::resolve as resolve_inside;
pub use open::OpenOptions;
pub use output_file::{OutputFile, free_bytes};
pub use safetensors::{
    SHARD_BYTES, SafetensorsHeader, SafetensorsLayout, SafetensorsWriter, ShardPlan, ShardedWriter, TensorSpec,
    in_aligned_order, index_json,
};
pub use staged::{Existing, Leftover, StagedOutput, remove_stale_lock, write_whole};
pub use tensor::{NotTensor, Place, Tensor};

use crate::error::{Error, Result};
use gather::View;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened checkpoint: its tensors in file order and the open files behind them. Cheap to clone, shared by threads.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    layout: Layout,
    /// The index file's name, where shards are bound by one.
    index: Option<String>,
    /// Shared with copies under other names.
    files: Arc<[DataFile]>,
    tensors: Vec<Tensor>,
    /// Positions in `tensors`, in the order in which the files list their keys.
    key_order: Vec<usize>,
    by_name: HashMap<String, usize>,
    not_tensors: Vec<NotTensor>,
    metadata: BTreeMap<String, String>,
}

/// How a checkpoint lies on disk; an edited copy keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One safetensors file, named directly.
    SafetensorsFile,
    /// A folder with `model.safetensors`, or an index with shards.
    SafetensorsFolder {
        /// The data files' names inside the folder, sorted: the order of the files of this checkpoint.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
    /// One PyTorch file, named directly.
    TorchFile,
    /// A folder with `pytorch_model.bin`, or its index with shards.
    TorchFolder {
        /// The data files' names inside the folder, sorted: the order of the files of this checkpoint.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
}

impl Checkpoint {
    /// Opens whatever `path` names and reads its headers; no tensor data is touched.
    ///
    /// # Errors
    /// Rejected for a malformed checkpoint, Failed where the system cannot read; one line that names the file and the
    /// tensor.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::open_with(path, &OpenOptions::default())
    }

    /// [`open`](Checkpoint::open), with a say in which part of a PyTorch file is meant.
    ///
    /// # Errors
    /// As [`open`](Checkpoint::open).
    pub fn open_with(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
        open::open(path, options)
    }

    /// Some of a PyTorch file's own tensors as a checkpoint, such as one atom of a published basis.
    ///
    /// # Errors
    /// Rejected: two tensors of one name.
    pub fn of_torch(file: torch::TorchFile, tensors: Vec<Tensor>) -> Result<Checkpoint> {
        open::of_torch(file, tensors)
    }

    /// What was opened, as the user wrote it.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// How it lies on disk.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// The name of the index file inside the folder, where shards are bound by one.
    pub fn index_name(&self) -> Option<&str> {
        self.inner.index.as_deref()
    }

    /// The data files in order.
    pub fn files(&self) -> &[DataFile] {
        &self.inner.files
    }

    /// Every tensor, sorted by (file, offset), so that reading them in order reads the disk in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.inner.tensors
    }

    /// Every tensor in the order in which the files list their keys: a state dict's order.
    pub fn in_key_order(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.inner.key_order.iter().map(|&position| &self.inner.tensors[position])
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.inner.by_name.get(name).map(|&i| &self.inner.tensors[i])
    }

    /// The place of the tensor of that name in [`Checkpoint::tensors`].
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.inner.by_name.get(name).copied()
    }

    /// Entries of a PyTorch state dict that hold no tensor, and what they hold instead: none of them is carried over.
    pub fn not_tensors(&self) -> &[NotTensor] {
        &self.inner.not_tensors
    }

    /// The safetensors `__metadata__` of the first file; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.inner.metadata
    }

    /// Fills `out` with the tensor's row-major bytes from `byte_offset` on. `tensor` must be one of this checkpoint's.
    ///
    /// # Errors
    /// Failed where the system cannot read or the file has shrunk; names the file, or the tensor.
    pub fn read(&self, tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
        read_tensor(&self.inner.files, tensor, byte_offset, out)
    }

    /// The prefix that a wrapper around the model left on every name, where `base` has none of it: `module.` of
    /// `torch.nn.DataParallel`, `_orig_mod.` of `torch.compile`.
    pub fn wrapper_prefix(&self, base: &Checkpoint) -> Option<&'static str> {
        ["module.", "_orig_mod."].into_iter().find(|prefix| {
            !self.tensors().is_empty()
                && self.tensors().iter().all(|tensor| tensor.name.starts_with(prefix))
                && !base.tensors().iter().any(|tensor| tensor.name.starts_with(prefix))
        })
    }

    /// The same checkpoint with `prefix` taken from the names that begin with it. A name that would then stand twice
    /// keeps it.
    #[must_use]
    pub fn without_prefix(&self, prefix: &str) -> Checkpoint {
        let mut tensors = self.inner.tensors.clone();
        for tensor in &mut tensors {
            if let Some(rest) = tensor.name.strip_prefix(prefix)
                && self.get(rest).is_none()
            {
                tensor.name = rest.to_owned();
            }
        }
        let inner = Inner {
            path: self.inner.path.clone(),
            layout: self.inner.layout.clone(),
            index: self.inner.index.clone(),
            files: Arc::clone(&self.inner.files),
            by_name: tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect(),
            tensors,
            key_order: self.inner.key_order.clone(),
            not_tensors: self.inner.not_tensors.clone(),
            metadata: self.inner.metadata.clone(),
        };
        Checkpoint { inner: Arc::new(inner) }
    }

    /// Notices any of its files that was written to, replaced or removed since [`open`](Checkpoint::open).
    ///
    /// # Errors
    /// Rejected, naming the file and what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.inner.files.iter().try_for_each(DataFile::check_unchanged)
    }
}

/// [`Checkpoint::read`] for whoever has the files.
pub(crate) fn read_tensor(files: &[DataFile], tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
    let end = byte_offset.checked_add(out.len() as u64);
    if end.is_none_or(|end| end > tensor.n_bytes()) {
        return Err(Error::failed(format!(
            "tensor {}: asked for {} bytes at {byte_offset}, expected at most {}",
            shown::shown(&tensor.name),
            out.len(),
            tensor.n_bytes()
        )));
    }
    match &tensor.place {
        Place::Contiguous { file, offset } => files[*file].read_at(offset + byte_offset, out),
        Place::Strided { file, offset, strides } => {
            let view = View { offset: *offset, shape: &tensor.shape, strides, size: tensor.dtype.size() };
            gather::gather(view, byte_offset, out, &mut |at, bytes| files[*file].read_at(at, bytes))
        }
        Place::Held(bytes) => {
            let begin = byte_offset as usize;
            out.copy_from_slice(&bytes[begin..begin + out.len()]);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;

/// How many damaged files a mutation test tries; `TVB_MUTATIONS` asks for a longer run.
#[cfg(test)]
fn n_mutations() -> usize {
    std::env::var("TVB_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500)
}
