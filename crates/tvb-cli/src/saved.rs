//! The file of `tvb bench --save` in the user's cache folder. It is a help and no more: one that is missing, damaged or of another
//! program is passed over, with a warning where there is something to say.

use std::io::Read;
use std::path::{Path, PathBuf};
use tvb::cost::{SAVED_BYTES_MAX, Saved};
use tvb::progress::Progress;
use tvb::shown::shown_path;
use tvb::{Error, Result};

/// Names another folder than the user's: for tests.
const CACHE_VARIABLE: &str = "TVB_CACHE_DIR";

/// Where the file is; `None` where the system names no cache folder.
pub(crate) fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set(CACHE_VARIABLE) {
        return Some(folder.join("bench.json"));
    }
    // The bases that other programs take, without a crate for three lines. A relative XDG path is to be ignored.
    let folder = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        set("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(".cache")))
    };
    Some(folder?.join("tvb").join("bench.json"))
}

/// What was saved of this machine; nothing where there is nothing of use, with a warning where there is a file.
pub(crate) fn load(progress: &dyn Progress) -> Saved {
    let Some(path) = path() else { return Saved::none() };
    match read(&path) {
        Ok(saved) => saved.unwrap_or_else(Saved::none),
        Err(what) => {
            progress.warn(&format!("{}: {what}; passed over (`tvb bench --save` writes it anew)", shown_path(&path)));
            Saved::none()
        }
    }
}

fn read(path: &Path) -> std::result::Result<Option<Saved>, String> {
    let words = |error: std::io::Error| error.to_string();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(words(error)),
        // Opening a pipe would wait for whoever writes to it.
        Ok(found) if !found.is_file() => return Err("a file expected".to_owned()),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(words)?;
    file.take(SAVED_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(words)?;
    Saved::from_bytes(&bytes).map(Some)
}

/// Puts it in place of what is there, whole or not at all; answers where it is.
pub(crate) fn save(saved: &Saved) -> Result<PathBuf> {
    let path = path()
        .ok_or_else(|| Error::failed("no cache folder is known").hint(format!("set {CACHE_VARIABLE} to a folder")))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Error::io("making", folder, &error))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| Error::io("writing in", folder, &error))?;
    std::io::Write::write_all(&mut file, &saved.to_bytes()).map_err(|error| Error::io("writing", &path, &error))?;
    file.persist(&path).map_err(|error| Error::io("writing", &path, &error.error))?;
    Ok(path)
}
