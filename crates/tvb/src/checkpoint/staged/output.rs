//! An output on its way: prepared, written to, then committed or removed.

use super::files::{parent, remove, sibling, sync_all, sync_folder};
use super::lock::OutputLock;
use super::replace;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Whether the output is one file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// What to do with an output that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Stop.
    Refuse,
    /// Replace it, once the new one is complete.
    Replace,
}

/// What to do with a `NAME.partial` that an interrupted run left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Delete it and start over.
    Clear,
    /// Resume it; [`StagedOutput::resumed`] says whether there was one.
    Keep,
}

/// An output on its way: write to [`path`](StagedOutput::path), then [`commit`](StagedOutput::commit). Dropped before
/// that, it is removed without a trace.
#[derive(Debug)]
pub struct StagedOutput {
    kind: Kind,
    target: PathBuf,
    partial: PathBuf,
    existing: Existing,
    resumed: bool,
    /// What removes itself when this is dropped: the partial output and folders made for it.
    remove: bool,
    made_folders: Vec<PathBuf>,
    lock: Option<OutputLock>,
}

/// Writes a file that appears whole or not at all.
///
/// # Errors
/// As [`StagedOutput::file`] and [`StagedOutput::commit`].
pub fn write_whole(path: &Path, bytes: &[u8], existing: Existing) -> Result<()> {
    StagedOutput::file(path, existing)?.commit_bytes(bytes)
}

impl StagedOutput {
    /// Prepares a folder. The partial folder exists afterwards.
    ///
    /// # Errors
    /// Rejected when the output exists and is not to be replaced, or must not be; Failed when another run is writing
    /// it or the system refuses.
    pub fn folder(target: &Path, existing: Existing, leftover: Leftover) -> Result<StagedOutput> {
        let mut staged = StagedOutput::prepare(Kind::Folder, target, existing, leftover)?;
        if !staged.resumed {
            staged.remove = true;
            std::fs::create_dir(&staged.partial).map_err(|error| Error::io("creating", &staged.partial, &error))?;
        }
        Ok(staged)
    }

    /// Prepares a single file. The partial file does not exist afterwards; the caller creates it.
    ///
    /// # Errors
    /// As [`folder`](StagedOutput::folder).
    pub fn file(target: &Path, existing: Existing) -> Result<StagedOutput> {
        StagedOutput::prepare(Kind::File, target, existing, Leftover::Clear)
    }

    fn prepare(kind: Kind, target: &Path, existing: Existing, leftover: Leftover) -> Result<StagedOutput> {
        let target = resolve_target(target)?;
        // Before anything is created, for the usual mistake; again under the lock.
        check_existing(kind, &target, existing)?;
        let made_folders = create_parents(&target)?;
        let partial = sibling(&target, ".partial");
        let mut staged =
            StagedOutput { kind, target, partial, existing, resumed: false, remove: false, made_folders, lock: None };
        staged.lock = Some(OutputLock::acquire(&sibling(&staged.target, ".partial.lock"), &staged.target)?);
        replace::recover(&staged.target, &sibling(&staged.target, ".partial.old"))?;
        check_existing(kind, &staged.target, existing)?;
        let found = std::fs::symlink_metadata(&staged.partial).ok();
        staged.resumed =
            kind == Kind::Folder && leftover == Leftover::Keep && found.as_ref().is_some_and(std::fs::Metadata::is_dir);
        if found.is_some() && !staged.resumed {
            remove(&staged.partial).map_err(|error| Error::io("removing", &staged.partial, &error))?;
        }
        staged.remove = true;
        Ok(staged)
    }

    /// Where to write: the partial file or folder, on the same disk as the final place.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Where the output will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether the folder holds what an interrupted run left.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Leaves the partial output for a later run to resume, instead of removing it.
    pub fn keep(mut self) {
        self.remove = false;
        self.made_folders.clear();
    }

    /// Writes a whole file and lets it appear.
    ///
    /// # Errors
    /// As [`commit`](StagedOutput::commit).
    pub fn commit_bytes(self, bytes: &[u8]) -> Result<()> {
        std::fs::write(&self.partial, bytes).map_err(|error| Error::io("writing", &self.partial, &error))?;
        self.commit()
    }

    /// Makes sure that every byte is on the disk, then lets the output appear at its final place.
    ///
    /// # Errors
    /// Failed when the system refuses; the old output is still there then. Rejected when an output has appeared in the
    /// meantime and is not to be replaced.
    pub fn commit(mut self) -> Result<()> {
        sync_all(&self.partial)?;
        check_existing(self.kind, &self.target, self.existing)?;
        match self.kind {
            Kind::File => std::fs::rename(&self.partial, &self.target)
                .map_err(|error| Error::io("renaming the complete output to", &self.target, &error))?,
            Kind::Folder => replace::folder(&self.partial, &self.target, &sibling(&self.target, ".partial.old"))?,
        }
        self.remove = false;
        self.made_folders.clear();
        sync_folder(parent(&self.target));
        Ok(())
    }
}

/// Removes the lock that a process which died just after its output appeared left beside it; one that is held stays. For
/// outputs that are complete and need no run of their own.
pub fn remove_stale_lock(target: &Path) {
    let lock = sibling(target, ".partial.lock");
    if lock.exists() {
        drop(OutputLock::acquire(&lock, target));
    }
}

impl Drop for StagedOutput {
    fn drop(&mut self) {
        if self.remove {
            let _ = remove(&self.partial);
        }
        // The lock file lies in the folder that may have been made for the output.
        self.lock = None;
        for folder in self.made_folders.iter().rev() {
            // Only while nobody else has put something there.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The output's own path: absolute, so that a later change of folder does not matter, with a link followed, so that
/// what it leads to is replaced and not the link.
fn resolve_target(target: &Path) -> Result<PathBuf> {
    let linked = std::fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink());
    let ends_in_name = matches!(target.components().next_back(), Some(std::path::Component::Normal(_)));
    let resolved = match linked || (!ends_in_name && target.exists()) {
        true => target.canonicalize(),
        false => std::path::absolute(target),
    };
    let resolved = resolved.map_err(|error| Error::io("opening", target, &error))?;
    match resolved.file_name() {
        // `a/..` of something that does not exist.
        Some(_) if ends_in_name || linked || target.exists() => Ok(resolved),
        _ => Err(Error::usage(format!("{}: expected an output with a name", target.display()))),
    }
}

fn check_existing(kind: Kind, target: &Path, existing: Existing) -> Result<()> {
    let Ok(found) = std::fs::symlink_metadata(target) else { return Ok(()) };
    if existing == Existing::Refuse {
        return Err(Error::rejected(format!("{}: exists already", target.display()))
            .hint("choose another output, or replace it with --overwrite"));
    }
    let (expected, fits) = match kind {
        Kind::File => ("a file", found.is_file()),
        Kind::Folder => ("a folder", found.is_dir()),
    };
    if !fits {
        return Err(Error::rejected(format!(
            "{}: the output is {expected}, found something else there",
            target.display()
        ))
        .hint("choose another output"));
    }
    if kind == Kind::Folder { replace::check_replaceable(target) } else { Ok(()) }
}

/// Makes the folders above `target` and answers with those that were missing, outermost first.
fn create_parents(target: &Path) -> Result<Vec<PathBuf>> {
    let above = parent(target);
    let mut missing: Vec<PathBuf> =
        above.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    std::fs::create_dir_all(above).map_err(|error| Error::io("creating", above, &error))?;
    Ok(missing)
}
