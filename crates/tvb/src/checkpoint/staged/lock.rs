//! The lock on an output: a file whose lock the system releases when the process dies, and which says what the run made
//! beside its output, so that the next run knows its remains from a user's files.
//!
//! ```text
//! tvb 4711
//! partial INODE:TIME
//! old INODE:TIME
//! together yes
//! ```
//!
//! `partial` is the unfinished output, `old` the one that is being replaced, and `together` says that several outputs of the
//! run were about to appear: one that did is not finished before all of them have. The text is written in one piece and never cut,
//! so a kill leaves the text before or the text after.

use super::files::{Birth, open_itself, read_itself};
use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Bytes of the text, filled up with blanks.
const TEXT_BYTES: usize = 192;

/// What a run made beside its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The unfinished output.
    pub(super) partial: Option<Birth>,
    /// The output that is being replaced.
    pub(super) old: Option<Birth>,
    /// Whether the output is one of several that appear together, and they had begun to.
    pub(super) together: bool,
}

/// Held while an output is being written; removes its file when dropped.
#[derive(Debug)]
pub(super) struct OutputLock {
    path: PathBuf,
    file: File,
    /// What a dead run had written; `None` where no run had left its lock.
    pub(super) found: Option<Record>,
    stays: bool,
}

impl OutputLock {
    /// Takes the lock, whatever file of this program a dead process may have left.
    ///
    /// # Errors
    /// Failed when a living process holds it, naming the process where it is known. Rejected when something of another's
    /// stands in its place: it is neither followed nor changed.
    pub(super) fn acquire(path: &Path, target: &Path) -> Result<OutputLock> {
        let io = |error: std::io::Error| Error::io("locking", path, &error);
        loop {
            if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
                return Err(not_a_lock(path));
            }
            let (mut file, is_new) = match open_itself(path, false) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => match open_itself(path, true) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                    made => (made.map_err(io)?, true),
                },
                opened => (opened.map_err(io)?, false),
            };
            if !file.metadata().map_err(io)?.is_file() {
                return Err(not_a_lock(path));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(target, &mut file)),
                // A file system without locks: better to work than to refuse.
                Err(TryLockError::Error(error)) if has_no_locks(&error) => say_without_lock(path, &error),
                Err(TryLockError::Error(error)) => {
                    if is_new {
                        let _ = std::fs::remove_file(path);
                    }
                    return Err(io(error));
                }
            }
            // Between our open and our lock the holder before us may have removed the file, and a third may have made
            // a new one: only the lock on the file that has the name counts.
            if !is_named(&file, path) {
                continue;
            }
            let mut text = Vec::new();
            Read::by_ref(&mut file).take(TEXT_BYTES as u64 + 1).read_to_end(&mut text).map_err(io)?;
            let found = match text.is_empty() {
                true => None,
                false => Some(parse(&text).ok_or_else(|| not_a_lock(path))?),
            };
            let mut lock = OutputLock { path: path.to_owned(), file, found, stays: false };
            // What the dead run left stays known until this one has dealt with it.
            lock.write(&found.unwrap_or_default())?;
            return Ok(lock);
        }
    }

    /// Writes down what there is beside the output.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub(super) fn write(&mut self, record: &Record) -> Result<()> {
        let birth = |birth: Option<Birth>| birth.map_or("-".to_owned(), |birth| birth.to_string());
        let id = std::process::id();
        let together = if record.together { "together yes\n" } else { "" };
        let text = format!("tvb {id}\npartial {}\nold {}\n{together}", birth(record.partial), birth(record.old));
        let text = format!("{text:<width$}\n", width = TEXT_BYTES - 1);
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(text.as_bytes()));
        written.map_err(|error| Error::io("locking", &self.path, &error))
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) {
        let _ = self.file.sync_data();
    }

    /// Leaves the file, for the next run to know what there is.
    pub(super) fn stay(&mut self) {
        self.stays = true;
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // Removed before it is unlocked, see `acquire`.
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
        // Not by closing the file alone: a child that is just being started still has it open.
        let _ = self.file.unlock();
    }
}

