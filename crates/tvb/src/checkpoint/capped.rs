//! Small files read whole, at most so many bytes of them: lists, manifests and matrices beside the weights.
//!
//! The file is opened once and its own handle is asked for its length, so that what is checked is what is read. At most one
//! byte more than allowed is ever read, whatever a file claims or grows to meanwhile.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The bytes of a regular file of at most `max_bytes`; `what` names it in messages: "a shard index". For files that came
/// with a checkpoint or a basis, where a pipe would make the reader wait forever.
///
/// # Errors
/// Rejected: no regular file, or a larger one. Failed: the system cannot read.
pub(crate) fn read_capped(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>> {
    let found = std::fs::metadata(path).map_err(|error| Error::io("reading", path, &error))?;
    if !found.is_file() {
        return Err(Error::rejected(format!("{}: expected a regular file", path.display())));
    }
    read_capped_or_pipe(path, what, max_bytes)
}

/// As [`read_capped`], for files that the user names, which may be pipes: `tvb batch <(make-jobs)`.
///
/// # Errors
/// Rejected: more than `max_bytes`. Failed: the system cannot read.
pub(crate) fn read_capped_or_pipe(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>> {
    let io = |error: std::io::Error| Error::io("reading", path, &error);
    let too_large = |found: String| {
        Error::rejected(format!("{}: {what} of at most {max_bytes} bytes expected, {found} found", path.display()))
    };
    let file = File::open(path).map_err(io)?;
    let n_bytes = file.metadata().map_err(io)?.len();
    if n_bytes > max_bytes {
        return Err(too_large(n_bytes.to_string()));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large("more".into()));
    }
    Ok(bytes)
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

    /// Its length says nothing: zero bytes, and then more than any bound.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_endless_file_is_cut_off() {
        let endless = Path::new("/dev/zero");
        assert_eq!(read_capped(endless, "a list", 9).unwrap_err().kind(), ErrorKind::Rejected);
        let error = read_capped_or_pipe(endless, "a list", 9).unwrap_err();
        assert_eq!(error.message(), "/dev/zero: a list of at most 9 bytes expected, more found");
    }
}
