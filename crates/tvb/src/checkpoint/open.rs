//! From a path to a checkpoint: what lies there, judged by its content before its name, and its headers.

use super::index::{self, ShardIndex};
use super::limits::N_TENSORS_MAX;
use super::names;
use super::opened::Inner;
use super::safetensors::SafetensorsHeader;
use super::shown::shown;
use super::tensor::checked_bytes;
use super::torch::{self, StateDict, TorchFile};
use super::{Budget, Charge, Checkpoint, DataFile, Dtype, Inputs, Layout, NotTensor, Place, Tensor, side_files};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// How a path is read; the default suits everything but a PyTorch file that holds several state dicts.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys.
    pub key: Option<String>,
    /// What the headers of everything that is opened with it may take of memory together.
    pub budget: Budget,
}

/// What a data file's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Safetensors,
    Torch,
}

/// One data file's headers, before files are put together.
struct FileContents {
    file: DataFile,
    content: Content,
    tensors: Vec<Tensor>,
    not_tensors: Vec<NotTensor>,
    metadata: BTreeMap<String, String>,
    /// What all of it takes of the budget.
    charge: Charge,
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
        let found = std::fs::metadata(path).map_err(|error| Error::io("opening", path, &error))?;
        if found.is_dir() { open_folder(path, options) } else { open_file(path, options) }
    }

    /// What an output must leave alone as long as the checkpoint at `path` is to be read, without opening it: as
    /// [`Checkpoint::inputs`], as far as names tell.
    pub fn inputs_at(path: &Path) -> Inputs {
        if !path.is_dir() {
            return Inputs::none().and(path);
        }
        let mut inputs = Inputs::none().and_folder(path);
        for name in names::SAFETENSORS.into_iter().chain(names::TORCH) {
            let index = path.join(format!("{name}{}", names::INDEX_END));
            let shards = ShardIndex::read(&index).map(|index| index.shards).unwrap_or_default();
            let shards = shards.iter().map(|shard| path.join(shard));
            inputs = shards.chain([path.join(name), index]).fold(inputs, |inputs, path| inputs.and(&path));
        }
        side_files::paths(path).fold(inputs, |inputs, path| inputs.and(&path))
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
                Place::Contiguous { file, offset } => {
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
        let rest = Rest { charges: vec![charge.settled()], ..Rest::default() };
        finish(self.path(), self.layout().clone(), self.inner.files.clone(), tensors, rest)
    }

    /// The same files under other names: `tensors` are its own, renamed, or such as lie in no file. What tensors are made of may
    /// also lie in the files of `beside`, whose numbers follow. `path` is what the user named, `notes` what was assumed.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, or too little memory.
    pub(crate) fn with_places(
        &self,
        path: &Path,
        tensors: Vec<Tensor>,
        beside: Option<&Checkpoint>,
        notes: Vec<String>,
    ) -> Result<Checkpoint> {
        let cost: u64 = tensors.iter().map(|tensor| Tensor::cost(&tensor.name, tensor.shape.len())).sum();
        let charge = self.budget().charge(path, "its tensors", cost)?;
        let rest = Rest { charges: vec![charge.settled()], notes, ..Rest::default() };
        let files = match beside {
            Some(beside) => self.files().iter().chain(beside.files()).cloned().collect(),
            None => self.inner.files.clone(),
        };
        finish(path, self.layout().clone(), files, tensors, rest)
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
    assemble(path, layout, None, vec![contents])
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    for name in names::SAFETENSORS.into_iter().chain(names::TORCH) {
        if path.join(name).exists() {
            let contents = read_contents(&path.join(name), options)?;
            let layout = folder_layout(&contents, vec![name.to_owned()], false);
            return assemble(path, layout, None, vec![contents]);
        }
        let index_name = format!("{name}{}", names::INDEX_END);
        if path.join(&index_name).exists() {
            return open_shards(path, index_name, options);
        }
    }
    Err(nothing_found(path))
}

fn open_shards(path: &Path, index_name: String, options: &OpenOptions) -> Result<Checkpoint> {
    let (index, _charge) = ShardIndex::read_within(&path.join(&index_name), &options.budget)?;
    // All names first: a missing shard is found before the first header is read.
    let shards: Vec<_> = index.shards.iter().map(|name| index::resolve(path, name)).collect::<Result<_>>()?;
    let mut files: Vec<FileContents> = Vec::with_capacity(shards.len());
    let mut n_tensors = 0;
    for shard in &shards {
        let contents = read_contents(shard, options)?;
        n_tensors += contents.tensors.len();
        if n_tensors > N_TENSORS_MAX {
            return Err(Error::rejected(format!("{}: more than {N_TENSORS_MAX} tensors", path.display())));
        }
        if files.first().is_some_and(|first| first.content != contents.content) {
            return Err(Error::rejected(format!("{}: its shards are of different formats", path.display())));
        }
        files.push(contents);
    }
    let tensors = files.iter().enumerate().flat_map(|(number, file)| file.tensors.iter().map(move |t| (number, t)));
    index.check_against(path, tensors)?;
    let Some(first) = files.first() else {
        return Err(Error::rejected(format!("{}: no shards", path.display())));
    };
    let layout = folder_layout(first, index.shards, true);
    assemble(path, layout, Some(index_name), files)
}

fn folder_layout(contents: &FileContents, shards: Vec<String>, indexed: bool) -> Layout {
    match contents.content {
        Content::Safetensors => Layout::SafetensorsFolder { shards, indexed },
        Content::Torch => Layout::TorchFolder { shards, indexed },
    }
}

fn read_contents(path: &Path, options: &OpenOptions) -> Result<FileContents> {
    let file = DataFile::open_within(path, &options.budget)?;
    match content_of(&file)? {
        content @ Content::Safetensors => {
            let (SafetensorsHeader { tensors, metadata }, charge) = SafetensorsHeader::read_charged(&file)?;
            Ok(FileContents { file, content, tensors, not_tensors: Vec::new(), metadata, charge })
        }
        content @ Content::Torch => {
            let file = TorchFile::parse(file)?;
            let StateDict { tensors, not_tensors, charge } = torch::state_dict(&file, options.key.as_deref())?;
            Ok(FileContents {
                file: file.data_file().clone(),
                content,
                tensors,
                not_tensors,
                metadata: BTreeMap::new(),
                charge,
            })
        }
    }
}

/// What a checkpoint has beside its files and tensors.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) index: Option<String>,
    pub(super) not_tensors: Vec<NotTensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) charges: Vec<Charge>,
    pub(super) notes: Vec<String>,
}

