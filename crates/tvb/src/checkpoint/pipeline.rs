//! A diffusers pipeline as one checkpoint: the weights of all its components, each under `COMPONENT/NAME`.
//!
//! `model_index.json` names the components: `"unet": ["diffusers", "UNet2DConditionModel"]`. A component lies in a folder of
//! its name; those without weights (scheduler, tokenizer) are what an edited copy takes over as they are.

use super::assemble::{FileContents, Rest, assemble, finish, read_folder};
use super::capped::read_capped_within;
use super::folder;
use super::index::resolve;
use super::limits::N_TENSORS_MAX;
use super::names::PIPELINE;
use super::shown::shown;
use super::{Budget, Checkpoint, Component, Dtype, Layout, OpenOptions, Place, Tensor, json};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A longer list of components is something else.
const INDEX_BYTES_MAX: u64 = 1 << 20;
/// More components are none of a model.
const N_COMPONENTS_MAX: usize = 64;

/// Whether a folder is that of a pipeline.
pub(super) fn is_at(path: &Path) -> bool {
    path.join(PIPELINE).is_file()
}

/// The components' folders; none where it is no pipeline, or one that cannot be read.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    let names = if is_at(path) { component_names(path, &Budget::default()).unwrap_or_default() } else { Vec::new() };
    names.iter().map(|name| path.join(name)).collect()
}

/// Opens every component.
///
/// # Errors
/// Rejected: a malformed list, a component that is missing or that cannot be read, as [`Checkpoint::open`].
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let (mut components, mut others) = (Vec::new(), Vec::new());
    let mut contents: Vec<FileContents> = Vec::new();
    let mut rest = Rest::default();
    let mut n_tensors = 0;
    for name in component_names(path, &options.budget)? {
        let folder = resolve(path, &name)?;
        let Some(weights) = folder::find(&folder)? else {
            others.push(name);
            continue;
        };
        let mut parts = read_folder(&folder, weights, options)?;
        let component = Component { name, shards: parts.shards, index: parts.index };
        for file in &mut parts.files {
            n_tensors += file.tensors.len();
            if n_tensors > N_TENSORS_MAX {
                return Err(Error::rejected(format!("{}: more than {N_TENSORS_MAX} tensors", path.display())));
            }
            put_before(&component.prefix(), file)?;
        }
        rest.notes.extend(parts.note);
        contents.append(&mut parts.files);
        components.push(component);
    }
    if components.is_empty() {
        return Err(Error::rejected(format!("{}: a pipeline without weights", path.display()))
            .hint("copy or download the folder again; every component that model_index.json names is needed"));
    }
    assemble(path, Layout::Pipeline { components, others }, rest, contents)
}

fn put_before(prefix: &str, file: &mut FileContents) -> Result<()> {
    let names = file.tensors.iter_mut().map(|tensor| &mut tensor.name);
    for name in names.chain(file.not_tensors.iter_mut().map(|entry| &mut entry.name)) {
        // In the tensor, and in the table of names.
        file.charge.take(2 * prefix.len() as u64)?;
        name.insert_str(0, prefix);
    }
    Ok(())
}

/// Names of the components, sorted.
fn component_names(path: &Path, budget: &Budget) -> Result<Vec<String>> {
    let index = path.join(PIPELINE);
    let (text, mut charge) = read_capped_within(&index, "a list of components", INDEX_BYTES_MAX, budget)?;
    charge.take(json::cost(&text))?;
    let rejected = |why: String| Error::rejected(format!("{}: {why}", index.display()));
    let value: Value = serde_json::from_slice(&text).map_err(|error| rejected(format!("not JSON: {error}")))?;
    let entries = value.as_object().ok_or_else(|| rejected("expected a JSON object".into()))?;
    // [library, class]; both are null for a component that was left out, and flags are no lists.
    let is_component = |value: &Value| {
        let pair = value.as_array().map(Vec::as_slice);
        matches!(pair, Some([_, Value::String(_)]))
    };
    let names = entries.iter().filter(|(key, value)| !key.starts_with('_') && is_component(value));
    let mut names: Vec<String> = names.map(|(key, _)| key.clone()).collect();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(rejected(format!("component {}: expected a folder's name", shown(name))));
    }
    if names.len() > N_COMPONENTS_MAX {
        return Err(rejected(format!("{} components, expected at most {N_COMPONENTS_MAX}", names.len())));
    }
    names.sort();
    Ok(names)
}

/// Components are named like attributes of a class.
fn is_plain(name: &str) -> bool {
    name.len() <= 100 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Checkpoint {
    /// This checkpoint as a tune of the pipeline `base` in which only `component` was trained: its tensors under the pipeline's
    /// names, and the other components' float tensors as not moved.
    ///
    /// # Errors
    /// Rejected: too little memory.
    pub fn as_component(&self, component: &Component, base: &Checkpoint) -> Result<Checkpoint> {
        let prefix = component.prefix();
        let own =
            self.tensors().iter().map(|tensor| Tensor { name: format!("{prefix}{}", tensor.name), ..tensor.clone() });
        let elsewhere = |tensor: &&Tensor| tensor.dtype.float().is_some() && !tensor.name.starts_with(&prefix);
        let others = base.tensors().iter().filter(elsewhere).map(|tensor| Tensor {
            name: tensor.name.clone(),
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            place: Place::Unmoved,
        });
        let mut charge = self.budget().account(self.path(), "its tensors");
        let mut tensors = Vec::with_capacity(self.tensors().len());
        for tensor in own.chain(others) {
            charge.take(Tensor::cost(&tensor.name, tensor.shape.len()))?;
            tensors.push(tensor);
        }
        let name = &component.name;
        let note =
            format!("{}: taken as {name} of the pipeline; its other components do not move", self.path().display());
        let rest = Rest {
            key: self.inner.key.clone(),
            index: self.inner.index.clone(),
            metadata: self.inner.metadata.clone(),
            notes: self.notes().iter().cloned().chain([note]).collect(),
            charges: vec![charge.settled()],
            budget: Some(self.budget().clone()),
            ..Rest::default()
        };
        finish(self.path(), self.layout().clone(), self.inner.files.clone(), tensors, rest)
    }
}
