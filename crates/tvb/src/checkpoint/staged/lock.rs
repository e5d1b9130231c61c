//! The lock on an output: a file whose lock the system releases when the process dies.

use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Held while an output is being written; removes its file when dropped.
#[derive(Debug)]
pub(super) struct OutputLock {
    path: PathBuf,
    _file: File,
}

impl OutputLock {
    /// Takes the lock, whatever file a dead process may have left.
    ///
    /// # Errors
    /// Failed when a living process holds it, naming the process where it is known.
    pub(super) fn acquire(path: &Path, target: &Path) -> Result<OutputLock> {
        let io = |error: std::io::Error| Error::io("locking", path, &error);
        loop {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(target, &mut file)),
                // A file system without locks: better to work than to refuse.
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
            // Between our open and our lock the holder before us may have removed the file, and a third may have made
            // a new one: only the lock on the file that has the name counts.
            if !is_named(&file, path) {
                continue;
            }
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            return Ok(OutputLock { path: path.to_owned(), _file: file });
        }
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // Removed before it is unlocked, see `acquire`.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn in_use(target: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let _ = file.take(20).read_to_string(&mut text);
    let process = match text.trim().parse::<u32>() {
        Ok(id) => format!(" (process {id})"),
        Err(_) => String::new(),
    };
    Error::failed(format!("{}: another run is writing this output{process}", target.display()))
        .hint("wait for it, or choose another output")
}

#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_named(_file: &File, _path: &Path) -> bool {
    // An open file cannot be removed there.
    true
}
