//! An output on its way: prepared, written to, then committed or removed.

use super::files::{Birth, open_itself, parent, remove, sibling, sync_all, sync_folder};
use super::inputs::Inputs;
use super::lock::{OutputLock, Record, is_unfinished};
use super::replace;
use super::whole::check_replaceable;
use crate::error::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Whether the output is one file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// One file.
    File,
    /// A folder.
    Folder,
}

/// What to do with an output that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Stop.
    Refuse,
    /// Replace it, once the new one is complete.
    Replace,
}

/// What to do with a `NAME.partial` that an interrupted run left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Delete it and start over.
    Clear,
    /// Resume it; [`StagedOutput::resumed`] says whether there was one.
    Keep,
}

/// The longest name that a file system takes, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The longest of the endings that names beside an output have.
const LONGEST_END: &str = ".partial.bookmarks";

/// An output on its way: write to [`path`](StagedOutput::path), then [`commit`](StagedOutput::commit). Dropped before
/// that, it is removed without a trace.
///
/// Only what a run made is ever removed or replaced. What stands at `NAME.partial` or `NAME.partial.old` is known as a dead
/// run's by its lock file, which says what that run had made; anything else there is refused and stays.
#[derive(Debug)]
pub struct StagedOutput {
    kind: OutputKind,
    target: PathBuf,
    partial: PathBuf,
    existing: Existing,
    resumed: bool,
    /// Nobody needs it after a crash: it is not waited for until it is on the disk.
    is_scratch: bool,
    /// The partial output, as this run made it; it goes when this is dropped.
    made: Option<Birth>,
    /// Folders that were made for the output, outermost first; they go when this is dropped.
    made_folders: Vec<PathBuf>,
    lock: Option<OutputLock>,
}

/// Writes a file that appears whole or not at all, made from `inputs`.
///
/// # Errors
/// As [`StagedOutput::file`] and [`StagedOutput::commit`].
pub fn write_whole(path: &Path, bytes: &[u8], existing: Existing, inputs: &Inputs) -> Result<()> {
    StagedOutput::file(path, existing, inputs)?.commit_bytes(bytes)
}

/// Whether an output could be made at `target`, without making anything: for what is to be known before long work.
///
/// # Errors
/// As [`StagedOutput::folder`], but for another run that is writing it.
pub fn check_output(kind: OutputKind, target: &Path, existing: Existing, inputs: &Inputs) -> Result<()> {
    resolve_target(kind, target).and_then(|target| check_target(kind, &target, existing, inputs))
}

/// Commits several outputs, all or none: what has appeared goes back where one cannot.
///
/// # Errors
/// As [`StagedOutput::commit`].
pub fn commit_all(outputs: Vec<StagedOutput>) -> Result<()> {
    for output in &outputs {
        if !output.is_scratch {
            sync_all(&output.partial)?;
        }
        check_existing(output.kind, &output.target, output.existing)?;
    }
    let mut outputs = outputs;
    if outputs.len() > 1 {
        // A kill between two of them must not leave the next run some that it refuses to make again.
        for output in &mut outputs {
            output.write_lock(Record { partial: output.made, old: None, together: true })?;
        }
    }
    let mut appeared = Ok(());
    let mut n_done = 0;
    for output in &mut outputs {
        appeared = output.appear();
        if appeared.is_err() {
            break;
        }
        n_done += 1;
    }
    if let Err(error) = appeared {
        outputs.iter_mut().take(n_done).rev().for_each(StagedOutput::go_back);
        return Err(error);
    }
    outputs.iter_mut().for_each(StagedOutput::settle);
    Ok(())
}

impl StagedOutput {
    /// Prepares a folder that is made from `inputs`. The partial folder exists afterwards.
    ///
    /// # Errors
    /// Usage: a path that cannot be an output's. Rejected when the output exists and is not to be replaced, or must not be,
    /// as where it is an input or holds one, or when something that no run of this program left stands where it is written.
    /// Failed when another run is writing it or the system refuses.
    pub fn folder(target: &Path, existing: Existing, leftover: Leftover, inputs: &Inputs) -> Result<StagedOutput> {
        StagedOutput::prepare(OutputKind::Folder, target, existing, leftover, inputs)
    }

