//! An opened checkpoint: what its headers say, and the files behind it.

use super::layout::Layout;
use super::read::read_tensor;
use super::{Budget, Charge, DataFile, Inputs, NotTensor, Tensor, side_files};
use crate::error::Result;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened checkpoint: its tensors in file order and the open files behind them. Cheap to clone, shared by threads.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) inner: Arc<Inner>,
}

/// The adapter that a column was made of, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfAdapter {
    /// Who wrote it: `PEFT`, `kohya` or `diffusers`.
    pub writer: &'static str,
    /// Modules that it changes by factors.
    pub n_modules: usize,
    /// Their ranks from the least to the greatest, each once.
    pub ranks: Vec<usize>,
    /// Modules whose rows are brought to learnt lengths (DoRA).
    pub n_dora: usize,
    /// Tensors that it replaces.
    pub n_replaced: usize,
    /// Bytes of its files.
    pub n_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) path: PathBuf,
    /// Under which key its state dict lies, where one was given.
    pub(super) key: Option<String>,
    pub(super) layout: Layout,
    /// The index file's name, where shards are bound by one.
    pub(super) index: Option<String>,
    /// Shared with copies under other names.
    pub(super) files: Arc<[DataFile]>,
    pub(super) tensors: Vec<Tensor>,
    /// Positions in `tensors`, in the order in which the files list their keys.
    pub(super) key_order: Vec<usize>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) not_tensors: Vec<NotTensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
    /// The files' own names of tensors that go by others.
    pub(super) own_names: HashMap<String, String>,
    pub(super) of_adapter: Option<OfAdapter>,
    pub(super) budget: Budget,
    /// What all of it takes of the budget, given back with it.
    pub(super) _charges: Vec<Charge>,
}

impl Checkpoint {
    /// What was opened, as the user wrote it; what a state dict in memory is called.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The key of a PyTorch file that was given.
    pub fn key(&self) -> Option<&str> {
        self.inner.key.as_deref()
    }

    /// What was opened, for records: the path, and `::KEY` behind it where a key was given.
    pub fn source(&self) -> String {
        let path = self.inner.path.display();
        match &self.inner.key {
            Some(key) => format!("{path}::{key}"),
            None => path.to_string(),
        }
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
    #[allow(clippy::indexing_slicing, reason = "positions in this very list, found when it was made")]
    pub fn in_key_order(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.inner.key_order.iter().map(|&position| &self.inner.tensors[position])
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.inner.by_name.get(name).and_then(|&i| self.inner.tensors.get(i))
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

    /// What its owner may not expect of how it was opened, a line each: which files were taken, which component is meant.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// The adapter that it was made of.
    pub fn of_adapter(&self) -> Option<&OfAdapter> {
        self.inner.of_adapter.as_ref()
    }

    /// What an output must leave alone as long as this is read: its files, and for a folder what lies beside its weights.
    pub fn inputs(&self) -> Inputs {
        if self.is_in_memory() {
            return Inputs::none();
        }
        let files = self.inner.files.iter().map(|file| file.path.clone());
        if !self.inner.path.is_dir() {
            return files.fold(Inputs::none().and(&self.inner.path), |inputs, path| inputs.and(&path));
        }
        let index = self.inner.index.iter().map(|name| self.inner.path.join(name));
        let own = files.chain(index).chain(side_files::paths(&self.inner.path));
        let inputs = own.fold(Inputs::none().and_folder(&self.inner.path), |inputs, path| inputs.and(&path));
        let Layout::Pipeline { components, others } = &self.inner.layout else { return inputs };
        let names = components.iter().map(|component| &component.name).chain(others);
        names.fold(inputs, |inputs, name| inputs.and_all_of(&self.inner.path.join(name)))
    }

    /// Fills `out` with the tensor's row-major bytes from `byte_offset` on. `tensor` must be one of this checkpoint's.
    ///
    /// # Errors
    /// Failed where the system cannot read or the file has shrunk; names the file, or the tensor.
    pub fn read(&self, tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
        read_tensor(&self.inner.files, tensor, byte_offset, out)
    }

    /// What its headers were charged to; for others that are opened beside it.
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Notices any of its files that was written to, replaced or removed since [`open`](Checkpoint::open).
    ///
    /// # Errors
    /// Rejected, naming the file and what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.inner.files.iter().try_for_each(DataFile::check_unchanged)
    }
}
