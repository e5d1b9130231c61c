//! A folder that all parts of a job write their rows to, each where they belong: on a file system that all machines share nothing
//! is copied when the parts are joined.
//!
//! The folder and its files are made by whichever part is first, and says in `job.key` of which job they are. What several runs
//! of one part write is the same, so a part that is run again needs no care.

use crate::checkpoint::read_capped;
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;

/// The file that says of which job a folder is.
const KEY: &str = "job.key";
const MAGIC: &str = "tvb-rows 1";
/// Larger files are not ours.
const KEY_BYTES_MAX: u64 = 256;

/// Makes `folder` one for the rows of a job, where it is not there yet.
///
/// # Errors
/// Rejected: it is one of another job, or holds something else. Failed: the system refuses.
pub fn open(folder: &Path, job: Digest) -> Result<()> {
    let io = |error: std::io::Error| Error::io("creating", folder, &error);
    if std::fs::metadata(folder).is_ok_and(|found| !found.is_dir()) {
        return Err(Error::rejected(format!("{}: a folder for rows expected, a file found", folder.display()))
            .hint("choose another --into"));
    }
    std::fs::create_dir_all(folder).map_err(io)?;
    let text = format!("{MAGIC}\n{job}\n");
    let key = folder.join(KEY);
    if std::fs::symlink_metadata(&key).is_err() {
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            // Another part may be about to write the key.
            if !name.to_string_lossy().starts_with(KEY) {
                return Err(Error::rejected(format!(
                    "{}: an empty folder for rows expected, {} found in it",
                    folder.display(),
                    crate::shown::shown(&name.to_string_lossy())
                ))
                .hint("choose a new folder for --into"));
            }
        }
        put_once(&key, text.as_bytes())?;
    }
    let found = read_capped(&key, "the key of a folder of rows", KEY_BYTES_MAX)?;
    if found == text.as_bytes() {
        return Ok(());
    }
    Err(Error::rejected(format!("{}: holds rows of another job", folder.display()))
        .hint("give each job a folder of its own with --into, the same for all of its parts"))
}

/// Writes a file that is there whole or not at all; one that is there already stays.
fn put_once(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |error: std::io::Error| Error::io("writing", path, &error);
    let mut new = path.as_os_str().to_owned();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    new.push(format!(".{}-{}", std::process::id(), since.as_nanos()));
    let mut file = std::fs::File::create_new(&new).map_err(io)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A link never replaces what is there; where a file system has none, a name that appeared meanwhile is one of this job, or is
    // found to be another's.
    let put = written.and_then(|()| match std::fs::hard_link(&new, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) if std::fs::symlink_metadata(path).is_err() => std::fs::rename(&new, path),
        _ => Ok(()),
    });
    let _ = std::fs::remove_file(&new);
    put.map_err(io)
}

/// Lets files that all parts have written appear in `folder` too: by a second name where the file system has such, else by a
/// copy. They stay where they are until the job is complete.
///
/// # Errors
/// Rejected: one is missing. Failed: the system refuses.
pub fn take_over<'n>(shared: &Path, names: impl IntoIterator<Item = &'n OsStr>, folder: &Path) -> Result<()> {
    for name in names {
        let (from, to) = (shared.join(name), folder.join(name));
        if !std::fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
            return Err(not_as_left(shared));
        }
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).map_err(|error| Error::io("copying", &from, &error))?;
        }
    }
    Ok(())
}

/// What is said of files that are missing or changed.
pub fn not_as_left(shared: &Path) -> Error {
    Error::rejected(format!("{}: its files are not as the parts left them", shared.display()))
        .hint("run the parts again, into another folder")
}

/// Removes a folder of rows whose job is complete, but for what no part has written. What cannot be removed stays: the job has
/// been done.
pub fn remove(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if crate::checkpoint::names::is_atom(&name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Last, so that what is left is known as a job's.
    let _ = std::fs::remove_file(folder.join(KEY));
    let _ = std::fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_of_one_job() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("a/rows");
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        open(&folder, one).unwrap();
        open(&folder, one).unwrap();
        let error = open(&folder, other).unwrap_err();
        assert!(error.message().contains("rows of another job"), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::write(folder.join("atom-00.safetensors"), b"rows").unwrap();
        remove(&folder);
        assert!(!folder.exists());

        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("mine"), b"").unwrap();
        assert!(open(&folder, one).unwrap_err().message().contains("`mine` found in it"));
        std::fs::write(folder.join(KEY), b"tvb-rows 1\n").unwrap();
        assert!(open(&folder, one).is_err(), "half a key is none");
        assert!(open(&folder.join("mine"), one).unwrap_err().message().contains("a file found"));
    }
}
