//! An edited copy of a pipeline: every component's weights in a folder of its own, under their names without the component's.

use super::{Checkpoint, Component, Layout, Place, SHARD_BYTES, ShardPlan, ShardedWriter, TensorSpec};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// One component to be written.
pub(super) struct Part<'a> {
    component: &'a Component,
    /// Its tensors under their own names.
    specs: Vec<TensorSpec>,
    /// The shards of the original, where a copy can have them.
    plan: Option<ShardPlan>,
}

/// The components of `like`, where it is a pipeline; `specs` are its tensors in their order.
pub(super) fn pipeline_parts<'a>(like: &'a Checkpoint, specs: &[TensorSpec]) -> Option<Vec<Part<'a>>> {
    let Layout::Pipeline { components, .. } = like.layout() else { return None };
    let mut first_file = 0;
    let mut parts = Vec::with_capacity(components.len());
    for component in components {
        let prefix = component.prefix();
        let mut files: Vec<(String, Vec<usize>)> =
            component.shards.iter().map(|name| (name.clone(), Vec::new())).collect();
        let mut own = Vec::new();
        let mut keeps_shards =
            component.shards.iter().all(|name| !name.contains(['/', '\\']) && name.ends_with(".safetensors"));
        for (tensor, spec) in like.tensors().iter().zip(specs) {
            let Some(name) = spec.name.strip_prefix(&prefix) else { continue };
            match (&tensor.place, keeps_shards) {
                (Place::Contiguous { file, .. }, true) => {
                    let shard = file.checked_sub(first_file).and_then(|shard| files.get_mut(shard));
                    match shard {
                        Some((_, tensors)) => tensors.push(own.len()),
                        None => keeps_shards = false,
                    }
                }
                _ => keeps_shards = false,
            }
            own.push(TensorSpec { name: name.to_owned(), ..spec.clone() });
        }
        first_file += component.shards.len();
        let plan = keeps_shards.then(|| ShardPlan { files, index: component.index.clone() });
        parts.push(Part { component, specs: own, plan });
    }
    Some(parts)
}

/// The writers, and for each of the pipeline's tensors which one has it under which number.
type Created = (Vec<ShardedWriter>, HashMap<String, (usize, usize)>);

/// Creates every component's folder and files in `folder`.
///
/// # Errors
/// As [`ShardedWriter::create`].
pub(super) fn create_parts(
    folder: &Path,
    parts: Vec<Part<'_>>,
    metadata: &BTreeMap<String, String>,
) -> Result<Created> {
    let mut writers = Vec::with_capacity(parts.len());
    let mut by_name = HashMap::new();
    for Part { component, specs, plan } in parts {
        let own = folder.join(&component.name);
        std::fs::create_dir(&own).map_err(|error| Error::io("creating", &own, &error))?;
        let plan = match plan {
            Some(plan) => plan,
            None => ShardPlan::greedy(&specs, stem(component), SHARD_BYTES)?,
        };
        let prefix = component.prefix();
        let number = writers.len();
        by_name.extend(
            specs.iter().enumerate().map(|(tensor, spec)| (format!("{prefix}{}", spec.name), (number, tensor))),
        );
        writers.push(ShardedWriter::create(&own, &plan, &specs, metadata)?);
    }
    Ok((writers, by_name))
}

/// What the library of a component calls its safetensors file.
fn stem(component: &Component) -> &'static str {
    const OF_DIFFUSERS: &str = "diffusion_pytorch_model";
    match component.shards.first() {
        Some(name) if name.starts_with(OF_DIFFUSERS) => OF_DIFFUSERS,
        _ => "model",
    }
}
