//! An adapter's file, taken apart without its base: which modules it changes, by factors of what rank and at what scale.

use super::config::Config;
use super::names::{self, Name, Role};
use crate::checkpoint::{Budget, Checkpoint, Tensor, shown};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tensors listed in full before the rest become a count.
pub(super) const LISTED: usize = 20;
/// Under this key diffusers keeps the configurations of a pipeline's parts in a file's metadata.
const METADATA_KEY: &str = "lora_adapter_metadata";
/// The parts of a diffusers pipeline that adapters are made for.
const PARTS: [&str; 6] = ["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "prior"];

/// Who wrote an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// PEFT: a folder with `adapter_config.json`.
    Peft,
    /// kohya's trainer, and what follows its names.
    Kohya,
    /// diffusers.
    Diffusers,
}

impl Writer {
    /// What its users call it.
    pub fn name(self) -> &'static str {
        match self {
            Writer::Peft => "PEFT",
            Writer::Kohya => "kohya",
            Writer::Diffusers => "diffusers",
        }
    }
}

/// An adapter's file and what is in it.
#[derive(Debug)]
pub struct Parsed {
    pub(super) file: Checkpoint,
    pub(super) writer: Writer,
    pub(super) modules: Vec<Module>,
    /// (the base's name, the tensor) of what takes the place of a tensor of the base.
    pub(super) replacements: Vec<(String, Tensor)>,
    /// The same of what the adapter was laid over.
    pub(super) base_copies: Vec<(String, Tensor)>,
    pub(super) fan_in_fan_out: bool,
    /// The model that it was trained on, as its configuration calls it.
    pub(super) base_model: Option<String>,
    /// What was assumed.
    pub(super) notes: Vec<String>,
}

/// One changed module: its weight moves by `scale`·B·A.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) path: String,
    /// What its path is looked up among: kohya's prefix or the part of a pipeline.
    pub(super) part: Option<String>,
    pub(super) is_joined: bool,
    pub(super) is_embedding: bool,
    pub(super) down: Tensor,
    pub(super) up: Tensor,
    pub(super) middle: Option<Tensor>,
    pub(super) magnitude: Option<Tensor>,
    pub(super) up_bias: Option<Tensor>,
    pub(super) rank: usize,
    pub(super) scale: f64,
}

/// A module whose tensors are being found.
#[derive(Default)]
struct Partial {
    tensors: Vec<(Role, Tensor)>,
}

impl Partial {
    fn take(&mut self, roles: &[Role]) -> Option<(Role, Tensor)> {
        let at = self.tensors.iter().position(|(role, _)| roles.contains(role))?;
        Some(self.tensors.swap_remove(at))
    }
}

impl Parsed {
    /// Whether only adapters have tensors of such names.
    pub(super) fn is(file: &Checkpoint) -> bool {
        file.tensors().iter().any(|tensor| names::is_adapters(&tensor.name))
    }

