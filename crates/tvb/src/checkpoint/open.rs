//! From a path to a checkpoint: what lies there, a file, a folder or a pipeline of several.

use super::assemble::{Content, Parts, Rest, assemble, finish, read_contents, read_folder};
use super::index::ShardIndex;
use super::shown::shown;
use super::tensor::checked_bytes;
use super::torch::{self, TorchFile};
use super::{Checkpoint, DataFile, Dtype, Inputs, Layout, OpenOptions, Place, Tensor};
use super::{folder, hub, names, pipeline, side_files};
use crate::error::{Error, Result};
use std::path::Path;

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
        let found = std::fs::metadata(path).map_err(|error| Error::io("opening", path, &error))?;
        if !found.is_dir() {
            return open_file(path, options);
        }
        let path = &hub::snapshot(path)?;
        if pipeline::is_at(path) { pipeline::open(path, options) } else { open_folder(path, options) }
    }

    /// What an output must leave alone as long as the checkpoint at `path` is to be read, without opening it: as
    /// [`Checkpoint::inputs`], as far as names tell.
    pub fn inputs_at(path: &Path) -> Inputs {
        if !path.is_dir() {
            return Inputs::none().and(path);
        }
        let path = hub::snapshot(path).unwrap_or_else(|_| path.to_owned());
        let components = pipeline::folders(&path);
        components.iter().fold(inputs_in(&path), |inputs, folder| inputs.and_all_of(folder))
    }

    /// Some of a PyTorch file's own tensors as a checkpoint, such as one atom of a published basis. It shares the open file.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, too little memory, or tensors out of all proportion to the file.
    pub fn of_torch(file: &TorchFile, tensors: Vec<Tensor>) -> Result<Checkpoint> {
        let mut charge = file.data_file().account("its tensors");
        for tensor in &tensors {
            charge.take(Tensor::cost(&tensor.name, tensor.shape.len()))?;
        }
        torch::check_total(file.storage_bytes(), &tensors)
            .map_err(|why| Error::rejected(format!("{}: {why}", file.path().display())))?;
        let rest = Rest { charges: vec![charge.settled()], ..Rest::default() };
        finish(file.path(), Layout::TorchFile, [file.data_file().clone()].into(), tensors, rest)
    }

    /// The same files with other tensors in them: parts of what the headers list.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, too little memory, or a tensor that does not lie in its file.
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Result<Checkpoint> {
        let cost: u64 = tensors.iter().map(|tensor| Tensor::cost(&tensor.name, tensor.shape.len())).sum();
        let charge = self.budget().charge(self.path(), "its tensors", cost)?;
        for tensor in &tensors {
            let end = match tensor.place {
                Place::Contiguous { file, offset } | Place::Difference { file, offset } => {
                    self.files().get(file).zip(offset.checked_add(tensor.n_bytes())).map(|(file, end)| end <= file.len)
                }
                Place::LowRank(ref factors) => {
                    let n_elements = factors.n_rows().checked_mul(factors.n_columns());
                    Some(tensor.dtype == Dtype::F32 && n_elements == Some(tensor.n_elements()))
                }
                Place::Unmoved => Some(tensor.dtype == Dtype::F32),
                _ => None,
            };
            if end != Some(true) {
                let (path, name) = (self.path().display(), shown(&tensor.name));
                return Err(Error::rejected(format!("{path}: tensor {name} does not lie in its file")));
            }
        }
        let budget = Some(self.budget().clone());
        let rest = Rest { charges: vec![charge.settled()], budget, ..Rest::default() };
        finish(self.path(), self.layout().clone(), self.inner.files.clone(), tensors, rest)
    }

    /// The same files under other names: `tensors` are its own, renamed, or such as lie in no file. What tensors are made of may
    /// also lie in the files of `beside`, whose numbers follow. `path` is what the user named, `of_adapter` what it is,
    /// `notes` what was assumed.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, or too little memory.
    pub(crate) fn with_places(
        &self,
        path: &Path,
        tensors: Vec<Tensor>,
        beside: Option<&Checkpoint>,
        of_adapter: super::OfAdapter,
        notes: Vec<String>,
    ) -> Result<Checkpoint> {
        let cost: u64 = tensors.iter().map(|tensor| Tensor::cost(&tensor.name, tensor.shape.len())).sum();
        let charge = self.budget().charge(path, "its tensors", cost)?;
        let key = self.inner.key.clone();
        let rest =
            Rest { charges: vec![charge.settled()], key, notes, of_adapter: Some(of_adapter), ..Rest::default() };
        let files = match beside {
            Some(beside) => self.files().iter().chain(beside.files()).cloned().collect(),
            None => self.inner.files.clone(),
        };
        finish(path, self.layout().clone(), files, tensors, rest)
    }

    /// A checkpoint that is not here: its tensors, of which none can be read. What is kept of it is charged to `budget`; `path` is
    /// what it was opened as.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, a shape that overflows, too little memory.
    pub(crate) fn elsewhere(path: &Path, tensors: Vec<Tensor>, budget: &super::Budget) -> Result<Checkpoint> {
        for tensor in &tensors {
            checked_bytes(tensor.dtype, &tensor.shape)
                .map_err(|why| Error::rejected(format!("{}: tensor {} {why}", path.display(), shown(&tensor.name))))?;
        }
        let cost: u64 = tensors.iter().map(|tensor| Tensor::cost(&tensor.name, tensor.shape.len())).sum();
        let charge = budget.charge(path, "its tensors", cost)?;
        let files: [DataFile; 0] = [];
        let rest = Rest { charges: vec![charge.settled()], ..Rest::default() };
        finish(path, Layout::SafetensorsFile, files.into(), tensors, rest)
    }

    /// Tensors of these names and shapes in f32 that are zero: what stands in for a base where there is none. `path` is for
    /// messages.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, or a shape that overflows.
    pub fn of_zeros(path: &Path, shapes: &[(String, Vec<usize>)]) -> Result<Checkpoint> {
        let tensors = shapes.iter().map(|(name, shape)| {
            checked_bytes(Dtype::F32, shape)
                .map_err(|why| Error::rejected(format!("{}: tensor {} {why}", path.display(), shown(name))))?;
            Ok(Tensor { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), place: Place::Zeros })
        });
        let files: [DataFile; 0] = [];
        finish(path, Layout::SafetensorsFile, files.into(), tensors.collect::<Result<_>>()?, Rest::default())
    }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let contents = read_contents(path, options)?;
    let layout = match contents.content {
        Content::Safetensors => Layout::SafetensorsFile,
        Content::Torch => Layout::TorchFile,
    };
    assemble(path, layout, Rest::default(), vec![contents])
}

