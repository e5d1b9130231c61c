//! The files of a whole basis that lie in a part of a job, under names that no basis has.

use crate::checkpoint::{Budget, DataFile, OutputFile, names};
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::shown::shown_path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// A file that is held.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// Moves the files of a basis that was made in `made` to `folder`, and answers what they hold by their own names.
///
/// # Errors
/// Failed: I/O. Interrupted.
pub(crate) fn hold(made: &Path, folder: &Path, progress: &dyn Progress) -> Result<BTreeMap<String, Held>> {
    let io = |error: std::io::Error| Error::io("reading", made, &error);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(made).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().into_string().map_err(|_| Error::failed("a basis with a file of no name"))?;
        let held = copied(&DataFile::open(&entry.path())?, None, progress)?;
        let to = held_path(folder, &name);
        std::fs::rename(entry.path(), &to).map_err(|error| Error::io("renaming to", &to, &error))?;
        files.insert(name, held);
    }
    std::fs::remove_dir(made).map_err(|error| Error::io("removing", made, &error))?;
    Ok(files)
}

fn held_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{}", names::UNDIVIDED_END))
}

/// Reads a file from end to end, and copies it where `to` is given.
fn copied(from: &DataFile, to: Option<&OutputFile>, progress: &dyn Progress) -> Result<Held> {
    let (mut digester, mut at) = (Digester::default(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    while at < from.len {
        progress.check()?;
        let n_bytes = (from.len - at).min(PIECE_BYTES as u64) as usize;
        let piece = piece.get_mut(..n_bytes).unwrap_or_default();
        from.read_at(at, piece)?;
        digester.push(piece);
        if let Some(to) = to {
            to.write_at(at, piece)?;
        }
        at += n_bytes as u64;
    }
    Ok(Held { bytes: from.len, digest: digester.finish() })
}

/// Copies a file that `folder` holds to its own name in `to`.
///
/// # Errors
/// Rejected: it is not what it was. Failed: I/O. Interrupted.
pub(crate) fn bring(
    folder: &Path,
    name: &str,
    expected: &Held,
    to: &Path,
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<()> {
    let from = DataFile::open_within(&held_path(folder, name), budget)?;
    let wrong =
        |what: String| Error::rejected(format!("{}: {what}", shown_path(&from.path))).hint("run this part again");
    if from.len != expected.bytes {
        return Err(wrong(format!("{} bytes expected, {} found", expected.bytes, from.len)));
    }
    let to = OutputFile::create(&to.join(name), expected.bytes)?;
    if copied(&from, Some(&to), progress)?.digest != expected.digest {
        return Err(wrong("damaged: its checksum does not match".to_owned()));
    }
    to.sync()
}
