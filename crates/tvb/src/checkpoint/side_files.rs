//! What lies beside the weights of a folder and goes into an edited copy of it: configuration and tokenizer files.
//!
//! A folder may come from others, so a link in it may not lead out of it: what lies elsewhere on the disk would be copied into
//! a checkpoint that is then given away. A file is opened once, and what was checked is what is copied.

use super::index::real_place;
use super::names::{CONFIG, SIDE_FILES};
use super::shown::shown;
use super::{Dtype, staged};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A configuration larger than this is something else.
pub(super) const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// A tokenizer larger than this is something else.
const SIDE_FILE_BYTES_MAX: u64 = 1 << 30;

/// The files beside the weights that there are in `folder`.
pub(super) fn paths(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let all = SIDE_FILES.into_iter().chain([CONFIG]).map(|name| folder.join(name));
    all.filter(|path| std::fs::symlink_metadata(path).is_ok())
}

/// Copies what lies beside the weights in `from` into the new folder `to`, `config.json` with its type brought up to `dtype`.
///
/// # Errors
/// Rejected: a file that is none or too large, or a link that leads out of the folder. Failed: the system cannot read or
/// write.
pub(super) fn copy(from: &Path, to: &Path, dtype: Option<Dtype>) -> Result<()> {
    for name in SIDE_FILES {
        let Some((mut file, source)) = open(from, name, SIDE_FILE_BYTES_MAX)? else { continue };
        let target = to.join(name);
        let mut copied = File::create_new(&target).map_err(|error| Error::io("creating", &target, &error))?;
        let n_bytes = std::io::copy(&mut Read::by_ref(&mut file).take(SIDE_FILE_BYTES_MAX), &mut copied)
            .map_err(|error| Error::io("copying", &source, &error))?;
        // It grew while it was copied.
        if n_bytes == SIDE_FILE_BYTES_MAX && file.read(&mut [0]).is_ok_and(|n| n > 0) {
            return Err(too_large(&source, SIDE_FILE_BYTES_MAX, "more"));
        }
    }
    if let Some((file, source)) = open(from, CONFIG, CONFIG_BYTES_MAX)? {
        let mut text = Vec::new();
        let read = file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|error| Error::io("reading", &source, &error))?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(too_large(&source, CONFIG_BYTES_MAX, "more"));
        }
        let target = to.join(CONFIG);
        let written = std::fs::write(&target, with_dtype(&text, dtype));
        written.map_err(|error| Error::io("writing", &target, &error))?;
    }
    Ok(())
}

/// Sets keys of the configuration in a new folder that this program fills, or takes them out where they have no value.
///
/// # Errors
/// Failed: the system cannot read or write.
pub(super) fn set_config(folder: &Path, keys: &[(&str, Option<serde_json::Value>)]) -> Result<()> {
    let path = folder.join(CONFIG);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("reading", &path, &error)),
    };
    let Ok(serde_json::Value::Object(mut config)) = serde_json::from_slice(&text) else { return Ok(()) };
    for (key, value) in keys {
        match value {
            Some(value) => config.insert((*key).to_owned(), value.clone()),
            None => config.remove(*key),
        };
    }
    let mut changed = serde_json::to_vec_pretty(&config).unwrap_or(text);
    changed.push(b'\n');
    std::fs::write(&path, changed).map_err(|error| Error::io("writing", &path, &error))
}

/// Opens a file of the folder, where there is one of that name.
fn open(folder: &Path, name: &str, max_bytes: u64) -> Result<Option<(File, PathBuf)>> {
    let source = folder.join(name);
    if std::fs::symlink_metadata(&source).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let real = real_place(folder, name)?;
    let io = |error: std::io::Error| Error::io("reading", &source, &error);
    // Whoever puts a link or a pipe there now finds that neither is followed nor waited for.
    let file = staged::read_itself(&real).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    if !found.is_file() {
        return Err(Error::rejected(format!("{}: expected a regular file", source.display())));
    }
    if found.len() > max_bytes {
        return Err(too_large(&source, max_bytes, &found.len().to_string()));
    }
    Ok(Some((file, source)))
}

