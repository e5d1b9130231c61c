//! What the work folder remembers of an edited checkpoint: that it was begun, or from what it was made and how its files
//! looked then. An edit carries no manifest, so without a note no run could tell its own output from a user's file.

use crate::checkpoint::{Existing, write_whole};
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The note of one output.
pub(super) struct Note {
    path: PathBuf,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Noted {
    /// A run set out to make it: nothing was there, or what was there might be replaced.
    Begun,
    /// A run made it.
    Made {
        /// Digest of everything it was made of.
        recipe: Digest,
        /// [`stamp_of`] the output.
        stamp: Digest,
    },
}

impl Note {
    /// The note of `output` in the work folder.
    pub(super) fn new(work: &Path, output: &Path) -> Note {
        let name = Digest::of(output.as_os_str().as_encoded_bytes());
        Note { path: work.join(format!("edit-{:032x}.note", name.0)) }
    }

    /// What it says; `None` where there is none.
    pub(super) fn read(&self) -> Option<Noted> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        if text.trim() == "begun" {
            return Some(Noted::Begun);
        }
        let (recipe, stamp) = text.trim().split_once(' ')?;
        Some(Noted::Made { recipe: recipe.parse().ok()?, stamp: stamp.parse().ok()? })
    }

    /// Replaces it, whole or not at all.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub(super) fn write(&self, noted: &Noted) -> Result<()> {
        let text = match noted {
            Noted::Begun => "begun\n".to_owned(),
            Noted::Made { recipe, stamp } => format!("{recipe} {stamp}\n"),
        };
        write_whole(&self.path, text.as_bytes(), Existing::Replace)
    }

    /// Puts back what it said before.
    ///
    /// # Errors
    /// Failed: the system refuses.
    pub(super) fn restore(&self, noted: Option<&Noted>) -> Result<()> {
        match noted {
            Some(noted) => self.write(noted),
            None => std::fs::remove_file(&self.path).map_err(|error| Error::io("removing", &self.path, &error)),
        }
    }
}

/// Names, lengths and times of change of an output's files.
pub(super) fn stamp_of(output: &Path) -> Digest {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut add = |path: &Path| {
        let Ok(found) = std::fs::metadata(path) else { return };
        let modified = found.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let modified = modified.map_or(0, |since| since.as_nanos());
        lines.push([name, &found.len().to_le_bytes(), &modified.to_le_bytes()].concat());
    };
    match std::fs::read_dir(output) {
        Ok(entries) => entries.flatten().for_each(|entry| add(&entry.path())),
        Err(_) => add(output),
    }
    lines.sort();
    Digest::of_digests(lines.iter().map(|line| Digest::of(line)))
}
