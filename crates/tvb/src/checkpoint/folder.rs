//! What is opened of a folder: its weights under the names that libraries give them, a variant of those, or the only file of
//! weights that there is.

use super::shown::shown;
use super::{foreign, names};
use crate::error::{Error, Result};
use std::path::Path;

/// More entries than this are not looked at: nobody's checkpoint is in such a folder.
const N_ENTRIES_MAX: usize = 20_000;
/// How many files or folders a message lists.
const N_LISTED: usize = 8;

/// What holds a folder's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// The file's name, or that of the index of several.
    pub(super) name: String,
    /// Whether it is an index.
    pub(super) is_index: bool,
    /// Why it was taken, where its name is not the usual one.
    pub(super) note: Option<String>,
}

/// Finds a folder's weights.
///
/// # Errors
/// Rejected: none, several that could be meant, parts of a model, or another program's form; says what to do.
pub(super) fn weights(path: &Path) -> Result<Weights> {
    match find(path)? {
        Some(found) => Ok(found),
        None => Err(without_weights(path, &entries(path)?)),
    }
}

/// As [`weights`]; `None` for a folder that simply has none.
///
/// # Errors
/// As [`weights`], but for that.
pub(super) fn find(path: &Path) -> Result<Option<Weights>> {
    let is_there = |name: &str| path.join(name).exists();
    let file = |name: &str| Ok(Some(Weights { name: name.to_owned(), is_index: false, note: None }));
    for name in names::SAFETENSORS.into_iter().chain(names::TORCH) {
        if is_there(name) {
            return file(name);
        }
        let index = format!("{name}{}", names::INDEX_END);
        if is_there(&index) {
            return Ok(Some(Weights { name: index, is_index: true, note: None }));
        }
    }
    let names = entries(path)?;
    if let Some(found) = variant(path, &names)? {
        return Ok(Some(found));
    }
    if let Some(name) = names::OTHERS.into_iter().find(|name| is_there(name)) {
        return if name == names::PARALLEL && is_there(names::PARALLEL_SECOND) {
            Err(parallel(path))
        } else {
            file(name)
        };
    }
    if names.iter().any(|name| name == names::MANIFEST) {
        return Err(Error::rejected(format!("{}: a checkpoint expected, a basis found", path.display()))
            .hint("`tvb recover` writes a basis' tasks as checkpoints; `tvb add`, `tvb apply` take the basis itself"));
    }
    if let Some(error) = foreign::parts(path, &names) {
        return Err(error);
    }
    let indexes: Vec<&String> = names.iter().filter(|name| name.ends_with(names::INDEX_END)).collect();
    let files: Vec<&String> =
        names.iter().filter(|name| names::is_weights(name) && path.join(name).is_file()).collect();
    let only = |name: &str, is_index| {
        let note = format!("{}: its only weights are taken, {}", path.display(), shown(name));
        Ok(Some(Weights { name: name.to_owned(), is_index, note: Some(note) }))
    };
    match (&indexes[..], &files[..]) {
        ([index], _) => only(index, true),
        ([], [file]) => only(file, false),
        ([], []) => foreign::other(path, &names).map_or(Ok(None), Err),
        _ => Err(several(path, &files)),
    }
}

/// Meta's layout of a large model.
fn parallel(path: &Path) -> Error {
    let first = names::PARALLEL;
    Error::rejected(format!(
        "{}: parts for model parallelism ({first} and more), which are not put together",
        path.display()
    ))
    .hint("convert it to a Hugging Face folder first, with transformers' conversion script for the model")
}

/// Names in a folder, sorted, hidden ones and those that are not Unicode among them.
fn entries(path: &Path) -> Result<Vec<String>> {
    let io = |error: std::io::Error| Error::io("reading", path, &error);
    let entries = std::fs::read_dir(path).map_err(io)?.take(N_ENTRIES_MAX);
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(io));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// `model.fp16.safetensors` where there is no `model.safetensors`, and the index of shards of such a variant.
///
/// # Errors
/// Rejected: several variants.
fn variant(path: &Path, entries: &[String]) -> Result<Option<Weights>> {
    for usual in names::SAFETENSORS.into_iter().chain(names::TORCH) {
        let found: Vec<(&String, &str, bool)> = entries
            .iter()
            .filter_map(|entry| names::variant_of(entry, usual).map(|(variant, is_index)| (entry, variant, is_index)))
            .collect();
        match found[..] {
            [] => {}
            [(name, variant, is_index)] => {
                let note = Some(format!("{}: there is no {usual}, its variant {variant} is taken", path.display()));
                return Ok(Some(Weights { name: name.clone(), is_index, note }));
            }
            _ => return Err(several(path, &found.iter().map(|(name, ..)| *name).collect::<Vec<_>>())),
        }
    }
    Ok(None)
}

fn several(path: &Path, files: &[&String]) -> Error {
    let first = files.first().map_or_else(String::new, |name| path.join(name).display().to_string());
    Error::rejected(format!(
        "{}: expected {} or {} or an index of their shards, found {} other files of weights",
        path.display(),
        names::SAFETENSORS[0],
        names::TORCH[0],
        files.len()
    ))
    .below(listed(files.iter().map(|name| name.as_str())))
    .hint(format!("name a file of it, for example {first}"))
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<String> {
    let n_more = names.len().saturating_sub(N_LISTED);
    let shown = names.take(N_LISTED).map(str::to_owned);
    shown.chain((n_more > 0).then(|| format!("… and {n_more} more"))).collect()
}

/// A folder without weights may be that of a run, with folders of checkpoints.
fn without_weights(path: &Path, entries: &[String]) -> Error {
    let mut steps: Vec<(u64, &str)> = entries
        .iter()
        .filter(|name| path.join(name).is_dir())
        .filter_map(|name| Some((names::step_of(name)?, name.as_str())))
        .collect();
    steps.sort_unstable();
    if let Some((_, last)) = steps.last() {
        // The last ones are those that are wanted.
        let n_earlier = steps.len().saturating_sub(N_LISTED);
        let earlier = (n_earlier > 0).then(|| format!("{n_earlier} earlier ones, …"));
        let shown = steps.iter().skip(n_earlier).map(|(_, name)| (*name).to_owned());
        return Error::rejected(format!("{}: a training run without weights of its own", path.display()))
            .below(earlier.into_iter().chain(shown))
            .hint(format!("name a checkpoint of it, for example {}", path.join(last).display()));
    }
    let error = Error::rejected(format!(
        "{}: expected {} or {} or an index of their shards, found none",
        path.display(),
        names::SAFETENSORS[0],
        names::TORCH[0]
    ));
    // Several adapters of one model are saved in folders of their own; so are the parts of a repository.
    let is_model = |name: &&String| {
        let folder = path.join(name);
        [names::CONFIG, names::ADAPTER_CONFIG, names::PIPELINE].iter().any(|file| folder.join(file).is_file())
    };
    let inner: Vec<&str> = entries.iter().filter(is_model).map(String::as_str).collect();
    match inner.first() {
        Some(first) => {
            let hint = format!("name one of its folders, for example {}", path.join(first).display());
            error.below(listed(inner.into_iter())).hint(hint)
        }
        None => error.hint("name a checkpoint file or a folder in the Hugging Face layout"),
    }
}
