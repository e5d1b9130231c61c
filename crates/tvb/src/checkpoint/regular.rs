//! Opening what must be a regular file. A pipe would make whoever opens it wait for a writer that may never come, and a
//! device may have no end; so nothing is waited for, and the open file itself is asked what it is: between a look at a name
//! and its opening another file can take its place.

use crate::error::{Error, Result};
use std::fs::{File, Metadata};
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// Rejected: it is something else. Failed: the system cannot open it.
pub(crate) fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let (file, metadata) = open_at_once(path)?;
    if !metadata.is_file() {
        return Err(not_regular(path));
    }
    Ok((file, metadata))
}

/// A pipe with a name may never have a reader, and whoever opens it to write would wait for one. A pipe of the shell,
/// `>(…)`, has one.
///
/// # Errors
/// Rejected: `path` is a named pipe.
pub(crate) fn refuse_named_pipe(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if is_pipe(&found) && !is_descriptor(path) => Err(not_regular(path)),
        _ => Ok(()),
    }
}

pub(super) fn is_pipe(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        metadata.file_type().is_fifo() || metadata.file_type().is_socket()
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// Whether a path names what this process has open already.
pub(super) fn is_descriptor(path: &Path) -> bool {
    let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
        || standard.iter().any(|name| path == Path::new(name))
}

pub(super) fn not_regular(path: &Path) -> Error {
    Error::rejected(format!("{}: expected a regular file", path.display()))
}

/// Opens whatever `path` is, without waiting for a writer.
pub(super) fn open_at_once(path: &Path) -> Result<(File, Metadata)> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    }
    let file = options.open(path).map_err(|error| open_error(path, &error))?;
    let metadata = file.metadata().map_err(|error| Error::io("opening", path, &error))?;
    Ok((file, metadata))
}

fn open_error(path: &Path, error: &std::io::Error) -> Error {
    // Some systems do not open folders at all.
    if cfg!(not(unix)) && path.is_dir() {
        return not_regular(path);
    }
    let made = Error::io("opening", path, error);
    #[cfg(unix)]
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        // Many tasks with many shards each can run into the limit on open files; that deserves its own hint.
        Some(rustix::io::Errno::MFILE) => {
            return made.hint("every shard of every checkpoint stays open: raise the limit with `ulimit -n`");
        }
        // A socket cannot be opened.
        Some(rustix::io::Errno::NXIO) => return not_regular(path),
        _ => {}
    }
    made
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn pipes_devices_sockets_and_folders_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for path in [at("pipe"), at("socket"), folder.path().to_owned(), "/dev/zero".into(), "/dev/null".into()] {
            let error = open_regular(&path).unwrap_err();
            assert_eq!(error.message(), format!("{}: expected a regular file", path.display()));
            assert_eq!(error.kind(), ErrorKind::Rejected);
        }
        assert!(refuse_named_pipe(&at("pipe")).is_err());
        for path in [at("none"), folder.path().to_owned(), "/dev/null".into(), "/dev/stdout".into()] {
            assert!(refuse_named_pipe(&path).is_ok());
        }
        assert_eq!(open_regular(&at("none")).unwrap_err().kind(), ErrorKind::Failed);
    }
}