    /// Prepares a single file that is made from `inputs`. The partial file is empty afterwards.
    ///
    /// # Errors
    /// As [`folder`](StagedOutput::folder).
    pub fn file(target: &Path, existing: Existing, inputs: &Inputs) -> Result<StagedOutput> {
        StagedOutput::prepare(OutputKind::File, target, existing, Leftover::Clear, inputs)
    }

    fn prepare(
        kind: OutputKind,
        target: &Path,
        existing: Existing,
        leftover: Leftover,
        inputs: &Inputs,
    ) -> Result<StagedOutput> {
        let target = resolve_target(kind, target)?;
        // Before anything is created, for the usual mistake; again under the lock.
        check_target(kind, &target, existing, inputs)?;
        let made_folders = create_parents(&target)?;
        let partial = sibling(&target, ".partial");
        let mut staged = StagedOutput {
            kind,
            target,
            partial,
            existing,
            resumed: false,
            is_scratch: false,
            made: None,
            made_folders,
            lock: None,
        };
        let mut lock = OutputLock::acquire(&sibling(&staged.target, ".partial.lock"), &staged.target)?;
        let result = staged.take_over(&lock, leftover, inputs);
        if result.is_err() && lock.found.is_some_and(|found| found.partial == Birth::of(&staged.partial)) {
            // What it says of the partial output is still true.
            lock.stay();
        }
        staged.lock = Some(lock);
        result?;
        if staged.existing == Existing::Refuse && std::fs::symlink_metadata(&staged.target).is_ok() {
            // What a dead run had not finished; the check let it pass.
            staged.existing = Existing::Replace;
        }
        staged.make_partial()?;
        Ok(staged)
    }

    /// Deals with what a dead run left; what is another's is refused.
    fn take_over(&mut self, lock: &OutputLock, leftover: Leftover, inputs: &Inputs) -> Result<()> {
        let old = self.old();
        let record = lock.found.unwrap_or_default();
        replace::recover(&self.partial, &self.target, &old, &record)?;
        check_target(self.kind, &self.target, self.existing, inputs)?;
        let in_the_way = |path: &Path| {
            Err(Error::rejected(format!(
                "{}: stands where the output is written, and no run of this program left it there",
                path.display()
            ))
            .hint("move it away, or choose another output"))
        };
        if self.kind == OutputKind::Folder && std::fs::symlink_metadata(&old).is_ok() {
            return in_the_way(&old);
        }
        let Some(found) = Birth::of(&self.partial) else { return Ok(()) };
        // A run that died before it could write down what it had made had made nothing in it.
        let is_ours = record.partial == Some(found) || (lock.found.is_some() && is_empty(&self.partial));
        if !is_ours {
            return in_the_way(&self.partial);
        }
        let is_folder = std::fs::symlink_metadata(&self.partial).is_ok_and(|found| found.is_dir());
        self.resumed = self.kind == OutputKind::Folder && leftover == Leftover::Keep && is_folder;
        if !self.resumed {
            remove(&self.partial).map_err(|error| Error::io("removing", &self.partial, &error))?;
        }
        Ok(())
    }

    /// Makes the partial output, where there is none to resume, and writes down that it is this run's.
    fn make_partial(&mut self) -> Result<()> {
        if !self.resumed {
            let made = match self.kind {
                OutputKind::Folder => std::fs::create_dir(&self.partial),
                OutputKind::File => open_itself(&self.partial, true).map(drop),
            };
            made.map_err(|error| Error::io("creating", &self.partial, &error))?;
        }
        self.made = Birth::of(&self.partial);
        self.write_lock(Record { partial: self.made, ..Record::default() })
    }

    fn write_lock(&mut self, record: Record) -> Result<()> {
        let Some(lock) = &mut self.lock else { return Ok(()) };
        lock.write(&record)?;
        if self.kind == OutputKind::Folder {
            lock.sync();
        }
        Ok(())
    }

    fn old(&self) -> PathBuf {
        sibling(&self.target, ".partial.old")
    }

    /// Makes it one that nobody needs after a crash: it appears whole, and nothing is waited for until it is on the disk.
    pub fn scratch(&mut self) {
        self.is_scratch = true;
    }

    /// Whether it is such a one.
    pub fn is_scratch(&self) -> bool {
        self.is_scratch
    }