/// What a run wrote; `None` for anything else. The first version wrote the number of its process alone.
fn parse(text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES)?;
    let mut lines = text.trim_end().lines();
    let first = lines.next()?;
    first.strip_prefix("tvb ").unwrap_or(first).parse::<u32>().ok()?;
    let mut record = Record::default();
    for line in lines {
        if line == "together yes" {
            record.together = true;
            continue;
        }
        let (word, birth) = line.split_once(' ')?;
        let birth = if birth == "-" { None } else { Some(birth.parse().ok()?) };
        match word {
            "partial" => record.partial = birth,
            "old" => record.old = birth,
            _ => return None,
        }
    }
    Some(record)
}

/// Whether what is at `target` is one of several outputs whose run died before all of them had appeared, by the lock file at
/// `path`.
pub(super) fn is_unfinished(path: &Path, target: &Path) -> bool {
    let Ok(file) = read_itself(path) else { return false };
    let mut text = Vec::new();
    let is_read = file.metadata().is_ok_and(|found| found.is_file())
        && file.take(TEXT_BYTES as u64 + 1).read_to_end(&mut text).is_ok();
    let record = parse(&text).filter(|record| is_read && record.together);
    record.is_some_and(|record| record.partial.is_some() && record.partial == Birth::of(target))
}

fn not_a_lock(path: &Path) -> Error {
    Error::rejected(format!("{}: a lock file of this program expected, something else found", path.display()))
        .hint("move it away, or choose another output")
}

fn in_use(target: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let _ = file.take(20).read_to_string(&mut text);
    let first = text.lines().next().unwrap_or_default();
    let process = match first.strip_prefix("tvb ").unwrap_or(first).trim().parse::<u32>() {
        Ok(id) => format!(" (process {id})"),
        Err(_) => String::new(),
    };
    Error::failed(format!("{}: another run is writing this output{process}", target.display()))
        .hint("wait for it, or choose another output")
}

/// Whether the file system cannot lock at all, as some network file systems.
pub(crate) fn has_no_locks(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error() {
        return [libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOTSUP].contains(&code);
    }
    error.kind() == std::io::ErrorKind::Unsupported
}

/// Says once in a process that there is no lock.
pub(crate) fn say_without_lock(path: &Path, error: &std::io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let folder = path.parent().unwrap_or(path).display();
        tracing::warn!(
            "{folder}: files cannot be locked there ({error}); see that no other run writes the same output"
        );
    });
}

#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_named(_file: &File, _path: &Path) -> bool {
    // An open file cannot be removed there.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_text_is_a_lock() {
        let birth: Birth = "12:34".parse().unwrap();
        for text in ["1\n", "tvb 4711\n", "tvb 1\npartial -\nold -\n", "tvb 1\npartial -\nold -\n   \n"] {
            assert_eq!(parse(text.as_bytes()), Some(Record::default()), "{text:?}");
        }
        let record = Record { partial: Some(birth), old: Some("7:-".parse().unwrap()), together: false };
        assert_eq!(parse(b"tvb 1\npartial 12:34\nold 7:-\n"), Some(record));
        let together = parse(b"tvb 1\npartial 12:34\nold -\ntogether yes\n");
        assert_eq!(together, Some(Record { partial: Some(birth), old: None, together: true }));
        for text in ["x", "tvb x", "12 monkeys", "tvb 1\nmy notes", "tvb 1\npartial x\n", "\u{1}", "-3"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(format!("tvb 1\n{}", " ".repeat(TEXT_BYTES)).as_bytes()), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_system_without_locks_is_known_by_its_errors() {
        for code in [libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP] {
            assert!(has_no_locks(&std::io::Error::from_raw_os_error(code)), "{code}");
        }
        for code in [libc::EIO, libc::EACCES, libc::EBADF] {
            assert!(!has_no_locks(&std::io::Error::from_raw_os_error(code)), "{code}");
        }
    }
}
