//! From data files to a checkpoint: what each file is, judged by its content before its name, its headers, and all of them
//! put together.

use super::folder::Weights;
use super::index::{self, ShardIndex};
use super::limits::N_TENSORS_MAX;
use super::opened::{Inner, OfAdapter};
use super::safetensors::SafetensorsHeader;
use super::shown::shown;
use super::torch::{self, StateDict, TorchFile};
use super::{Budget, Charge, Checkpoint, DataFile, Layout, NotTensor, OpenOptions, Place, Tensor, foreign, names};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// What a data file's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Safetensors,
    Torch,
}

/// One data file's headers, before files are put together.
pub(super) struct FileContents {
    file: DataFile,
    pub(super) content: Content,
    pub(super) tensors: Vec<Tensor>,
    pub(super) not_tensors: Vec<NotTensor>,
    metadata: BTreeMap<String, String>,
    /// The key that was followed.
    key: Option<String>,
    /// What was taken of a file that holds several.
    note: Option<String>,
    /// What all of it takes of the budget.
    pub(super) charge: Charge,
}

/// A folder's files of weights, in the order of their names.
pub(super) struct Parts {
    pub(super) files: Vec<FileContents>,
    pub(super) shards: Vec<String>,
    pub(super) index: Option<String>,
    pub(super) note: Option<String>,
}

/// Reads the headers of what [`folder::find`] has found.
///
/// # Errors
/// As [`Checkpoint::open`].
pub(super) fn read_folder(path: &Path, found: Weights, options: &OpenOptions) -> Result<Parts> {
    let Weights { name, is_index, note } = found;
    if is_index {
        let (files, shards) = read_shards(path, &name, options)?;
        return Ok(Parts { files, shards, index: Some(name), note });
    }
    let files = vec![read_contents(&path.join(&name), options)?];
    Ok(Parts { files, shards: vec![name], index: None, note })
}

fn read_shards(path: &Path, index_name: &str, options: &OpenOptions) -> Result<(Vec<FileContents>, Vec<String>)> {
    let (index, _charge) = ShardIndex::read_within(&path.join(index_name), &options.budget)?;
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
    Ok((files, index.shards))
}

pub(super) fn read_contents(path: &Path, options: &OpenOptions) -> Result<FileContents> {
    let file = DataFile::open_within(path, &options.budget)?;
    match content_of(&file)? {
        content @ Content::Safetensors => {
            let (SafetensorsHeader { tensors, metadata }, charge) = SafetensorsHeader::read_charged(&file)?;
            Ok(FileContents {
                file,
                content,
                tensors,
                not_tensors: Vec::new(),
                metadata,
                key: None,
                note: None,
                charge,
            })
        }
        content @ Content::Torch => {
            let file = TorchFile::parse(file)?;
            let StateDict { tensors, not_tensors, note, charge } = torch::state_dict(&file, options.key.as_deref())?;
            Ok(FileContents {
                file: file.data_file().clone(),
                content,
                tensors,
                not_tensors,
                metadata: BTreeMap::new(),
                key: options.key.clone(),
                note,
                charge,
            })
        }
    }
}

/// What a checkpoint has beside its files and tensors.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) key: Option<String>,
    pub(super) index: Option<String>,
    pub(super) not_tensors: Vec<NotTensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
    pub(super) own_names: HashMap<String, String>,
    pub(super) of_adapter: Option<OfAdapter>,
    pub(super) charges: Vec<Charge>,
    /// Where there is no file to have one.
    pub(super) budget: Option<Budget>,
}

/// Puts the files together: places get their file's number.
pub(super) fn assemble(path: &Path, layout: Layout, mut rest: Rest, contents: Vec<FileContents>) -> Result<Checkpoint> {
    let (mut files, mut in_key_order) = (Vec::new(), Vec::new());
    for (number, file) in contents.into_iter().enumerate() {
        for mut tensor in file.tensors {
            if let Place::Contiguous { file, .. } | Place::Difference { file, .. } | Place::Strided { file, .. } =
                &mut tensor.place
            {
                *file = number;
            }
            in_key_order.push(tensor);
        }
        rest.not_tensors.extend(file.not_tensors);
        rest.notes.extend(file.note);
        rest.key = rest.key.or(file.key);
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
    let Rest { key, index, not_tensors, metadata, notes, own_names, of_adapter, charges, budget } = rest;
    let path = path.to_owned();
    let budget = files.first().map(|file| file.budget().clone()).or(budget).unwrap_or_default();
    let inner = Inner {
        path,
        key,
        layout,
        index,
        files,
        tensors,
        key_order,
        by_name,
        not_tensors,
        metadata,
        notes,
        own_names,
        of_adapter,
        budget,
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

    let mut start = vec![0; file.len.min(512) as usize];
    file.read_at(0, &mut start)?;
    foreign::refuse(file, &start)?;
    if start.starts_with(ZIP)
        || start.starts_with(ZIP_END)
        || start.get(2..).is_some_and(|rest| rest.starts_with(LEGACY))
    {
        return Ok(Content::Torch);
    }
    if start.get(8) == Some(&b'{') {
        return Ok(Content::Safetensors);
    }
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    // The reader of the format says what is wrong with it.
    match names::WEIGHT_ENDINGS.iter().chain(&[".pkl"]).find(|end| name.ends_with(**end)) {
        Some(&".safetensors") => Ok(Content::Safetensors),
        Some(_) => Ok(Content::Torch),
        None => Err(Error::rejected(format!(
            "{}: expected a safetensors or a PyTorch file, found neither in its first bytes",
            file.path.display()
        ))),
    }
}
