//! What an output must leave alone: the files that a run reads, whatever ways lead to them.
//!
//! A file is known by what the system calls it, not by its path: hard links, links on the way, `..` and another case of the
//! letters all lead to the same one. With each file go the links that led to it and every folder above them, so that
//! replacing a folder that holds any of them is noticed too.

use super::files::Id;
use super::files::{id_of, id_of_entry, parent, walk};
use crate::checkpoint::names;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Files and folders that are read, and must be there unchanged afterwards.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files, links, and the folders above them, each with the input it belongs to.
    held: HashMap<Id, PathBuf>,
    /// Folders that are inputs as a whole: a new file can change what they mean.
    folders: HashMap<Id, PathBuf>,
}

impl Inputs {
    /// For an output that is made from no file.
    pub fn none() -> Inputs {
        Inputs::default()
    }

    /// Adds a file or a folder, with the links that lead to it and the folders above. What is not there is no input.
    #[must_use]
    pub fn and(mut self, path: &Path) -> Inputs {
        let Ok(places) = walk(path) else { return self };
        for place in places.links.iter().chain(std::iter::once(&places.end)) {
            for place in place.ancestors() {
                match id_of_entry(place) {
                    Some(id) => drop(self.held.entry(id).or_insert_with(|| path.to_owned())),
                    None => continue,
                }
            }
        }
        self
    }

    /// Adds a folder whose files are read by their names: it is held, and no file may be added to it that changes what it is.
    #[must_use]
    pub fn and_folder(mut self, path: &Path) -> Inputs {
        if let Some(id) = id_of(path) {
            self.folders.insert(id, path.to_owned());
        }
        self.and(path)
    }

    /// Adds every file right in a folder, and the folder.
    #[must_use]
    pub fn and_all_of(self, path: &Path) -> Inputs {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.fold(self.and_folder(path), |inputs, entry| inputs.and(&entry.path()))
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Adds all of another set.
    #[must_use]
    pub fn with(mut self, others: &Inputs) -> Inputs {
        self.held.extend(others.held.iter().map(|(id, path)| (id.clone(), path.clone())));
        self.folders.extend(others.folders.iter().map(|(id, path)| (id.clone(), path.clone())));
        self
    }

    /// Whether an output at `target`, a path without a link at its end, leaves every input alone.
    ///
    /// # Errors
    /// Rejected, naming the input that would be lost or become another one.
    pub fn check(&self, target: &Path) -> Result<()> {
        let refuse =
            |what: String| Err(Error::rejected(format!("{}: {what}", target.display())).hint("choose another output"));
        if let Some(input) = id_of_entry(target).and_then(|id| self.held.get(&id)) {
            return refuse(match same_file(target, input) {
                true => format!("the output is the input {}", input.display()),
                false => format!("the output holds the input {}", input.display()),
            });
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let folder = id_of(parent(target)).and_then(|id| self.folders.get(&id));
        if let Some(folder) = folder.filter(|_| names::has_meaning(&name)) {
            return refuse(format!("a file of this name would change the input {}", folder.display()));
        }
        Ok(())
    }

    /// Whether no input lies in a folder that a job writes several files into.
    ///
    /// # Errors
    /// Rejected, naming the input.
    pub fn check_outside(&self, folder: &Path) -> Result<()> {
        match id_of(folder).and_then(|id| self.held.get(&id)) {
            Some(input) => {
                Err(Error::rejected(format!("{}: the output holds the input {}", folder.display(), input.display()))
                    .hint("choose another output"))
            }
            None => Ok(()),
        }
    }

    /// Whether none of a folder's own files is an input under another name.
    ///
    /// # Errors
    /// Rejected, naming the file.
    pub(super) fn check_entries(&self, target: &Path) -> Result<()> {
        for entry in std::fs::read_dir(target).into_iter().flatten().flatten() {
            if let Some(input) = id_of_entry(&entry.path()).and_then(|id| self.held.get(&id)) {
                return Err(Error::rejected(format!(
                    "{}: will not be replaced: {} is the input {}",
                    target.display(),
                    entry.path().display(),
                    input.display()
                ))
                .hint("choose another output"));
            }
        }
        Ok(())
    }
}

fn same_file(target: &Path, input: &Path) -> bool {
    let is_file = std::fs::symlink_metadata(target).is_ok_and(|found| !found.is_dir());
    is_file || id_of(target) == id_of(input)
}
