//! The Hugging Face hub's cache on the disk: `models--ORG--NAME`, with `refs/BRANCH` and `snapshots/REVISION`.

use super::Checkpoint;
use super::capped::read_capped;
use super::names::hub_name;
use super::shown::shown;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A ref holds the name of a revision.
const REF_BYTES_MAX: u64 = 256;
/// More revisions than that are not looked at.
const N_REVISIONS_MAX: usize = 10_000;
/// How many a message lists.
const N_LISTED: usize = 8;

impl Checkpoint {
    /// The name on the Hugging Face hub, `ORG/NAME`, where the checkpoint lies in the hub's cache.
    pub fn hub_name(&self) -> Option<String> {
        if self.is_in_memory() {
            return None;
        }
        let whole = std::path::absolute(self.path()).ok()?;
        let of_path = |path: &Path| path.ancestors().find_map(|above| hub_name(above.file_name()?.to_str()?));
        of_path(&whole).or_else(|| of_path(&whole.canonicalize().ok()?))
    }
}

/// The folder that is meant by a model's folder in the cache, or by its `snapshots`: the revision that `refs/main` names, or the
/// only one. Any other folder means itself.
///
/// # Errors
/// Rejected: none, or several of which none is `main`.
pub(crate) fn snapshot(path: &Path) -> Result<PathBuf> {
    let is_model = |folder: &Path| {
        let name = folder.file_name().and_then(|name| name.to_str());
        folder.join("snapshots").is_dir()
            && (name.is_some_and(|name| hub_name(name).is_some()) || folder.join("refs").is_dir())
    };
    let above = path.parent().filter(|_| path.file_name().is_some_and(|name| name == "snapshots"));
    let Some(model) = [Some(path), above].into_iter().flatten().find(|folder| is_model(folder)) else {
        return Ok(path.to_owned());
    };
    let snapshots = model.join("snapshots");
    let main = model.join("refs/main");
    if main.is_file() {
        let text = read_capped(&main, "a ref of the hub's cache", REF_BYTES_MAX)?;
        let revision = String::from_utf8_lossy(text.trim_ascii()).into_owned();
        let is_name = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_name {
            return Err(Error::rejected(format!(
                "{}: a revision expected, {} found",
                main.display(),
                shown(&revision)
            )));
        }
        if snapshots.join(&revision).is_dir() {
            return Ok(snapshots.join(revision));
        }
    }
    let io = |error: std::io::Error| Error::io("reading", &snapshots, &error);
    let mut revisions = Vec::new();
    for entry in std::fs::read_dir(&snapshots).map_err(io)?.take(N_REVISIONS_MAX) {
        let revision = entry.map_err(io)?.path();
        if revision.is_dir() {
            revisions.push(revision);
        }
    }
    revisions.sort();
    match &revisions[..] {
        [only] => Ok(only.clone()),
        [] => {
            Err(Error::rejected(format!("{}: no revision in it", snapshots.display())).hint("download the model again"))
        }
        [first, ..] => {
            let n_more = revisions.len().saturating_sub(N_LISTED);
            let more = (n_more > 0).then(|| format!("… and {n_more} more"));
            let names = revisions
                .iter()
                .take(N_LISTED)
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            Err(Error::rejected(format!("{}: {} revisions, and none is main", snapshots.display(), revisions.len()))
                .below(names.chain(more))
                .hint(format!("name one, for example {}", first.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_cache_are_named_after_models() {
        let cases = [
            ("models--openai--clip-vit-base-patch32", Some("openai/clip-vit-base-patch32")),
            ("models--gpt2", Some("gpt2")),
            ("models--a--b--c", None),
            ("models--", None),
            ("models--a--..", None),
            ("models--a b", None),
            ("datasets--a--b", None),
            ("model", None),
        ];
        for (folder, expected) in cases {
            assert_eq!(hub_name(folder).as_deref(), expected, "{folder}");
        }
    }

    #[test]
    fn a_model_of_the_cache_is_its_main_or_only_revision() {
        let top = tempfile::tempdir().unwrap();
        let model = top.path().join("models--org--name");
        let snapshots = model.join("snapshots");
        std::fs::create_dir_all(&snapshots).unwrap();
        assert!(snapshot(&model).unwrap_err().message().contains("no revision"));
        std::fs::create_dir(snapshots.join("aaa")).unwrap();
        for path in [&model, &snapshots, &snapshots.join("aaa")] {
            assert_eq!(snapshot(path).unwrap(), snapshots.join("aaa"));
        }
        std::fs::create_dir(snapshots.join("bbb")).unwrap();
        let error = snapshot(&model).unwrap_err();
        assert!(error.message().contains("2 revisions") && error.message().contains("\n  aaa\n  bbb"), "{error}");
        assert!(error.hint_text().unwrap().contains("aaa"));

        std::fs::create_dir(model.join("refs")).unwrap();
        for (text, expected) in
            [("bbb", Some("bbb")), ("bbb\n", Some("bbb")), ("../x", None), ("", None), ("ccc", None)]
        {
            std::fs::write(model.join("refs/main"), text).unwrap();
            assert_eq!(snapshot(&model).ok(), expected.map(|revision| snapshots.join(revision)), "{text:?}");
        }
        // A folder that only happens to be called like one.
        let other = top.path().join("snapshots");
        std::fs::create_dir(&other).unwrap();
        assert_eq!(snapshot(&other).unwrap(), other);
    }
}
