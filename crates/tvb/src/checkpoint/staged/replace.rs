//! Putting a complete folder into its final place, where an old one may stand.

use super::files::{Birth, parent, remove, sync_folder};
use super::lock::Record;
use crate::error::{Error, Result};
use std::path::Path;

/// Renames `partial` to `target`. An old `target` is swapped in one step where the system can, else moved to `old`
/// first; either way it is deleted only when the new one is in place.
pub(super) fn folder(partial: &Path, target: &Path, old: &Path) -> Result<()> {
    let io = |error: std::io::Error| Error::io("renaming the complete output to", target, &error);
    if swap(partial, target) {
        // `partial` is now the old output; under its own name no later run can take it for work to resume.
        sync_folder(parent(target));
        std::fs::rename(partial, old).map_err(io)?;
    } else {
        std::fs::rename(target, old).map_err(io)?;
        if let Err(error) = std::fs::rename(partial, target) {
            let _ = std::fs::rename(old, target);
            return Err(io(error));
        }
        sync_folder(parent(target));
    }
    // The new output is complete; an old one that cannot be deleted now is deleted by the next run.
    let _ = remove(old);
    Ok(())
}

/// Cleans up after a run that died inside [`folder`], by what its lock says: an old output without a new one comes back, else
/// it goes. Nothing that the lock does not know is touched.
pub(super) fn recover(partial: &Path, target: &Path, old: &Path, record: &Record) -> Result<()> {
    let is = |path: &Path, birth: Option<Birth>| birth.is_some() && Birth::of(path) == birth;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Error::io("cleaning up", &path, &error)
    };
    let is_new = is(target, record.partial);
    if is_new && is(partial, record.old) {
        remove(partial).map_err(io(partial))?;
    }
    if is(old, record.old) {
        if is_new {
            remove(old).map_err(io(old))?;
        } else if std::fs::symlink_metadata(target).is_err() {
            std::fs::rename(old, target).map_err(io(old))?;
        }
    }
    Ok(())
}

/// Swaps two names in one step; false where the system or the file system cannot.
fn swap(a: &Path, b: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    {
        let _ = (a, b);
        false
    }
}

/// Renames where nothing is at `target`, in one step where the system can.
pub(super) fn rename_new(from: &Path, target: &Path) -> std::io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, target, RenameFlags::NOREPLACE) {
            // A file system that cannot do it at once.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return done.map_err(Into::into),
        }
    }
    match std::fs::symlink_metadata(target) {
        Ok(_) => Err(std::io::ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(from, target),
    }
}