    /// Takes `file` apart; `config` is the path of its configuration, where there is one.
    ///
    /// # Errors
    /// Rejected: tensors that are not known, another kind of adapter, an unknown scale.
    pub(super) fn of(file: Checkpoint, config: Option<&Path>, budget: &Budget) -> Result<Parsed> {
        let at = |error: Error| error.context(file.path().display());
        let named = taken_apart(&file).map_err(at)?;
        let config = config.map(|path| Config::read(path, budget)).transpose()?;
        let writer = match &config {
            Some(_) => Writer::Peft,
            None if file.tensors().iter().any(|tensor| tensor.name.starts_with("base_model.model.")) => {
                return Err(without_config(&file));
            }
            None if named.iter().any(|(name, _)| name.prefix.is_some()) => Writer::Kohya,
            None => Writer::Diffusers,
        };
        let parts = match file.metadata().get(METADATA_KEY) {
            Some(json) if writer == Writer::Diffusers => {
                Config::of_parts(json).map_err(|error| at(error.context(format!("`{METADATA_KEY}`"))))?
            }
            _ => BTreeMap::new(),
        };
        let mut parsed = Parsed {
            file: file.clone(),
            writer,
            modules: Vec::new(),
            replacements: Vec::new(),
            base_copies: Vec::new(),
            fan_in_fan_out: config.as_ref().is_some_and(|config| config.fan_in_fan_out),
            base_model: config.as_ref().and_then(|config| config.base_model.clone()),
            notes: Vec::new(),
        };
        let mut partial: BTreeMap<(Option<&str>, String), Partial> = BTreeMap::new();
        for (name, tensor) in named {
            match name.role {
                Role::Ignored => {}
                Role::Replacement => parsed.replacements.push((name.path, tensor)),
                Role::BaseCopy => parsed.base_copies.push((name.path, tensor)),
                role => partial.entry((name.prefix, name.path)).or_default().tensors.push((role, tensor)),
            }
        }
        let is_dora = config.as_ref().is_some_and(|config| config.use_dora);
        let mut scales = Scales { writer, config, parts, n_assumed: 0 };
        for ((prefix, path), partial) in partial {
            let module = module(&file, prefix, path, partial, &mut scales).map_err(at)?;
            if is_dora && module.magnitude.is_none() {
                let path = shown(&module.path);
                return Err(at(Error::rejected(format!(
                    "module {path}: `lora_magnitude_vector` expected with DoRA, none found"
                ))));
            }
            parsed.modules.push(module);
        }
        if writer != Writer::Peft && !parsed.replacements.is_empty() {
            let names: Vec<&str> = parsed.replacements.iter().map(|(name, _)| name.as_str()).collect();
            return Err(at(listing("not known in an adapter", &names)));
        }
        if scales.n_assumed > 0 {
            let n = scales.n_assumed;
            parsed.notes.push(format!("{n} modules have no alpha: their factors are taken as they are, at scale 1"));
        }
        Ok(parsed)
    }
}

/// Every tensor's name, taken apart.
fn taken_apart(file: &Checkpoint) -> Result<Vec<(Name, Tensor)>> {
    let (mut named, mut unknown, mut adapters) = (Vec::new(), Vec::new(), BTreeSet::new());
    for tensor in file.tensors() {
        if let Some(kind) = names::other_kind(&tensor.name) {
            let name = shown(&tensor.name);
            return Err(Error::rejected(format!("tensor {name}: an adapter of LoRA expected, one of {kind} found"))
                .hint("merge it into its base with the program that trained it, and name the merged model"));
        }
        match names::read(&tensor.name) {
            None => unknown.push(tensor.name.as_str()),
            Some(name) => {
                adapters.extend(name.adapter.clone());
                named.push((name, tensor.clone()));
            }
        }
    }
    if !unknown.is_empty() {
        return Err(listing("not known in an adapter", &unknown));
    }
    if adapters.len() > 1 {
        let names: Vec<String> = adapters.iter().map(|name| shown(name).to_string()).collect();
        return Err(Error::rejected(format!("one adapter expected, {} found", names.join(" and ")))
            .hint("save each with `save_pretrained(selected_adapters=[…])`"));
    }
    Ok(named)
}

/// Where scales come from.
struct Scales {
    writer: Writer,
    config: Option<Config>,
    parts: BTreeMap<String, Config>,
    /// Modules whose scale nobody says.
    n_assumed: usize,
}

