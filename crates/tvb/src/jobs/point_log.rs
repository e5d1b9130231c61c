//! `points.jsonl`: what a sweep or a fit is, then one line for every finished point, each on the disk before work that depends on it.
//!
//! A run that was stopped resumes where it was. The first line says what the points belong to; a log of something else is
//! refused.

use crate::checkpoint::{Budget, Checkpoint, Existing, has_no_locks, json_cost, open_itself, say_without_lock};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::bookmarks::never_again;
use crate::jobs::edit::Source;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The log's name inside the folder.
const FILE_NAME: &str = "points.jsonl";
/// A longer file is not one of ours.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// Whose points they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sweep,
    Fit,
}

impl Kind {
    fn format(self) -> &'static str {
        match self {
            Kind::Sweep => "tvb-sweep",
            Kind::Fit => "tvb-fit",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Sweep => "sweep",
            Kind::Fit => "fit",
        }
    }
}

/// What the points of a log belong to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    kind: Kind,
    members: Map<String, Value>,
}

impl Identity {
    /// By these members, behind the format and its version.
    pub(super) fn new<const N: usize>(kind: Kind, members: [(&str, Value); N]) -> Identity {
        let first = [("format", json!(kind.format())), ("version", json!(1))];
        let members = first.into_iter().chain(members).map(|(name, value)| (name.to_owned(), value)).collect();
        Identity { kind, members }
    }

    /// One more member, of what most runs do not say.
    pub(super) fn add(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    /// Of the edit, the base, the evaluator and whatever else there is.
    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of(Value::Object(self.members.clone()).to_string().as_bytes())
    }

    /// The members in which another one differs.
    fn differences<'a>(&'a self, other: &'a Map<String, Value>) -> Vec<&'a str> {
        let differs = |(name, value): &(&String, &Value)| other.get(*name) != Some(*value);
        let own = self.members.iter().filter(differs).map(|(name, _)| name.as_str());
        // What only the other says counts too.
        let others = other.keys().filter(|name| !self.members.contains_key(*name)).map(String::as_str);
        own.chain(others).collect()
    }
}

/// What an edit is formed from.
pub(super) fn source_json(source: Source<'_>) -> Value {
    match source {
        Source::Basis(basis) => json!({ "basis": basis.manifest.checksum }),
        Source::Checkpoints(plan) => {
            let names = plan.tensors.iter().map(|tensor| Digest::of(tensor.name.as_bytes()));
            let tasks = plan.tasks.iter().map(|task| json!({ "task": task.name, "files": files(&task.checkpoint) }));
            json!({ "originals": tasks.collect::<Vec<_>>(), "tensors": Digest::of_digests(names) })
        }
    }
}

/// Path, size and time of every file of a checkpoint, and the key in it that was given. A state dict in memory is never the same
/// again.
pub(super) fn files(checkpoint: &Checkpoint) -> Value {
    let file = |file: &crate::checkpoint::DataFile| {
        let stamp = file.stamp();
        let modified = stamp.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
        json!({ "path": path.to_string_lossy(), "bytes": stamp.len, "modified": modified.map(seconds) })
    };
    let key = checkpoint.key().map(|key| json!({ "key": key }));
    let in_memory = checkpoint.is_in_memory().then(|| json!({ "in_memory": never_again() }));
    checkpoint.files().iter().map(file).chain(key).chain(in_memory).collect()
}

