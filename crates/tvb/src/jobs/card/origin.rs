//! What a base is to the Hugging Face hub: its name there, the library that loads it, its licence.

use super::front_matter::{self, Value};
use crate::checkpoint::{Checkpoint, names, read_capped_within, resolve_inside};
use crate::error::{Error, Result};
use crate::shown::shown;
use std::path::Path;

/// A card larger than this is not looked at.
const CARD_BYTES_MAX: u64 = 4 << 20;
/// A configuration larger than this is not looked at.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Characters of a name on the hub.
const ID_CHARS_MAX: usize = 96;

/// What is known of a base.
#[derive(Debug)]
pub(super) struct Origin {
    /// Its name on the hub.
    pub id: Option<String>,
    /// The library that loads it.
    pub library: Option<String>,
    /// What else its own card says, by key.
    pub fields: Vec<(&'static str, Value)>,
}

impl Origin {
    /// Of a base on disk. `id` is what the user says that its name is. What cannot be read is left out: the card is no
    /// reason to refuse an edit.
    pub(super) fn of(base: &Checkpoint, id: Option<&str>) -> Origin {
        let folder = Folder { path: base.path(), base };
        let id =
            id.map(str::to_owned).or_else(|| base.hub_name().filter(|id| is_id(id))).or_else(|| id_in_config(&folder));
        let mut fields = front_matter::read(&folder.text("README.md", CARD_BYTES_MAX).unwrap_or_default());
        let own = fields.iter().position(|(key, _)| *key == "library_name").map(|at| fields.remove(at).1);
        let library = match own {
            Some(Value::One(name)) => Some(name),
            _ => library_of(&folder).map(str::to_owned),
        };
        Origin { id, library, fields }
    }
}

/// The folder of the base's weights; one that is a file has none.
struct Folder<'a> {
    path: &'a Path,
    base: &'a Checkpoint,
}

impl Folder<'_> {
    fn has(&self, name: &str) -> bool {
        !self.base.is_in_memory() && self.path.join(name).is_file()
    }

    /// A small text beside the weights, if it can be had. No link out of the folder is followed.
    fn text(&self, name: &str, max_bytes: u64) -> Option<String> {
        if !self.has(name) {
            return None;
        }
        let path = resolve_inside(self.path, name).ok()?;
        let (bytes, _charge) = read_capped_within(&path, "a model card", max_bytes, self.base.budget()).ok()?;
        String::from_utf8(bytes).ok()
    }

    fn config(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.text(names::CONFIG, CONFIG_BYTES_MAX)?).ok()
    }
}

/// Who loads such a folder, by what lies in it.
fn library_of(folder: &Folder<'_>) -> Option<&'static str> {
    if folder.base.is_in_memory() {
        return None;
    }
    let of_pipeline = folder.path.parent().is_some_and(|above| above.join(names::PIPELINE).is_file());
    if folder.has(names::PIPELINE) || of_pipeline {
        return Some("diffusers");
    }
    if folder.has("open_clip_config.json") {
        return Some("open_clip");
    }
    if folder.has(names::ADAPTER_CONFIG) {
        return Some("peft");
    }
    if folder.has("modules.json") {
        return Some("sentence-transformers");
    }
    let config = folder.config()?;
    let has = |key: &str| config.get(key).is_some();
    match () {
        () if has("_diffusers_version") => Some("diffusers"),
        () if has("architectures") || has("transformers_version") => Some("transformers"),
        () => None,
    }
}

/// ORG/NAME that the configuration says the model was loaded from. A single word there may be a folder of anybody's.
fn id_in_config(folder: &Folder<'_>) -> Option<String> {
    let config = folder.config()?;
    let id = config.get("_name_or_path")?.as_str()?;
    let is_local = Path::new(id).exists() || folder.path.join("..").join(id).exists();
    (id.contains('/') && is_id(id) && !is_local).then(|| id.to_owned())
}

/// Whether the hub takes a text for a model's name, as huggingface_hub's own validator has it.
fn is_id(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() <= 2
        && parts.iter().all(|part| is_part(part))
        && text.len() <= ID_CHARS_MAX
        && !text.contains("--")
        && !text.contains("..")
        && !text.ends_with(".git")
}

/// Whether a text can be the name of a model on the Hugging Face hub: `NAME` or `ORG/NAME`.
///
/// # Errors
/// Usage: it cannot.
pub fn check_model_id(text: &str) -> Result<()> {
    if is_id(text) {
        return Ok(());
    }
    Err(Error::usage(format!("a model's name on the hub expected, such as ORG/NAME, {} found", shown(text)))
        .hint("letters, digits, `-`, `_` and `.`, at most one `/`, no `--` and no `..`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_hub() {
        for id in ["gpt2", "openai/clip-vit-base-patch32", "a/b.c_d", "0/1"] {
            assert!(is_id(id), "{id}");
        }
        let long = "x".repeat(ID_CHARS_MAX + 1);
        for id in
            ["", "/", "a/", "/b", "a/b/c", "a b", "a--b", "a..b", "-a", "a-", ".a/b", "a/b.git", "ä/b", "../x", &long]
        {
            assert!(!is_id(id), "{id}");
            assert!(check_model_id(id).is_err(), "{id}");
        }
    }
}
