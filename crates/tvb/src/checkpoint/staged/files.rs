//! The few steps on files and folders that staging consists of.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The folder that `target` lies in.
pub(super) fn parent(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("/"))
}

/// `NAME` + `end` in the same folder.
pub(super) fn sibling(target: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(target.file_name().unwrap_or_default());
    name.push(end);
    target.with_file_name(name)
}

/// What the system knows a file or a folder by: device and inode, or where it has no such numbers the true path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    numbers: (u64, u64),
    path: Option<PathBuf>,
}

/// The file or folder that `path` leads to; `None` where there is none.
pub(super) fn id_of(path: &Path) -> Option<Id> {
    let found = std::fs::metadata(path).ok()?;
    Some(id(&found, path))
}

/// What stands at `path` itself: a link is not followed.
pub(super) fn id_of_entry(path: &Path) -> Option<Id> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some(id(&found, path))
}

#[cfg(unix)]
fn id(found: &Metadata, _path: &Path) -> Id {
    use std::os::unix::fs::MetadataExt;
    Id { numbers: (found.dev(), found.ino()), path: None }
}

#[cfg(not(unix))]
fn id(_found: &Metadata, path: &Path) -> Id {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Id { numbers: (0, 0), path: Some(whole.to_string_lossy().to_lowercase().into()) }
}

/// What tells that a file or a folder is the one that was seen before, over a restart too: its inode and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    inode: u64,
    made: Option<u128>,
}

impl Birth {
    /// Of what stands at `path`; a link is not followed. `None` where there is nothing.
    pub(super) fn of(path: &Path) -> Option<Birth> {
        let found = std::fs::symlink_metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let inode = 0;
        let made = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Some(Birth { inode, made: made.map(|since| since.as_nanos()) })
    }
}

impl std::fmt::Display for Birth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.inode, self.made.map_or("-".to_owned(), |made| made.to_string()))
    }
}

impl std::str::FromStr for Birth {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Birth, ()> {
        let (inode, made) = text.split_once(':').ok_or(())?;
        let made = if made == "-" { None } else { Some(made.parse().map_err(|_| ())?) };
        Ok(Birth { inode: inode.parse().map_err(|_| ())?, made })
    }
}

/// Where a path leads, and over which links.
#[derive(Debug)]
pub(super) struct Places {
    /// Every link on the way, each by a path without links before its name.
    pub(super) links: Vec<PathBuf>,
    /// The end, by a path without links. It need not exist.
    pub(super) end: PathBuf,
}

/// Walks a path as the system does. Names that are not there yet stay as they are, and `..` after them goes back.
///
/// # Errors
/// What the system says of the current folder, or of a link that leads in a circle.
pub(super) fn walk(path: &Path) -> std::io::Result<Places> {
    const N_LINKS_MAX: usize = 64;
    let whole = std::path::absolute(path)?;
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let mut links = Vec::new();
    let mut at = PathBuf::new();
    let queue = |path: &Path, at: &mut PathBuf, rest: &mut VecDeque<OsString>| {
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::Prefix(_) | Component::RootDir => at.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::Normal(_) => names.push(part.as_os_str().to_owned()),
            }
        }
        names.into_iter().rev().for_each(|name| rest.push_front(name));
    };
    queue(&whole, &mut at, &mut rest);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let place = at.join(&name);
        match std::fs::read_link(&place) {
            Ok(to) => {
                if links.len() == N_LINKS_MAX {
                    return Err(std::io::Error::other("too many symbolic links"));
                }
                links.push(place);
                if to.is_absolute() {
                    at = PathBuf::new();
                }
                queue(&to, &mut at, &mut rest);
            }
            Err(_) => at = place,
        }
    }
    Ok(Places { links, end: at })
}

/// Opens what a path names for reading and writing, and never what a link in its place leads to; a pipe does not block.
///
/// # Errors
/// What the system says.
pub(crate) fn open_itself(path: &Path, is_new: bool) -> std::io::Result<File> {
    itself(path, File::options().read(true).write(true).create_new(is_new))
}

/// Opens what a path names for reading, and never what a link in its place leads to; a pipe does not block.
///
/// # Errors
/// What the system says.
pub(crate) fn read_itself(path: &Path) -> std::io::Result<File> {
    itself(path, File::options().read(true))
}

fn itself(path: &Path, options: &mut std::fs::OpenOptions) -> std::io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    #[cfg(not(unix))]
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(std::io::Error::other("no regular file"));
    }
    options.open(path)
}

/// Where a path leads, without links and `..`; names that are not there yet stay as they are.
///
/// # Errors
/// Failed: what the system says of the current folder, or of a link that leads in a circle.
pub(crate) fn true_place(path: &Path) -> Result<PathBuf> {
    walk(path).map(|places| places.end).map_err(|error| Error::io("opening", path, &error))
}

/// Removes a file, a link or a whole folder; a link is never followed.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until a file, or everything below a folder, is on the disk.
pub(super) fn sync_all(path: &Path) -> Result<()> {
    let io = |error: std::io::Error| Error::io("writing", path, &error);
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io)? {
            sync_all(&entry.map_err(io)?.path())?;
        }
        sync_folder(path);
        Ok(())
    } else {
        File::open(path).and_then(|file| file.sync_all()).map_err(io)
    }
}

/// Makes renames in a folder last. Some systems cannot sync a folder; then they need it not.
pub(super) fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = path;
}
