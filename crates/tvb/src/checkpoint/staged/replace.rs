//! Putting a complete folder into its final place, where an old one may stand.

use super::files::{parent, remove, sync_folder};
use crate::error::{Error, Result};
use std::path::Path;

/// Renames `partial` to `target`. An old `target` is swapped in one step where the system can, else moved to `old`
/// first; either way it is deleted only when the new one is in place.
pub(super) fn folder(partial: &Path, target: &Path, old: &Path) -> Result<()> {
    let io = |error: std::io::Error| Error::io("renaming the complete output to", target, &error);
    if !target.exists() {
        return std::fs::rename(partial, target).map_err(io);
    }
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

/// Cleans up after a run that died inside [`folder`]: an old output without a new one comes back, else it goes.
pub(super) fn recover(target: &Path, old: &Path) -> Result<()> {
    if std::fs::symlink_metadata(old).is_err() || !is_ours(old) {
        return Ok(());
    }
    let done = if target.exists() { remove(old) } else { std::fs::rename(old, target) };
    done.map_err(|error| Error::io("cleaning up", old, &error))
}

/// Guards against `-o ~ --overwrite`: only a folder that looks like an output of this program is ever deleted.
///
/// # Errors
/// Rejected, saying why the folder stays.
pub(super) fn check_replaceable(target: &Path) -> Result<()> {
    let rejected = |why: &str| {
        Err(Error::rejected(format!("{}: will not be replaced: {why}", target.display()))
            .hint("choose another output, or remove the folder yourself"))
    };
    if std::env::current_dir().is_ok_and(|here| here.starts_with(target)) {
        return rejected("it holds the current folder");
    }
    if target.join(".git").exists() {
        return rejected("it holds a git repository");
    }
    if !is_ours(target) {
        return rejected("it holds no basis and no checkpoint, but other files");
    }
    Ok(())
}

/// Whether a folder is empty, or has a basis or a checkpoint right in it.
fn is_ours(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut empty = true;
    for entry in entries.flatten() {
        empty = false;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "basis.json" || [".safetensors", ".pt", ".bin"].iter().any(|end| name.ends_with(end)) {
            return true;
        }
    }
    empty
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