/// Puts the files together: places get their file's number.
fn assemble(path: &Path, layout: Layout, index: Option<String>, contents: Vec<FileContents>) -> Result<Checkpoint> {
    let (mut files, mut in_key_order) = (Vec::new(), Vec::new());
    let mut rest = Rest { index, ..Rest::default() };
    for (number, file) in contents.into_iter().enumerate() {
        for mut tensor in file.tensors {
            if let Place::Contiguous { file, .. } | Place::Strided { file, .. } = &mut tensor.place {
                *file = number;
            }
            in_key_order.push(tensor);
        }
        rest.not_tensors.extend(file.not_tensors);
        if number == 0 {
            rest.metadata = file.metadata;
        }
        rest.charges.push(file.charge.settled());
        files.push(file.file);
    }
    finish(path, layout, files.into(), in_key_order, rest)
}

/// Names must be unique; tensors are sorted as they lie.
pub(super) fn finish(
    path: &Path,
    layout: Layout,
    files: Arc<[DataFile]>,
    in_key_order: Vec<Tensor>,
    rest: Rest,
) -> Result<Checkpoint> {
    // The sort is stable, so tensors that share bytes keep their order.
    let mut ranked: Vec<(usize, Tensor)> = in_key_order.into_iter().enumerate().collect();
    ranked.sort_by_key(|(_, tensor)| tensor.place.sort_key());
    let mut key_order = vec![0; ranked.len()];
    let mut tensors = Vec::with_capacity(ranked.len());
    let mut by_name = HashMap::with_capacity(ranked.len());
    for (position, (rank, tensor)) in ranked.into_iter().enumerate() {
        if let Some(place) = key_order.get_mut(rank) {
            *place = position;
        }
        if by_name.insert(tensor.name.clone(), position).is_some() {
            let name = shown(&tensor.name);
            return Err(Error::rejected(format!("{}: tensor {name} stands there twice", path.display())));
        }
        tensors.push(tensor);
    }
    let Rest { index, not_tensors, metadata, charges, notes } = rest;
    let path = path.to_owned();
    let budget = files.first().map(|file| file.budget().clone()).unwrap_or_default();
    let inner = Inner {
        path,
        layout,
        index,
        files,
        tensors,
        key_order,
        by_name,
        not_tensors,
        metadata,
        budget,
        notes,
        _charges: charges,
    };
    Ok(Checkpoint { inner: Arc::new(inner) })
}

/// What a data file is: by its first bytes, and by its name where they could be anything.
fn content_of(file: &DataFile) -> Result<Content> {
    const ZIP: &[u8] = b"PK\x03\x04";
    // An empty zip archive.
    const ZIP_END: &[u8] = b"PK\x05\x06";
    // A pickle of protocol 2 or later that begins with a long integer: the magic number of the pre-1.6 container.
    const LEGACY: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    const LFS: &[u8] = b"version https://git-lfs";

    let mut start = vec![0; file.len.min(32) as usize];
    file.read_at(0, &mut start)?;
    if start.starts_with(LFS) {
        return Err(Error::rejected(format!("{}: is a Git LFS pointer, not the file itself", file.path.display()))
            .hint("fetch it with `git lfs pull`"));
    }
    if start.starts_with(ZIP)
        || start.starts_with(ZIP_END)
        || start.get(2..).is_some_and(|rest| rest.starts_with(LEGACY))
    {
        return Ok(Content::Torch);
    }
    if start.get(8) == Some(&b'{') {
        return Ok(Content::Safetensors);
    }
    let extension = file.path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    match extension.to_ascii_lowercase().as_str() {
        // The reader of the format says what is wrong with it.
        "safetensors" => Ok(Content::Safetensors),
        "pt" | "pth" | "bin" | "ckpt" | "pkl" => Ok(Content::Torch),
        _ => Err(Error::rejected(format!(
            "{}: expected a safetensors or a PyTorch file, found neither in its first bytes",
            file.path.display()
        ))),
    }
}

/// The message for a folder without weights names what was looked for, and what could be meant.
fn nothing_found(path: &Path) -> Error {
    let error = Error::rejected(format!(
        "{}: expected {} or {} or an index of their shards, found none",
        path.display(),
        names::SAFETENSORS[0],
        names::TORCH[0]
    ));
    let mut others: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| [".safetensors", ".pt", ".pth", ".bin", ".ckpt"].iter().any(|end| name.ends_with(end)))
        .collect();
    others.sort();
    match others.first() {
        Some(name) => error.hint(format!("name a file of it, for example {}", path.join(name).display())),
        None => error.hint("name a checkpoint file or a folder in the Hugging Face layout"),
    }
}
