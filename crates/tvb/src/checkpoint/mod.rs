//! Files ↔ named tensors: the first and the last stage of the data's way.
//!
//! [`Checkpoint::open`] reads headers only and answers with every tensor's name, dtype, shape and place; tensor bytes
//! are fetched later by positioned reads ([`Checkpoint::read`]), never a whole file at once. One type stands for every
//! layout: a safetensors file, a Hugging Face folder with shards, a PyTorch zip.

mod dtype;

pub use dtype::Dtype;

use crate::error::Result;
use std::collections::BTreeMap;
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
    files: Vec<DataFile>,
    tensors: Vec<Tensor>,
    by_name: std::collections::HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

/// How a checkpoint lies on disk; an edited copy keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One safetensors file, named directly.
    SafetensorsFile,
    /// A folder with `model.safetensors`, or an index with shards; shard names in index order.
    SafetensorsFolder {
        /// The data files' names inside the folder, in the order of the files of this checkpoint.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
    /// One PyTorch file, named directly.
    TorchFile,
    /// A folder with `pytorch_model.bin`, or its index with shards.
    TorchFolder {
        /// The data files' names inside the folder.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
}

/// One open data file, read by position only.
#[derive(Debug)]
pub struct DataFile {
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its length in bytes when it was opened.
    pub len: u64,
    file: std::fs::File,
}

/// One named tensor: what its header says and where its bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The full name, for example `model.visual.conv1.weight`.
    pub name: String,
    /// The stored element type.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar (0-d).
    pub shape: Vec<usize>,
    /// Where the bytes are.
    pub place: Place,
}

/// Where a tensor's elements lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Row-major and contiguous, little-endian, at `offset` bytes of file number `file`.
    Contiguous {
        /// Index into [`Checkpoint::files`].
        file: usize,
        /// Bytes from the file's start.
        offset: u64,
    },
    /// A strided view (PyTorch): element (i, j, …) at `offset + (i·strides[0] + j·strides[1] + …)·dtype.size()`.
    Strided {
        /// Index into [`Checkpoint::files`].
        file: usize,
        /// Bytes from the file's start to the first element.
        offset: u64,
        /// Steps in elements, one for each dimension.
        strides: Vec<usize>,
    },
    /// Bytes that had to be decompressed or rearranged when the file was opened; row-major.
    Held(Arc<Vec<u8>>),
}

impl Tensor {
    /// Number of elements; validated against overflow when the header was read.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of bytes of the elements, row-major.
    pub fn n_bytes(&self) -> u64 {
        self.n_elements() as u64 * self.dtype.size() as u64
    }
}

impl Checkpoint {
    /// Opens whatever `path` names and reads its headers; no tensor data is touched.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let _ = path;
        todo!("reader")
    }

    /// What was opened, as the user wrote it.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// How it lies on disk.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// The data files in order.
    pub fn files(&self) -> &[DataFile] {
        &self.inner.files
    }

    /// Every tensor, sorted by (file, offset), so that reading them in order reads the disk in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.inner.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.inner.by_name.get(name).map(|&i| &self.inner.tensors[i])
    }

    /// The place of the tensor of that name in [`Checkpoint::tensors`].
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.inner.by_name.get(name).copied()
    }

    /// The safetensors `__metadata__` of the first file; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.inner.metadata
    }

    /// Fills `out` with the tensor's row-major bytes from `byte_offset` on. `tensor` must be one of this checkpoint's.
    pub fn read(&self, tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
        let _ = (tensor, byte_offset, out);
        todo!("reader")
    }
}

impl DataFile {
    /// Fills `out` from `offset` bytes on: one positioned read, several threads at once.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let _ = (offset, out, &self.file);
        todo!("reader")
    }
}
