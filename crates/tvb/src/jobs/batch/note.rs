//! What the work folder remembers of an edited checkpoint: that it was begun, or from what it was made and how its files
//! looked then. An edit carries no manifest, so without a note no run could tell its own output from a user's file.

use crate::checkpoint::{Existing, Inputs, open_regular, read_capped, write_whole};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;
/// A longer note is not one of ours.
const MAX_BYTES: u64 = 4096;

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
        /// [`contents_of`] the output; the first version's notes have none.
        contents: Option<Digest>,
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
        let text = String::from_utf8(read_capped(&self.path, "a note", MAX_BYTES).ok()?).ok()?;
        if text.trim() == "begun" {
            return Some(Noted::Begun);
        }
        let mut digests = text.split_whitespace().map(str::parse::<Digest>);
        let (recipe, stamp) = (digests.next()?.ok()?, digests.next()?.ok()?);
        Some(Noted::Made { recipe, stamp, contents: digests.next().transpose().ok()? })
    }

    /// Replaces it, whole or not at all.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub(super) fn write(&self, noted: &Noted) -> Result<()> {
        let text = match noted {
            Noted::Begun => "begun\n".to_owned(),
            Noted::Made { recipe, stamp, contents: None } => format!("{recipe} {stamp}\n"),
            Noted::Made { recipe, stamp, contents: Some(contents) } => format!("{recipe} {stamp} {contents}\n"),
        };
        write_whole(&self.path, text.as_bytes(), Existing::Replace, &Inputs::none())
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
    let lines = files_of(output).into_iter().map(|(name, len, modified)| {
        let modified = modified.map_or(0, |since| since.as_nanos());
        Digest::of(&[name.as_encoded_bytes(), &len.to_le_bytes(), &modified.to_le_bytes()].concat())
    });
    Digest::of_digests(lines)
}

/// Digest of the names and the bytes of an output's files: what tells a bit that flipped on the disk, which no time shows.
///
/// # Errors
/// Failed: the system cannot read. Interrupted.
pub(super) fn contents_of(output: &Path, progress: &dyn Progress) -> Result<Digest> {
    let names: Vec<PathBuf> = match output.is_dir() {
        true => files_of(output).into_iter().map(|(name, ..)| output.join(name)).collect(),
        false => vec![output.to_owned()],
    };
    let mut parts = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    for path in names {
        let io = |error: std::io::Error| Error::io("reading", &path, &error);
        parts.push(Digest::of(path.file_name().unwrap_or_default().as_encoded_bytes()));
        let (mut file, _) = open_regular(&path)?;
        loop {
            progress.check()?;
            let mut n_bytes = 0;
            while n_bytes < PIECE_BYTES {
                match file.read(piece.get_mut(n_bytes..).unwrap_or_default()) {
                    Ok(0) => break,
                    Ok(n) => n_bytes += n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(io(error)),
                }
            }
            parts.push(Digest::of(piece.get(..n_bytes).unwrap_or_default()));
            if n_bytes < PIECE_BYTES {
                break;
            }
        }
    }
    Ok(Digest::of_digests(parts))
}

/// Whether a note's stamp is that of the output as it is: as this program takes it, or as the first one did, which
/// digested Rust's `Debug` text. An output of that one is its own still.
pub(super) fn is_stamp_of(stamp: Digest, output: &Path) -> bool {
    let first = || {
        let line = |(name, len, modified): &(OsString, u64, Option<Duration>)| {
            let name = debug_text(&Some(name.as_os_str()));
            format!("{name} {len} {}", debug_text(modified))
        };
        let mut lines: Vec<String> = files_of(output).iter().map(line).collect();
        lines.sort();
        Digest::of(lines.join("\n").as_bytes())
    };
    stamp == stamp_of(output) || stamp == first()
}

/// What the first version wrote with `{:?}`.
pub(super) fn debug_text(value: &dyn std::fmt::Debug) -> String {
    std::fmt::from_fn(|f| value.fmt(f)).to_string()
}

/// Name, length and time of change of every file, by name.
fn files_of(output: &Path) -> Vec<(OsString, u64, Option<Duration>)> {
    let of = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        let modified = found.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        Some((path.file_name().unwrap_or_default().to_owned(), found.len(), modified))
    };
    let mut files: Vec<_> = match std::fs::read_dir(output) {
        Ok(entries) => entries.flatten().filter_map(|entry| of(&entry.path())).collect(),
        Err(_) => of(output).into_iter().collect(),
    };
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_the_first_version_are_known() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("edited.safetensors");
        std::fs::write(&path, b"12345").unwrap();
        let since = Duration::new(1_700_000_000, 250_000_000);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + since).unwrap();
        let first = Digest::of(b"Some(\"edited.safetensors\") 5 Some(1700000000.25s)");
        assert!(is_stamp_of(first, &path) && is_stamp_of(stamp_of(&path), &path));
        assert_ne!(first, stamp_of(&path));
        std::fs::write(&path, b"123456").unwrap();
        assert!(!is_stamp_of(first, &path));
    }
}
