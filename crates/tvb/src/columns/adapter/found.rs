//! What lies at a path: an adapter, or something that stands for itself.

use super::parsed::{Parsed, Writer};
use crate::checkpoint::names::ADAPTER_CONFIG as CONFIG;
use crate::checkpoint::{Checkpoint, OpenOptions, resolve_inside, snapshot};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Names of an adapter's weights in a folder, in the order they are looked for; the last two are diffusers'.
const WEIGHTS: [&str; 4] =
    ["adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];
/// Names of a whole model's weights.
const WHOLE: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
];

/// What was found at a path.
#[derive(Debug)]
pub enum Found {
    /// A checkpoint that stands for itself.
    Checkpoint(Checkpoint),
    /// An adapter, which needs a base.
    Adapter(Adapter),
}

/// An adapter that has been read, and not yet laid over a base.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    parsed: Parsed,
}

/// One module of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleFacts {
    /// The module's path, as the adapter writes it.
    pub name: String,
    /// r.
    pub rank: usize,
    /// s of Δ = s·B·A.
    pub scale: f64,
    /// Whether the rows are brought to learnt lengths (DoRA).
    pub is_dora: bool,
}

impl Found {
    /// Opens what lies at `path`.
    ///
    /// # Errors
    /// Rejected: a malformed checkpoint, or an adapter that is refused. Failed: I/O.
    pub fn at(path: &Path, options: &OpenOptions) -> Result<Found> {
        let path = &snapshot(path)?;
        let in_folder = if path.is_dir() { in_folder(path)? } else { None };
        let is_named = in_folder.is_some();
        let (weights, config) = match in_folder {
            Some(found) => found,
            None => (path.to_owned(), beside(path)?),
        };
        let file = Checkpoint::open_with(&weights, options)?;
        // Whatever a file is called: A and B are never taken for weights.
        if !is_named && !Parsed::is(&file) {
            return Ok(Found::Checkpoint(file));
        }
        let parsed = Parsed::of(file, config.as_deref(), &options.budget)?;
        Ok(Found::Adapter(Adapter { path: path.to_owned(), parsed }))
    }

    /// The checkpoint, where it needs no base.
    ///
    /// # Errors
    /// Rejected: it is an adapter.
    pub fn whole(self) -> Result<Checkpoint> {
        match self {
            Found::Checkpoint(checkpoint) => Ok(checkpoint),
            Found::Adapter(adapter) => Err(Error::rejected(format!(
                "{}: a whole model expected, an adapter (LoRA) found, which is a change of another model",
                adapter.path.display()
            ))
            .hint(match &adapter.parsed.base_model {
                Some(base) => format!(
                    "name the model it was trained on: {}; adapters are tasks: NAME=PATH",
                    crate::shown::shown(base)
                ),
                None => "name the model it was trained on; adapters are tasks: NAME=PATH".to_owned(),
            })),
        }
    }
}

impl Adapter {
    /// What it adds to `base`: a checkpoint of the base's names and shapes whose tensors are differences, except those that
    /// take the place of the base's.
    ///
    /// # Errors
    /// Rejected: a module that has no place in the base, or factors that are not finite. Failed: I/O.
    pub fn against(&self, base: &Checkpoint) -> Result<Checkpoint> {
        self.parsed.against(base, &self.path)
    }

    /// Who wrote it.
    pub fn writer(&self) -> Writer {
        self.parsed.writer
    }

    /// The model that it was trained on, as its configuration calls it.
    pub fn base_model(&self) -> Option<&str> {
        self.parsed.base_model.as_deref()
    }

    /// Its modules, sorted by path.
    pub fn modules(&self) -> Vec<ModuleFacts> {
        let facts = |module: &super::parsed::Module| ModuleFacts {
            name: module.path.clone(),
            rank: module.rank,
            scale: module.scale,
            is_dora: module.magnitude.is_some(),
        };
        self.parsed.modules.iter().map(facts).collect()
    }

    /// Tensors of the base that it replaces.
    pub fn replacements(&self) -> impl Iterator<Item = &str> {
        self.parsed.replacements.iter().map(|(name, _)| name.as_str())
    }

    /// What had to be assumed.
    pub fn notes(&self) -> &[String] {
        &self.parsed.notes
    }
}

/// The weights of an adapter in a folder, and its configuration.
fn in_folder(folder: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>> {
    let exists = |name: &&str| folder.join(name).symlink_metadata().is_ok();
    let has_config = exists(&CONFIG);
    let whole = WHOLE.iter().find(|name| exists(name));
    let Some(name) = WEIGHTS.iter().find(|name| exists(name)) else {
        if has_config && whole.is_none() {
            return Err(Error::rejected(format!(
                "{}: {} expected beside {CONFIG}, not found",
                folder.display(),
                WEIGHTS[0]
            )));
        }
        return Ok(None);
    };
    if let Some(whole) = whole {
        return Err(Error::rejected(format!("{}: holds a model ({whole}) and an adapter ({name})", folder.display()))
            .hint(format!("name the one that is meant, for example {}", folder.join(name).display())));
    }
    let weights = resolve_inside(folder, name)?;
    let config = if has_config { Some(resolve_inside(folder, CONFIG)?) } else { None };
    Ok(Some((weights, config)))
}

/// The configuration beside a file of PEFT's.
fn beside(path: &Path) -> Result<Option<PathBuf>> {
    let is_peft = path.file_stem().is_some_and(|stem| stem == "adapter_model");
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(None),
    };
    let exists = is_peft && folder.join(CONFIG).symlink_metadata().is_ok();
    if exists { resolve_inside(folder, CONFIG).map(Some) } else { Ok(None) }
}