fn module(
    file: &Checkpoint,
    prefix: Option<&str>,
    path: String,
    mut partial: Partial,
    scales: &mut Scales,
) -> Result<Module> {
    let bad = |why: String| Error::rejected(format!("module {}: {why}", shown(&path)));
    let down = partial.take(&[Role::Down, Role::EmbeddingDown]);
    let up = partial.take(&[Role::Up, Role::EmbeddingUp]);
    let (Some((role, down)), Some((up_role, up))) = (down, up) else {
        return Err(bad(
            "two factors expected, A (`lora_A`, `lora_down`) and B (`lora_B`, `lora_up`), not both found".into()
        ));
    };
    let is_embedding = role == Role::EmbeddingDown;
    let mut one = |role| partial.take(&[role]).map(|(_, tensor)| tensor);
    let (middle, alpha, magnitude, up_bias) =
        (one(Role::Middle), one(Role::Alpha), one(Role::Magnitude), one(Role::UpBias));
    if is_embedding != (up_role == Role::EmbeddingUp) || !partial.tensors.is_empty() {
        return Err(bad("its tensors stand there twice, or do not belong together".into()));
    }
    let (rank, up_rank) = (down.shape.first().copied(), up.shape.get(1).copied());
    let rank = rank.filter(|rank| *rank > 0 && up_rank == Some(*rank));
    let rank = rank.ok_or_else(|| {
        bad(format!("factors of one rank expected, shapes {:?} and {:?} found", down.shape, up.shape))
    })?;
    let is_core = |middle: &Tensor| middle.shape.starts_with(&[rank, rank]);
    if middle.as_ref().is_some_and(|middle| !is_core(middle) || is_embedding) {
        return Err(bad(format!("a core of shape [{rank}, {rank}, …] expected in `lora_mid`")));
    }
    let part = match prefix {
        Some(prefix) => Some(prefix.to_owned()),
        None if scales.writer == Writer::Peft => None,
        None => path.split('.').next().filter(|word| PARTS.contains(word)).map(str::to_owned),
    };
    let alpha = alpha.map(|alpha| scalar(file, &alpha)).transpose()?;
    let scale = scales.of(&path, part.as_deref(), rank, alpha)?;
    Ok(Module {
        path,
        part,
        is_joined: prefix.is_some(),
        is_embedding,
        down,
        up,
        middle,
        magnitude,
        up_bias,
        rank,
        scale,
    })
}

impl Scales {
    fn of(&mut self, path: &str, part: Option<&str>, rank: usize, alpha: Option<f64>) -> Result<f64> {
        if let Some(config) = &self.config {
            return config.scale(path, rank);
        }
        if let Some((part, config)) = part.and_then(|part| Some((part, self.parts.get(part)?))) {
            let inside = path.strip_prefix(part).and_then(|rest| rest.strip_prefix('.')).unwrap_or(path);
            return config.scale(inside, rank);
        }
        match alpha {
            // kohya's trainer takes an alpha of 0 for the rank.
            Some(alpha) if alpha != 0.0 => Ok(alpha / rank as f64),
            _ => {
                self.n_assumed += 1;
                Ok(1.0)
            }
        }
    }
}

/// The one number in a tensor.
fn scalar(file: &Checkpoint, tensor: &Tensor) -> Result<f64> {
    let values = if tensor.n_elements() == 1 { super::values::read(file, tensor)? } else { Vec::new() };
    match values.first() {
        Some(value) if value.is_finite() => Ok(f64::from(*value)),
        _ => Err(Error::rejected(format!("tensor {}: one finite number expected", shown(&tensor.name)))),
    }
}

fn without_config(file: &Checkpoint) -> Error {
    Error::rejected(format!(
        "{}: an adapter without its `adapter_config.json`: its scale is unknown",
        file.path().display()
    ))
    .hint("name the folder that PEFT's `save_pretrained` wrote, or put the configuration beside the file")
}

/// `N tensors: WHY`, and their names.
pub(super) fn listing(why: &str, names: &[impl AsRef<str>]) -> Error {
    let n_more = names.len().saturating_sub(LISTED);
    let listed = names.iter().take(LISTED).map(|name| shown(name.as_ref()).to_string());
    let what = if names.len() == 1 { "tensor" } else { "tensors" };
    Error::rejected(format!("{} {what}: {why}", names.len()))
        .below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more"))))
}
