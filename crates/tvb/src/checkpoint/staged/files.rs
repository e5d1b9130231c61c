//! The few steps on files and folders that staging consists of.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The folder that `target` lies in.
pub(super) fn parent(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("/"))
}

/// `NAME` + `end` in the same folder.
pub(super) fn sibling(target: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(target.file_name().unwrap_or_default());
    name.push(end);
    target.with_file_name(name)
}

/// Removes a file, a link or a whole folder; a link is never followed.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until a file, or everything below a folder, is on the disk.
pub(super) fn sync_all(path: &Path) -> Result<()> {
    let io = |error: std::io::Error| Error::io("writing", path, &error);
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io)? {
            sync_all(&entry.map_err(io)?.path())?;
        }
        sync_folder(path);
        Ok(())
    } else {
        File::open(path).and_then(|file| file.sync_all()).map_err(io)
    }
}

/// Makes renames in a folder last. Some systems cannot sync a folder; then they need it not.
pub(super) fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = path;
}