/// A time since 1970 as the first version's logs have it: seconds, and what is behind the point where there is anything.
fn seconds(since: std::time::Duration) -> String {
    let digits = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    format!("{}s", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// The open file, locked against a second run.
#[derive(Debug)]
pub(super) struct PointLog<P> {
    path: PathBuf,
    file: File,
    points: Vec<P>,
}

impl<P: Serialize + DeserializeOwned> PointLog<P> {
    /// Resumes the sweep or the fit in `folder`, or begins one there; the folder is made where it is not.
    ///
    /// # Errors
    /// Rejected: the folder holds something else, another sweep (unless it is to be replaced), or a damaged log. Failed:
    /// another run is at work there, or the system refuses.
    pub(super) fn open(folder: &Path, identity: &Identity, existing: Existing) -> Result<PointLog<P>> {
        let path = folder.join(FILE_NAME);
        let noun = identity.kind.noun();
        check_folder(identity.kind, folder)?;
        std::fs::create_dir_all(folder).map_err(|error| Error::io("creating", folder, &error))?;
        let io = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| Error::io(what, &path, &error)
        };
        // Never by a link: what it leads to would be cut.
        let is_there = std::fs::symlink_metadata(&path).is_ok();
        let mut file = open_itself(&path, !is_there).map_err(io("opening", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::failed(format!("{}: another run is at work on this {noun}", folder.display()))
                    .hint("wait for it, or choose another output"));
            }
            Err(TryLockError::Error(error)) if has_no_locks(&error) => say_without_lock(&path, &error),
            Err(TryLockError::Error(error)) => return Err(io("locking", &path)(error)),
        }
        let metadata = file.metadata().map_err(io("reading", &path))?;
        if !metadata.is_file() {
            return Err(Error::rejected(format!("{}: expected a regular file", path.display())));
        }
        let n_bytes = metadata.len();
        if n_bytes > MAX_BYTES {
            return Err(Error::rejected(format!(
                "{}: at most {MAX_BYTES} bytes expected, {n_bytes} found",
                path.display()
            )));
        }
        let mut text = Vec::new();
        (&mut file).take(n_bytes).read_to_end(&mut text).map_err(io("reading", &path))?;
        if !is_log_of(identity.kind, &text) {
            return Err(Error::rejected(format!(
                "{}: a {noun}'s points expected, something else found",
                path.display()
            ))
            .hint("choose another output"));
        }
        // A log can be larger than what its values may take of memory: those of a hostile one have a byte each.
        let _charge = Budget::default().charge(&path, "a log of points", n_bytes + json_cost(&text))?;
        // A line without its end was being written when the run was stopped.
        let n_whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // A sweep that never finished a point may be replaced by any other.
        let whole = text.get(..n_whole).unwrap_or_default();
        let is_begun = whole.iter().filter(|byte| **byte == b'\n').count() > 1;
        let (n_kept, points) = match existing {
            Existing::Refuse if is_begun => (n_whole, parse(whole, identity, folder, &path)?),
            _ => (0, Vec::new()),
        };
        file.set_len(n_kept as u64).map_err(io("writing", &path))?;
        file.seek(SeekFrom::Start(n_kept as u64)).map_err(io("writing", &path))?;
        let mut log = PointLog { path, file, points };
        if n_kept == 0 {
            log.append(&Value::Object(identity.members.clone()))?;
        }
        Ok(log)
    }

    /// The finished points.
    pub(super) fn points(&self) -> &[P] {
        &self.points
    }

    /// Adds a point; it is on the disk afterwards.
    pub(super) fn push(&mut self, point: P) -> Result<()> {
        self.append(&point)?;
        self.points.push(point);
        Ok(())
    }

    fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)
            .map_err(|error| Error::failed(format!("{}: a point cannot be written: {error}", self.path.display())))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io("writing", &self.path, &error))
    }
}

/// Whether a file's text is a log's, or the beginning of one: only such a file is ever written to.
fn is_log_of(kind: Kind, text: &[u8]) -> bool {
    let start = format!("{{\"format\":\"{}\",", kind.format());
    text.starts_with(start.as_bytes()) || start.as_bytes().starts_with(text)
}

/// A folder that is empty, not there, or a sweep's or a fit's.
pub(super) fn check_folder(kind: Kind, folder: &Path) -> Result<()> {
    let log = folder.join(FILE_NAME);
    let is_fit = match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            std::fs::symlink_metadata(log).is_ok_and(|found| found.is_file()) || entries.next().is_none()
        }
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_fit {
        return Ok(());
    }
    let (noun, folder) = (kind.noun(), folder.display());
    Err(Error::rejected(format!("{folder}: a new folder or a {noun}'s own expected, something else found"))
        .hint("choose another output"))
}

fn parse<P: DeserializeOwned>(text: &[u8], identity: &Identity, folder: &Path, path: &Path) -> Result<Vec<P>> {
    let noun = identity.kind.noun();
    let damaged = |number: usize, what: String| {
        Error::rejected(format!("{}, line {number}: {what}", path.display()))
            .hint(format!("--overwrite starts this {noun} over"))
    };
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let Some((_, first)) = lines.next() else { return Ok(Vec::new()) };
    let header: Map<String, Value> =
        serde_json::from_slice(first).map_err(|error| damaged(1, format!("what the {noun} is expected: {error}")))?;
    let differences = identity.differences(&header);
    if !differences.is_empty() {
        return Err(Error::rejected(format!(
            "{}: another {noun} was made here; it differs in: {}",
            folder.display(),
            differences.join(", ")
        ))
        .hint("choose another output, or replace it with --overwrite"));
    }
    lines
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|error| damaged(index + 1, format!("a point expected: {error}")))
        })
        .collect()
}