    /// Where to write: the partial file or folder, on the same disk as the final place.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Where the output will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether the folder holds what an interrupted run left.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Leaves a partial folder for a later run to resume, instead of removing it. Its lock file stays too, as what the later
    /// run knows it by. Of a partial file nothing stays but the folders made for it.
    pub fn keep(mut self) {
        self.made_folders.clear();
        if self.kind == OutputKind::Folder {
            self.made = None;
            if let Some(lock) = &mut self.lock {
                lock.stay();
            }
        }
    }

    /// Writes a whole file and lets it appear.
    ///
    /// # Errors
    /// As [`commit`](StagedOutput::commit).
    pub fn commit_bytes(self, bytes: &[u8]) -> Result<()> {
        let written = open_itself(&self.partial, false).and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| Error::io("writing", &self.partial, &error))?;
        self.commit()
    }

    /// Writes a small file of the folder, whole.
    ///
    /// # Errors
    /// Failed: there is one of that name, or the system cannot write.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        self.put_bytes(name, text.as_bytes())
    }

    /// The same for what is no text.
    ///
    /// # Errors
    /// As [`put`](StagedOutput::put).
    pub fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| Error::io("writing", &path, &error))
    }

    /// Makes sure that every byte is on the disk, then lets the output appear at its final place.
    ///
    /// # Errors
    /// Failed when the system refuses; the old output is still there then. Rejected when an output has appeared in the
    /// meantime and is not to be replaced.
    pub fn commit(self) -> Result<()> {
        commit_all(vec![self])
    }

    /// Renames the partial output to its final place.
    fn appear(&mut self) -> Result<()> {
        let io = |error: std::io::Error| Error::io("renaming the complete output to", &self.target, &error);
        let is_there = std::fs::symlink_metadata(&self.target).is_ok();
        match self.kind {
            OutputKind::File if self.existing == Existing::Replace => {
                std::fs::rename(&self.partial, &self.target).map_err(io)
            }
            _ if !is_there => match replace::rename_new(&self.partial, &self.target) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
                renamed => renamed.map_err(io),
            },
            _ if self.existing == Existing::Refuse => Err(exists(&self.target)),
            _ => {
                // The next run must know both, wherever this one may die.
                self.write_lock(Record { partial: self.made, old: Birth::of(&self.target), together: false })?;
                let replaced = replace::folder(&self.partial, &self.target, &self.old());
                if let (Err(_), Some(lock)) = (&replaced, &mut self.lock) {
                    lock.stay();
                }
                replaced
            }
        }
    }

    /// What a kill while several outputs appear leaves, before anything is renamed.
    #[cfg(test)]
    pub(super) fn die_while_appearing(&mut self) {
        self.write_lock(Record { partial: self.made, old: None, together: true }).unwrap();
    }

    /// What a kill in the middle of the replacement of a folder leaves, before anything is renamed.
    #[cfg(test)]
    pub(super) fn die_while_replacing(mut self) {
        self.write_lock(Record { partial: self.made, old: Birth::of(&self.target), together: false }).unwrap();
        self.keep();
    }

    /// Takes back an output that has appeared, where it replaced nothing.
    fn go_back(&mut self) {
        if self.existing == Existing::Refuse && Birth::of(&self.target) == self.made {
            let _ = replace::rename_new(&self.target, &self.partial);
        }
    }

    /// The output is where it belongs.
    fn settle(&mut self) {
        self.made = None;
        self.made_folders.clear();
        if !self.is_scratch {
            sync_folder(parent(&self.target));
        }
    }
}

/// Removes the lock that a process which died just after its output appeared left beside it; one that is held stays, and one
/// that says what an interrupted run left. For outputs that are complete and need no run of their own.
pub fn remove_stale_lock(target: &Path) {
    let lock = sibling(target, ".partial.lock");
    let is_there = |end: &str| std::fs::symlink_metadata(sibling(target, end)).is_ok();
    if lock.exists() && !is_there(".partial") && !is_there(".partial.old") {
        drop(OutputLock::acquire(&lock, target));
    }
}

