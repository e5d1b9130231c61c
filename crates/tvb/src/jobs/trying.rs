//! What trying many candidates needs: those that are formed and evaluated at once hear of the first failure, and what was tried is
//! removed.

use crate::error::{Error, Result};
use crate::progress::Progress;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hears of the first failure as well as of the user, and keeps the many short passes off the display.
pub(super) struct Watched<'a> {
    progress: &'a dyn Progress,
    is_stopped: AtomicBool,
}

impl<'a> Watched<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Watched<'a> {
        Watched { progress, is_stopped: AtomicBool::new(false) }
    }

    /// From now on everybody who listens is to stop.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

impl Progress for Watched<'_> {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, line: &str) {
        self.progress.note(line);
    }
    fn warn(&self, line: &str) {
        self.progress.warn(line);
    }
    fn cancelled(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed) || self.progress.cancelled()
    }
}

/// Removes a file or a folder that a job wrote.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| Error::io("removing", path, &error))
}