/// The files of a folder that is no pipeline.
fn inputs_in(path: &Path) -> Inputs {
    let mut inputs = Inputs::none().and_folder(path);
    let found = folder::weights(path).map(|weights| weights.name).ok();
    for name in names::SAFETENSORS.into_iter().chain(names::TORCH).map(str::to_owned).chain(found) {
        let index = match name.ends_with(".json") {
            true => path.join(&name),
            false => path.join(format!("{name}{}", names::INDEX_END)),
        };
        let shards = ShardIndex::read(&index).map(|index| index.shards).unwrap_or_default();
        let shards = shards.iter().map(|shard| path.join(shard));
        inputs = shards.chain([path.join(name), index]).fold(inputs, |inputs, path| inputs.and(&path));
    }
    side_files::paths(path).fold(inputs, |inputs, path| inputs.and(&path))
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let Parts { files, shards, index, note } = read_folder(path, folder::weights(path)?, options)?;
    let content = files.first().map(|file| file.content);
    let layout = match content {
        Some(Content::Torch) => Layout::TorchFolder { shards, indexed: index.is_some() },
        _ => Layout::SafetensorsFolder { shards, indexed: index.is_some() },
    };
    assemble(path, layout, Rest { index, notes: note.into_iter().collect(), ..Rest::default() }, files)
}
