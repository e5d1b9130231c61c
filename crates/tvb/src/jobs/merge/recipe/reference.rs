//! What a recipe calls a model: a path beside the recipe, or a name on the Hugging Face hub; and where that lies.

use super::setting::cut;
use super::yaml::{Node, Value};
use crate::checkpoint::{names, read_capped};
use crate::error::{Error, Result};
use crate::jobs::merge::parameters::Wrong;
use crate::shown::{shown, shown_path};
use std::path::{Component, Path, PathBuf};

/// Bytes of a ref in the hub's cache.
const REF_BYTES_MAX: u64 = 256;

/// A model as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// A path, or a name on the hub; of a recipe over a basis, a task.
    pub written: String,
    /// A revision on the hub.
    pub revision: Option<String>,
    /// A LoRA adapter that is laid over it.
    pub adapter: Option<Box<Reference>>,
}

/// Where models are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// What relative paths are relative to: the recipe's folder.
    pub folder: PathBuf,
    /// The hub's cache, where there is one.
    pub hub_cache: Option<PathBuf>,
    /// Whether relative paths may leave the folder.
    pub may_leave: bool,
}

impl Reference {
    /// A path that was typed, or a task's name.
    pub fn new(written: impl Into<String>) -> Reference {
        Reference { written: written.into(), revision: None, adapter: None }
    }

    /// Reads `MODEL`, `MODEL@REVISION`, `MODEL+ADAPTER`, or a map of `model` and `lora`.
    pub(super) fn read(node: &Node, place: &str) -> Result<Reference, Wrong> {
        if matches!(node.value, Value::Map(_)) {
            return Reference::read_map(node, place);
        }
        let word = node.word(place, "a model's path or name")?;
        let at = |wrong: &str| node.wrong(place, wrong);
        let (model, adapter) = match word.split('+').collect::<Vec<_>>()[..] {
            [model] => (model, None),
            [model, adapter] => (model, Some(adapter)),
            _ => return Err(at("MODEL, or MODEL+ADAPTER,")),
        };
        let read = |word: &str| versioned(word).ok_or_else(|| at("PATH, or NAME@REVISION,"));
        let adapter = adapter.map(read).transpose()?.map(Box::new);
        Ok(Reference { adapter, ..read(model)? })
    }

    fn read_map(node: &Node, place: &str) -> Result<Reference, Wrong> {
        let (mut model, mut adapter) = (None, None);
        for (key, node) in node.map(place, "a model")? {
            let place = format!("{place}.{key}");
            match key {
                "model" => model = Some(path_of(node, &place)?),
                "lora" => adapter = Some(Box::new(path_of(node, &place)?)),
                other => return Err(unknown_key(node, &place, other, "model, lora")),
            }
        }
        let model = model.ok_or_else(|| node.wrong(&format!("{place}.model"), "a path or name"))?;
        Ok(Reference { adapter, ..model })
    }

    /// The file or folder that is meant.
    ///
    /// # Errors
    /// Rejected: a relative path that leaves the folder, a name that is neither a path nor in the hub's cache, a revision
    /// that is not there.
    pub fn find(&self, places: &Places) -> Result<PathBuf> {
        let written = Path::new(&self.written);
        if written.is_relative() && !places.may_leave && leaves(written) {
            return Err(Error::rejected(format!(
                "{}: a path that stays in the recipe's folder expected, one that leaves it found",
                shown(&self.written)
            ))
            .hint("--allow-outside reads it all the same; an absolute path is taken as it is"));
        }
        if let Some(path) = self.beside(places) {
            return match &self.revision {
                None => Ok(path),
                Some(revision) => Err(Error::rejected(format!(
                    "{}: a revision ({}) is of a model on the hub, and this is a path",
                    shown_path(&path),
                    shown(revision)
                ))),
            };
        }
        if let (true, Some(cache)) = (is_hub_id(&self.written), &places.hub_cache) {
            let model = cache.join(format!("models--{}", self.written.replace('/', "--")));
            if model.is_dir() {
                return self.revision.as_ref().map_or(Ok(model.clone()), |revision| revision_of(&model, revision));
            }
        }
        let path = places.folder.join(written);
        let error = Error::rejected(format!("{}: no model is there", shown_path(&path)));
        Err(match () {
            () if written.exists() => error.hint("paths in a recipe are relative to its own folder"),
            () if is_hub_id(&self.written) => {
                let places = "neither beside the recipe nor in the hub's cache";
                error.hint(format!("{places}; `hf download {}` brings a model of the hub", self.written))
            }
            () => error.hint("check the path"),
        })
    }