fn too_large(path: &Path, max_bytes: u64, found: &str) -> Error {
    let name = shown(&path.file_name().unwrap_or_default().to_string_lossy());
    Error::rejected(format!("{}: at most {max_bytes} bytes expected of {name}, {found} found", path.display()))
        .hint("take it out of the base's folder if the edited copy needs none")
}

/// `config.json` with its `dtype` or `torch_dtype` changed; as it is where it names none or cannot be read.
fn with_dtype(text: &[u8], dtype: Option<Dtype>) -> Vec<u8> {
    let name = match dtype {
        Some(Dtype::F64) => "float64",
        Some(Dtype::F32) => "float32",
        Some(Dtype::F16) => "float16",
        Some(Dtype::Bf16) => "bfloat16",
        _ => return text.to_vec(),
    };
    let Ok(serde_json::Value::Object(mut config)) = serde_json::from_slice(text) else { return text.to_vec() };
    let keys: Vec<&str> = ["dtype", "torch_dtype"].into_iter().filter(|key| config.contains_key(*key)).collect();
    for key in if keys.is_empty() { vec!["torch_dtype"] } else { keys } {
        config.insert(key.to_owned(), name.into());
    }
    let mut changed = serde_json::to_vec_pretty(&config).unwrap_or_else(|_| text.to_vec());
    changed.push(b'\n');
    changed
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::os::unix::fs::symlink;

    fn copied(top: &Path, from: &Path) -> Result<Vec<String>> {
        let to = tempfile::tempdir_in(top).unwrap();
        copy(from, to.path(), None)?;
        let names = std::fs::read_dir(to.path()).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn links_out_of_the_folder_are_refused_and_a_hub_cache_is_not() {
        for name in ["tokenizer.json", "vocab.txt", "config.json"] {
            let top = tempfile::tempdir().unwrap();
            let snapshot = top.path().join("models--x/snapshots/0123");
            std::fs::create_dir_all(&snapshot).unwrap();
            std::fs::create_dir_all(top.path().join("models--x/blobs")).unwrap();
            std::fs::write(top.path().join("models--x/blobs/abc"), "{}").unwrap();
            std::fs::write(top.path().join("secret"), "secret").unwrap();
            symlink("../../blobs/abc", snapshot.join(name)).unwrap();
            assert_eq!(copied(top.path(), &snapshot).unwrap(), [name]);
            for target in ["../../../secret", "/etc/passwd", "nowhere", "../../blobs/../../secret"] {
                std::fs::remove_file(snapshot.join(name)).unwrap();
                symlink(target, snapshot.join(name)).unwrap();
                let error = copied(top.path(), &snapshot).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Rejected, "{name} -> {target}: {error}");
                assert!(error.message().contains(name) && error.hint_text().is_some(), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let from = top.path().join("hf");
        std::fs::create_dir(&from).unwrap();
        for (name, bytes) in [("config.json", CONFIG_BYTES_MAX + 1), ("tokenizer.json", SIDE_FILE_BYTES_MAX + 1)] {
            let file = File::create(from.join(name)).unwrap();
            file.set_len(bytes).unwrap();
            let error = copied(top.path(), &from).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.message().contains("at most"), "{error}");
            std::fs::remove_file(from.join(name)).unwrap();
            std::fs::create_dir(from.join(name)).unwrap();
            assert_eq!(copied(top.path(), &from).unwrap_err().kind(), ErrorKind::Rejected);
            std::fs::remove_dir(from.join(name)).unwrap();
            // It would be waited for.
            let pipe = std::process::Command::new("mkfifo").arg(from.join(name)).status();
            assert!(pipe.is_ok_and(|status| status.success()));
            assert_eq!(copied(top.path(), &from).unwrap_err().kind(), ErrorKind::Rejected);
            std::fs::remove_file(from.join(name)).unwrap();
        }
        assert_eq!(copied(top.path(), &from).unwrap(), [] as [&str; 0]);
    }
}
