//! `points.jsonl`: what the sweep is, then one line for every finished point, each on the disk before the next begins.
//!
//! A run that was stopped resumes where it was. The first line says what the points belong to; a sweep of something
//! else is refused. How the best is chosen is not part of it: another metric needs no new evaluation.

use super::scales::is_same_scale;
use crate::checkpoint::{Budget, Checkpoint, Existing, has_no_locks, json_cost, open_itself, say_without_lock};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::bookmarks::never_again;
use crate::jobs::edit::{Edit, Source};
use crate::jobs::evaluate::Metrics;
use crate::solve::Rule;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The log's name inside the sweep's folder.
const FILE_NAME: &str = "points.jsonl";
/// A longer file is not one of ours.
const MAX_BYTES: u64 = 64 << 20;

/// One scale and what the evaluator said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// λ.
    pub scale: f64,
    /// The evaluator's metrics.
    pub metrics: Metrics,
    /// How long forming and evaluating the candidate took.
    pub seconds: f64,
}

/// What the points of a sweep belong to: the edit, the base and the evaluator.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity(Map<String, Value>);

impl Identity {
    pub(super) fn of(
        source: Source<'_>,
        edit: &Edit,
        base: &Checkpoint,
        dtype: Option<tvb_kernels::Dtype>,
        evaluator: &[String],
    ) -> Identity {
        let source = match source {
            Source::Basis(basis) => json!({ "basis": basis.manifest.checksum }),
            Source::Checkpoints(plan) => {
                let names = plan.tensors.iter().map(|tensor| Digest::of(tensor.name.as_bytes()));
                let tasks =
                    plan.tasks.iter().map(|task| json!({ "task": task.name, "files": files(&task.checkpoint) }));
                json!({ "originals": tasks.collect::<Vec<_>>(), "tensors": Digest::of_digests(names) })
            }
        };
        // As text: a number that is read back may differ in its last bit.
        let alpha: Vec<String> = edit.alpha.iter().map(f64::to_string).collect();
        let rule = match edit.rule {
            Rule::Projected => "projected",
            Rule::Sum => "sum",
        };
        let members = [
            ("format", json!("tvb-sweep")),
            ("version", json!(1)),
            ("source", source),
            ("alpha", json!(alpha)),
            ("rule", json!(rule)),
            ("base", files(base)),
            ("dtype", json!(dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).to_string()))),
            ("evaluator", json!(evaluator)),
        ];
        Identity(members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
    }

    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of(Value::Object(self.0.clone()).to_string().as_bytes())
    }

    /// The members in which another sweep differs.
    fn differences(&self, other: &Map<String, Value>) -> Vec<&str> {
        self.0.iter().filter(|(name, value)| other.get(*name) != Some(*value)).map(|(name, _)| name.as_str()).collect()
    }
}

/// Path, size and time of every file of a checkpoint, and the key in it that was given. A state dict in memory is never the same
/// again.
fn files(checkpoint: &Checkpoint) -> Value {
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
pub(super) struct PointLog {
    path: PathBuf,
    file: File,
    points: Vec<Point>,
}

impl PointLog {
    /// Resumes the sweep in `folder`, or begins one there; the folder is made where it is not.
    ///
    /// # Errors
    /// Rejected: the folder holds something else, another sweep (unless it is to be replaced), or a damaged log. Failed:
    /// another run is at work there, or the system refuses.
    pub(super) fn open(folder: &Path, identity: &Identity, existing: Existing) -> Result<PointLog> {
        let path = folder.join(FILE_NAME);
        check_folder(folder)?;
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
                return Err(Error::failed(format!("{}: another run is at work on this sweep", folder.display()))
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
        if !is_sweep_log(&text) {
            return Err(Error::rejected(format!(
                "{}: a sweep's points expected, something else found",
                path.display()
            ))
            .hint("choose another output"));
        }
        // A log can be larger than what its values may take of memory: those of a hostile one have a byte each.
        let _charge = Budget::default().charge(&path, "a sweep's log", n_bytes + json_cost(&text))?;
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
            log.append(&Value::Object(identity.0.clone()))?;
        }
        Ok(log)
    }

    /// The finished points.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The finished point at `scale`, where there is one.
    pub(super) fn find(&self, scale: f64) -> Option<&Point> {
        self.points.iter().find(|point| is_same_scale(point.scale, scale))
    }

    /// Adds a point; it is on the disk afterwards.
    pub(super) fn push(&mut self, point: Point) -> Result<()> {
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

/// Whether a file's text is a sweep's, or the beginning of one: only such a file is ever written to.
fn is_sweep_log(text: &[u8]) -> bool {
    const START: &[u8] = br#"{"format":"tvb-sweep","#;
    text.starts_with(START) || START.starts_with(text)
}

/// A folder that is empty, not there, or a sweep's.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
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
    Err(Error::rejected(format!("{}: a new folder or a sweep's own expected, something else found", folder.display()))
        .hint("choose another output"))
}

fn parse(text: &[u8], identity: &Identity, folder: &Path, path: &Path) -> Result<Vec<Point>> {
    let damaged = |number: usize, what: String| {
        Error::rejected(format!("{}, line {number}: {what}", path.display())).hint("--overwrite starts this sweep over")
    };
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let Some((_, first)) = lines.next() else { return Ok(Vec::new()) };
    let header: Map<String, Value> =
        serde_json::from_slice(first).map_err(|error| damaged(1, format!("what the sweep is expected: {error}")))?;
    let differences = identity.differences(&header);
    if !differences.is_empty() {
        return Err(Error::rejected(format!(
            "{}: another sweep was made here; it differs in: {}",
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