    /// The path in the folder, with the key behind it where it has one; `None` where nothing is there.
    pub(super) fn beside(&self, places: &Places) -> Option<PathBuf> {
        let path = places.folder.join(&self.written);
        let file = self.written.rsplit_once("::").map(|(file, _)| places.folder.join(file));
        (path.exists() || file.is_some_and(|file| file.exists())).then_some(path)
    }

    /// As mergekit writes it.
    pub fn in_words(&self) -> String {
        let mut words = self.written.clone();
        if let Some(revision) = &self.revision {
            words = format!("{words}@{revision}");
        }
        match &self.adapter {
            Some(adapter) => format!("{words}+{}", adapter.in_words()),
            None => words,
        }
    }
}

/// `PATH` or `NAME@REVISION`.
fn versioned(word: &str) -> Option<Reference> {
    let (written, revision) = match word.split('@').collect::<Vec<_>>()[..] {
        [written] => (written, None),
        [written, revision] if !revision.is_empty() => (written, Some(revision.to_owned())),
        _ => return None,
    };
    (!written.is_empty()).then(|| Reference { written: written.to_owned(), revision, adapter: None })
}

fn path_of(node: &Node, place: &str) -> Result<Reference, Wrong> {
    let Value::Map(_) = node.value else {
        let word = node.word(place, "a path or name")?;
        return versioned(word).ok_or_else(|| node.wrong(place, "PATH, or NAME@REVISION,"));
    };
    let (mut path, mut revision) = (None, None);
    for (key, node) in node.map(place, "a path")? {
        let place = format!("{place}.{key}");
        match key {
            "path" => path = Some(node.word(&place, "a path or name")?.to_owned()),
            "revision" => revision = Some(node.word(&place, "a revision")?.to_owned()),
            other => return Err(unknown_key(node, &place, other, "path, revision")),
        }
    }
    let written = path.ok_or_else(|| node.wrong(&format!("{place}.path"), "a path or name"))?;
    Ok(Reference { written, revision, adapter: None })
}

fn unknown_key(node: &Node, place: &str, key: &str, known: &str) -> Wrong {
    let wrong = Wrong::new(format!("line {}: {}: not read here", node.line, cut(place)));
    match key {
        "override_architecture" => wrong.hint("tensors are matched by their names, whatever the architecture"),
        _ => wrong.hint(format!("known keys: {known}")),
    }
}

/// Whether a relative path goes above where it starts.
fn leaves(path: &Path) -> bool {
    let mut depth = 0_usize;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    false
}

/// `ORG/NAME` or `NAME`, in the characters that the hub takes.
fn is_hub_id(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !part.contains("--")
    };
    let is_file = names::WEIGHT_ENDINGS.iter().any(|ending| text.ends_with(ending));
    text.len() <= 200 && !is_file && text.split('/').count() <= 2 && text.split('/').all(is_name)
}