impl Drop for StagedOutput {
    fn drop(&mut self) {
        // Under the lock it is this run's. Its number is not asked for: on some file systems it changes while one looks away.
        if self.made.is_some() && check_kind(self.kind, &self.partial).is_ok() {
            let _ = remove(&self.partial);
        }
        // The lock file lies in the folder that may have been made for the output.
        self.lock = None;
        for folder in self.made_folders.iter().rev() {
            // Only while nobody else has put something there.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The output's own path: absolute, so that a later change of folder does not matter, with a link followed, so that
/// what it leads to is replaced and not the link.
fn resolve_target(kind: OutputKind, target: &Path) -> Result<PathBuf> {
    let usage = |what: &str| Error::usage(format!("{}: {what}", target.display()));
    if target.as_os_str().is_empty() {
        return Err(Error::usage("an output with a name expected, an empty path found"));
    }
    if kind == OutputKind::File && names_a_folder(target) {
        return Err(
            usage("the output is a file, and this path can only be a folder's").hint("leave out what follows the name")
        );
    }
    // Without a slash at its end, behind which a link would be followed here and not elsewhere.
    let target = &target.components().collect::<PathBuf>();
    let linked = std::fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink());
    let ends_in_name = matches!(target.components().next_back(), Some(std::path::Component::Normal(_)));
    let resolved = match linked || (!ends_in_name && target.exists()) {
        true => target.canonicalize(),
        false => std::path::absolute(target),
    };
    let resolved = resolved.map_err(|error| Error::io("opening", target, &error))?;
    match resolved.file_name() {
        Some(name) if name.len() + LONGEST_END.len() > NAME_BYTES_MAX => {
            let most = NAME_BYTES_MAX - LONGEST_END.len();
            Err(usage(&format!("the output's name has {} bytes, expected at most {most}", name.len())))
        }
        // `a/..` of something that does not exist.
        Some(_) if ends_in_name || linked || target.exists() => Ok(resolved),
        _ => Err(usage("expected an output with a name")),
    }
}

/// Whether a path ends as only a folder's can: `x/`, `x/.`, `..`.
fn names_a_folder(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    let last = text.rsplit(|&byte| std::path::is_separator(char::from(byte))).next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..")
}

fn check_target(kind: OutputKind, target: &Path, existing: Existing, inputs: &Inputs) -> Result<()> {
    check_kind(kind, target)?;
    inputs.check(target)?;
    for end in [".partial", ".partial.lock", ".partial.old"] {
        inputs.check(&sibling(target, end))?;
    }
    check_existing(kind, target, existing)?;
    if kind == OutputKind::Folder { inputs.check_entries(target) } else { Ok(()) }
}

fn exists(target: &Path) -> Error {
    Error::rejected(format!("{}: exists already", target.display()))
        .hint("choose another output, or replace it with --overwrite")
}

fn check_existing(kind: OutputKind, target: &Path, existing: Existing) -> Result<()> {
    if std::fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    if existing == Existing::Refuse && !is_unfinished(&sibling(target, ".partial.lock"), target) {
        return Err(exists(target));
    }
    check_kind(kind, target)?;
    if kind == OutputKind::Folder { check_replaceable(target) } else { Ok(()) }
}

/// Whether what is at the output's place is of its kind.
fn check_kind(kind: OutputKind, target: &Path) -> Result<()> {
    let Ok(found) = std::fs::symlink_metadata(target) else { return Ok(()) };
    let (expected, fits) = match kind {
        OutputKind::File => ("a file", found.is_file()),
        OutputKind::Folder => ("a folder", found.is_dir()),
    };
    if fits {
        return Ok(());
    }
    Err(Error::rejected(format!("{}: the output is {expected}, found something else there", target.display()))
        .hint("choose another output"))
}

/// A file without bytes, or a folder without entries.
fn is_empty(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()),
        Ok(found) => found.is_file() && found.len() == 0,
        Err(_) => false,
    }
}

/// Makes the folders above `target` and answers with those that were missing, outermost first.
fn create_parents(target: &Path) -> Result<Vec<PathBuf>> {
    let above = parent(target);
    let mut missing: Vec<PathBuf> =
        above.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    let lowest = above.ancestors().find(|folder| folder.exists());
    if let Some(file) = lowest.filter(|folder| !folder.is_dir()) {
        return Err(Error::rejected(format!("{}: a folder expected above the output, found a file", file.display()))
            .hint("choose another output"));
    }
    std::fs::create_dir_all(above).map_err(|error| Error::io("creating", above, &error))?;
    Ok(missing)
}
