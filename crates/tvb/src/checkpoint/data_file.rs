//! An open data file, read by position: many threads share one, and none moves a cursor.

use super::Budget;
use super::budget::Charge;
use super::limits::HEADER_BYTES_MAX;
use super::regular::open_regular;
use crate::error::{Error, Result};
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// One open data file, read by position only. Clones share it.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its length in bytes when it was opened.
    pub len: u64,
    file: Arc<File>,
    stamp: FileStamp,
    budget: Budget,
}

/// What tells that a file is still the one that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Length in bytes.
    pub len: u64,
    /// When it was last written, where the system knows.
    pub modified: Option<SystemTime>,
    /// Device and inode numbers; zeros where the system has none.
    pub inode: (u64, u64),
}

impl FileStamp {
    fn of(metadata: &Metadata) -> FileStamp {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let inode = (0, 0);
        FileStamp { len: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

impl DataFile {
    /// Opens a regular file for reading. Refuses anything else, since a pipe would block and a folder has no bytes.
    ///
    /// # Errors
    /// Rejected when it is no regular file, Failed when the system cannot open it.
    pub fn open(path: &Path) -> Result<DataFile> {
        DataFile::open_within(path, &Budget::default())
    }

    /// [`open`](DataFile::open); what readers keep of the file is charged to `budget`.
    ///
    /// # Errors
    /// As [`open`](DataFile::open).
    pub fn open_within(path: &Path, budget: &Budget) -> Result<DataFile> {
        let (file, metadata) = open_regular(path)?;
        let stamp = FileStamp::of(&metadata);
        Ok(DataFile { path: path.to_owned(), len: stamp.len, file: Arc::new(file), stamp, budget: budget.clone() })
    }

    /// What readers of this file charge what they keep to.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// An open account for something of this file that is kept in memory.
    pub(crate) fn account(&self, what: &'static str) -> Charge {
        self.budget.account(&self.path, what)
    }

    /// Takes memory for something of this file.
    ///
    /// # Errors
    /// Rejected: there is too little left. Interrupted.
    pub(crate) fn charge(&self, what: &'static str, n_bytes: u64) -> Result<Charge> {
        self.budget.charge(&self.path, what, n_bytes)
    }

    /// The file as it was when it was opened.
    pub fn stamp(&self) -> &FileStamp {
        &self.stamp
    }

    /// Notices a file that was written to, replaced or removed since it was opened: what was read before and what
    /// will be read after would not belong together.
    ///
    /// # Errors
    /// Rejected, naming the file and what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        let changed = |what: String| {
            Err(Error::rejected(format!("{}: changed while it was in use: {what}", self.path.display()))
                .hint("run again when nothing writes to the inputs"))
        };
        let open = self.file.metadata().map_err(|error| Error::io("checking", &self.path, &error))?;
        let named = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return changed("it was removed".into()),
            Err(error) => return Err(Error::io("checking", &self.path, &error)),
        };
        for now in [FileStamp::of(&open), FileStamp::of(&named)] {
            if now.inode != self.stamp.inode {
                return changed("another file took its place".into());
            }
            if now.len != self.stamp.len {
                return changed(format!("expected {} bytes, found {}", self.stamp.len, now.len));
            }
            if now.modified != self.stamp.modified {
                return changed("it was written to".into());
            }
        }
        Ok(())
    }

    /// Fills `out` from `offset` bytes on: positioned reads, several threads at once.
    ///
    /// # Errors
    /// Failed when the system cannot read, or the file ends before `out` is full (it shrank since it was opened).
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        read_fully(&self.file, &self.path, offset, out)
    }

    /// The header of a safetensors file as it stands: length and JSON.
    ///
    /// # Errors
    /// Failed when the system cannot read. Rejected when the file no longer begins with such a header.
    pub fn safetensors_header(&self) -> Result<Vec<u8>> {
        let mut length = [0; 8];
        self.read_at(0, &mut length)?;
        let json_bytes = u64::from_le_bytes(length);
        if json_bytes > HEADER_BYTES_MAX {
            return Err(Error::rejected(format!(
                "{}: a header of at most {HEADER_BYTES_MAX} bytes expected, {json_bytes} found",
                self.path.display()
            )));
        }
        let mut header = vec![0; 8 + json_bytes as usize];
        self.read_at(0, &mut header)?;
        Ok(header)
    }
}

/// Fills `out` from `offset` on, or says how far it came.
pub(super) fn read_fully(file: &File, path: &Path, offset: u64, out: &mut [u8]) -> Result<()> {
    let mut n_read = 0;
    while n_read < out.len() {
        let rest = out.get_mut(n_read..).unwrap_or_default();
        match positioned_read(file, offset + n_read as u64, rest) {
            Ok(0) => {
                return Err(Error::failed(format!(
                    "{}: expected {} bytes at offset {offset}, found {n_read} before the end of the file",
                    path.display(),
                    out.len(),
                ))
                .hint("the file was truncated while it was in use, or its disk is failing"));
            }
            Ok(n) => n_read += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Error::failed(format!(
                    "{}: reading {} bytes at offset {offset} failed after {n_read}: {error}",
                    path.display(),
                    out.len(),
                ))
                .hint("check the disk or the network mount")
                .caused_by(error));
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn positioned_read(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(windows)]
fn positioned_read(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    // Moves the cursor too, but every read names its own position.
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Raises this process's limit on open files as far as the system allows, since every shard of every checkpoint
/// stays open. For the binary's start; a library user may call it or not.
pub fn raise_open_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn reads_by_position_and_names_a_short_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, (0u8..100).collect::<Vec<_>>()).unwrap();
        let file = DataFile::open(&path).unwrap();
        let mut out = [0; 10];
        file.read_at(90, &mut out).unwrap();
        assert_eq!(out, [90, 91, 92, 93, 94, 95, 96, 97, 98, 99]);

        let error = file.read_at(95, &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.message().contains("expected 10 bytes at offset 95, found 5"), "{error}");
    }

    #[test]
    fn notices_a_changed_file() {
        type Change = fn(&Path);
        let cases: [(&str, Change); 4] = [
            ("expected 100 bytes, found 5", |path| std::fs::write(path, [0; 5]).unwrap()),
            ("it was written to", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }),
            ("another file took its place", |path| {
                std::fs::write(path.with_extension("new"), [0; 100]).unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            }),
            ("it was removed", |path| std::fs::remove_file(path).unwrap()),
        ];
        for (expected, change) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("data");
            std::fs::write(&path, [0; 100]).unwrap();
            let file = DataFile::open(&path).unwrap();
            file.check_unchanged().unwrap();
            change(&path);
            let error = file.check_unchanged().unwrap_err();
            assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DataFile::open(folder.path()).unwrap_err().kind(), ErrorKind::Rejected);
        assert_eq!(DataFile::open(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::Failed);
    }
}