/// A revision's folder in the cache: by its own name, or by that of a branch.
fn revision_of(model: &Path, revision: &str) -> Result<PathBuf> {
    let is_name = |text: &str| {
        !text.is_empty()
            && !text.contains("..")
            && !text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
    };
    let missing = || {
        Error::rejected(format!("{}: no revision {} in the hub's cache", shown_path(model), shown(revision)))
            .hint("download that revision of the model")
    };
    if !is_name(revision) {
        return Err(missing());
    }
    let own = model.join("snapshots").join(revision);
    if own.is_dir() {
        return Ok(own);
    }
    let branch = model.join("refs").join(revision);
    if !branch.is_file() {
        return Err(missing());
    }
    let text = String::from_utf8_lossy(&read_capped(&branch, "a ref of the hub's cache", REF_BYTES_MAX)?).into_owned();
    let commit = text.trim();
    let folder = model.join("snapshots").join(commit);
    let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_commit && folder.is_dir() { Ok(folder) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::merge::recipe::yaml::parse;
    use std::fs;

    fn read(text: &str) -> Result<Reference, Wrong> {
        Reference::read(&parse(text).unwrap(), "base_model")
    }

    #[test]
    fn models_are_read_in_every_form() {
        let plain = Reference::new("a/b");
        assert_eq!(read("a/b").unwrap(), plain);
        let versioned = Reference { revision: Some("main".into()), ..plain.clone() };
        assert_eq!(read("a/b@main").unwrap(), versioned);
        let adapted = Reference { adapter: Some(Box::new(Reference::new("c"))), ..versioned };
        assert_eq!((read("a/b@main+c").unwrap(), adapted.in_words()), (adapted.clone(), "a/b@main+c".to_owned()));
        assert_eq!(read("{model: {path: a/b, revision: main}, lora: c}").unwrap(), adapted);
        assert_eq!(read("{model: {path: 'x+y@z'}}").unwrap().written, "x+y@z");
        for text in [
            "a+b+c",
            "a@b@c",
            "'@b'",
            "a+",
            "[a]",
            "{lora: a}",
            "{model: {pth: a}}",
            "{model: a, override_architecture: x}",
            "~",
        ] {
            let error = read(text).unwrap_err().rejected();
            assert!(error.message().contains("base_model"), "{text}: {error}");
        }
    }

    #[test]
    fn paths_stay_in_the_folder_unless_they_may_leave() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("recipes");
        fs::create_dir_all(folder.join("in")).unwrap();
        fs::create_dir(top.path().join("out")).unwrap();
        let places = Places { folder: folder.clone(), ..Places::default() };
        assert_eq!(Reference::new("in/../in").find(&places).unwrap(), folder.join("in/../in"));
        for leaving in ["../out", "in/../../out", ".."] {
            let error = Reference::new(leaving).find(&places).unwrap_err();
            assert!(error.message().contains("one that leaves it found"), "{error}");
            assert!(error.hint_text().unwrap().contains("--allow-outside"));
            assert_eq!(error.kind(), crate::ErrorKind::Rejected);
        }
        let anywhere = Places { may_leave: true, ..places.clone() };
        assert!(Reference::new("../out").find(&anywhere).is_ok());
        let absolute = top.path().join("out").to_str().unwrap().to_owned();
        assert!(Reference::new(absolute).find(&places).is_ok());
        let error = Reference { revision: Some("main".into()), ..Reference::new("in") }.find(&places).unwrap_err();
        assert!(error.message().contains("a revision"), "{error}");
    }

    #[test]
    fn names_of_the_hub_are_found_in_its_cache() {
        let top = tempfile::tempdir().unwrap();
        let model = top.path().join("models--org--name");
        fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        fs::create_dir_all(model.join("refs/pr")).unwrap();
        fs::write(model.join("refs/pr/1"), "abc\n").unwrap();
        fs::write(model.join("refs/bad"), "../..").unwrap();
        let places = Places { folder: "/nowhere".into(), hub_cache: Some(top.path().into()), may_leave: false };
        let find = |revision: Option<&str>| {
            Reference { revision: revision.map(str::to_owned), ..Reference::new("org/name") }.find(&places)
        };
        assert_eq!(find(None).unwrap(), model);
        assert_eq!(find(Some("abc")).unwrap(), model.join("snapshots/abc"));
        assert_eq!(find(Some("pr/1")).unwrap(), model.join("snapshots/abc"));
        for missing in ["xyz", "..", "../abc", "/abc", "bad"] {
            assert!(find(Some(missing)).unwrap_err().message().contains("no revision"), "{missing}");
        }
        let error = Reference::new("org/other").find(&places).unwrap_err();
        assert!(error.hint_text().unwrap().contains("hf download org/other"), "{error}");
        assert_eq!(Reference::new("no such/thing").find(&places).unwrap_err().hint_text(), Some("check the path"));
    }
}
