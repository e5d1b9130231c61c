//! Small files read whole, at most so many bytes of them: lists, manifests and matrices beside the weights.
//!
//! The file is opened once and its own handle is asked what it is and how long, so that what is checked is what is read.
//! At most one byte more than allowed is ever read, whatever a file claims or grows to meanwhile.

use super::Budget;
use super::budget::Charge;
use super::regular::{is_descriptor, is_pipe, not_regular, open_at_once, open_regular};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

/// Bytes that are read between two looks at whether to stop.
const PIECE_BYTES: u64 = 1 << 20;

/// The bytes of a regular file of at most `max_bytes`; `what` names it in messages: "a shard index".
///
/// # Errors
/// Rejected: no regular file, or a larger one. Failed: the system cannot read.
pub(crate) fn read_capped(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>> {
    let (file, metadata) = open_regular(path)?;
    read(file, path, what, metadata.len(), max_bytes, &mut |_| Ok(()))
}

/// As [`read_capped`], with the bytes charged to `budget`.
///
/// # Errors
/// As [`read_capped`]. Rejected: too little memory. Interrupted.
pub(crate) fn read_capped_within(
    path: &Path,
    what: &'static str,
    max_bytes: u64,
    budget: &Budget,
) -> Result<(Vec<u8>, Charge)> {
    let (file, metadata) = open_regular(path)?;
    let mut charge = budget.account(path, what);
    let bytes = read(file, path, what, metadata.len(), max_bytes, &mut |n_bytes| charge.raise_to(n_bytes))?;
    Ok((bytes, charge))
}

/// As [`read_capped`], for files that the user names, which may be pipes of the shell: `tvb batch <(make-jobs)`. Such a pipe
/// has a writer already; a named one, which may never have, is refused.
///
/// # Errors
/// Rejected: neither a file nor a pipe, or more than `max_bytes`. Failed: the system cannot read. Interrupted.
pub(crate) fn read_capped_or_pipe(path: &Path, what: &str, max_bytes: u64, budget: &Budget) -> Result<Vec<u8>> {
    let (file, metadata) = open_at_once(path)?;
    let is_readable = metadata.is_file() || (is_pipe(&metadata) && is_descriptor(path));
    if !is_readable {
        return Err(not_regular(path));
    }
    read(file, path, what, metadata.len(), max_bytes, &mut |_| budget.check())
}

/// Reads to the end. `before` hears how many bytes there will be after the next piece.
fn read(
    mut file: File,
    path: &Path,
    what: &str,
    n_bytes: u64,
    max_bytes: u64,
    before: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<u8>> {
    let too_large = |found: String| {
        Error::rejected(format!("{}: {what} of at most {max_bytes} bytes expected, {found} found", path.display()))
    };
    if n_bytes > max_bytes {
        return Err(too_large(n_bytes.to_string()));
    }
    before(n_bytes)?;
    let mut bytes = Vec::with_capacity(n_bytes as usize);
    loop {
        let have = bytes.len() as u64;
        // What was announced, and then whatever a file without a length or a growing one has.
        let wanted = match n_bytes.saturating_sub(have) {
            0 => PIECE_BYTES,
            rest => rest.min(PIECE_BYTES),
        };
        let wanted = wanted.min(max_bytes.saturating_sub(have).saturating_add(1));
        match (&mut file).take(wanted).read_to_end(&mut bytes) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() as u64 > max_bytes => return Err(too_large("more".into())),
            Ok(_) => before(bytes.len() as u64)?,
            // A pipe that has nothing to say yet.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                before(bytes.len() as u64)?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Error::io("reading", path, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_capped(&path, "a list", 5).unwrap(), b"12345");
        assert_eq!(read_capped(&path, "a list", u64::MAX).unwrap(), b"12345");
        let error = read_capped(&path, "a list", 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert_eq!(error.message(), format!("{}: a list of at most 4 bytes expected, 5 found", path.display()));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_capped(folder.path(), "a list", 9).unwrap_err().kind(), ErrorKind::Rejected);
        let missing = read_capped(&folder.path().join("none"), "a list", 9).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Failed);
        assert_eq!(missing.hint_text(), Some("check the path"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn endless_files_are_refused_or_cut_off() {
        let endless = Path::new("/dev/zero");
        assert_eq!(read_capped(endless, "a list", 9).unwrap_err().kind(), ErrorKind::Rejected);
        let error = read_capped_or_pipe(endless, "a list", 9, &Budget::default()).unwrap_err();
        assert_eq!(error.message(), "/dev/zero: expected a regular file");
        // A file whose length says nothing.
        let error = read_capped(Path::new("/proc/self/status"), "a list", 9).unwrap_err();
        assert_eq!(error.message(), "/proc/self/status: a list of at most 9 bytes expected, more found");
    }

    #[test]
    fn what_is_read_is_paid_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        std::fs::write(&path, vec![b'x'; 1000]).unwrap();
        let budget = Budget::new(1500);
        let (bytes, charge) = read_capped_within(&path, "a list", 5000, &budget).unwrap();
        assert_eq!((bytes.len(), budget.left()), (1000, 500));
        assert!(read_capped_within(&path, "a list", 5000, &budget).is_err());
        drop(charge);
        assert_eq!(budget.left(), 1500);
    }

    /// `<(…)` is read however slowly it comes; a pipe with a name may never be written to.
    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_of_the_shell_are_read_and_named_ones_refused() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let write = std::thread::spawn(move || {
            for piece in ["first ", "second"] {
                std::thread::sleep(Duration::from_millis(30));
                writer.write_all(piece.as_bytes()).unwrap();
            }
        });
        let budget = Budget::default();
        let bytes = read_capped_or_pipe(Path::new(&path), "a job file", 100, &budget).unwrap();
        assert_eq!(bytes, b"first second");
        write.join().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("jobs.toml");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &named, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = read_capped_or_pipe(&named, "a job file", 100, &budget).unwrap_err();
        assert!(error.message().ends_with("expected a regular file"), "{error}");

        // Nobody writes, and the user loses patience.
        let (reader, _writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let stopped = Budget::cancelled_by(100, || true);
        let error = read_capped_or_pipe(Path::new(&path), "a job file", 100, &stopped).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Interrupted);
    }
}
