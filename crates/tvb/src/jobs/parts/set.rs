//! The parts of one job, whatever the order they are named in: that each is there once, and that they belong together.

use crate::basis::part_file::{PartFile, PartRecord};
use crate::checkpoint::{Budget, Inputs};
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pass::Part;
use crate::shown::shown_path;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Missing parts that are listed one by one.
const N_TOLD: usize = 40;

/// One of the parts.
#[derive(Clone, Debug)]
pub struct FoundPart {
    /// Where it is: a file, or a folder that holds its record.
    pub path: PathBuf,
    /// Which part it is.
    pub part: Part,
    /// Of its record's file.
    pub checksum: Digest,
    /// Bytes of its record's file.
    pub n_bytes: u64,
    /// The kind of device that made it.
    pub device: String,
}

impl FoundPart {
    /// Its folder, where it was named by that or by its record.
    pub fn folder(&self) -> PathBuf {
        match self.path.is_dir() {
            true => self.path.clone(),
            false => self.path.parent().map_or_else(PathBuf::new, Path::to_owned),
        }
    }

    /// Opens it again.
    ///
    /// # Errors
    /// As [`PartFile::reopen`].
    pub fn open(&self, budget: &Budget) -> Result<PartFile> {
        PartFile::reopen(&self.path, self.checksum, budget)
    }
}

/// All parts of one job.
#[derive(Clone, Debug)]
pub struct PartSet {
    /// In order: part 1 first.
    pub parts: Vec<FoundPart>,
    /// The record of part 1, from which outputs take what copies may differ in.
    pub record: PartRecord,
}

impl PartSet {
    /// Reads the records of all parts, in any order. With `copies`, parts may have read copies of the same files: with other paths and
    /// other times of change.
    ///
    /// # Errors
    /// Usage: none is named. Rejected: a part that is damaged, there twice or missing, or parts of other jobs; each is named.
    /// Failed: I/O. Interrupted.
    pub fn read(paths: &[PathBuf], copies: bool, budget: &Budget) -> Result<PartSet> {
        let mut found: BTreeMap<Part, FoundPart> = BTreeMap::new();
        let mut first: Option<(&Path, PartRecord)> = None;
        for path in paths {
            let file = PartFile::open(path, budget)?;
            let (checksum, n_bytes) = (file.checksum, file.n_bytes());
            let record = file.finish()?;
            if let Some((other, expected)) = &first {
                check_same_job(path, &record, other, expected, copies)?;
            }
            let (part, device) = (record.part, record.device.clone());
            let own = FoundPart { path: path.clone(), part, checksum, n_bytes, device };
            if let Some(earlier) = found.insert(part, own) {
                let (a, b) = (shown_path(&earlier.path), shown_path(path));
                return Err(
                    Error::rejected(format!("part {part} is there twice: {a} and {b}")).hint("name each part once")
                );
            }
            if part.number() == 1 || first.is_none() {
                first = Some((path, record));
            }
        }
        let Some((_, record)) = first else {
            return Err(Error::usage("no part given").hint("name all parts of a job, in any order"));
        };
        check_complete(&found, record.part.n_parts())?;
        Ok(PartSet { parts: found.into_values().collect(), record })
    }

    /// The plan of the inputs, of which nothing can be read.
    ///
    /// # Errors
    /// Rejected: a record that no plan comes to, too little memory.
    pub fn plan(&self, budget: &Budget) -> Result<Plan> {
        let path = self.parts.first().map_or(Path::new(""), |part| &part.path);
        let plan = self.record.plan.plan(path, budget)?;
        match self.record.factored.last().is_some_and(|&last| last >= plan.tensors.len()) {
            true => Err(Error::rejected(format!("{}: factored tensors of the plan expected", path.display()))),
            false => Ok(plan),
        }
    }

    /// For each tensor of the plan, whether no rows of it were read for its Gram matrix.
    pub fn factored(&self, plan: &Plan) -> Vec<bool> {
        (0..plan.tensors.len()).map(|tensor| self.record.factored.binary_search(&tensor).is_ok()).collect()
    }

    /// What an output must leave alone: the parts, and the inputs where they are at hand.
    pub fn inputs(&self) -> Inputs {
        let parts = self.parts.iter().fold(Inputs::none(), |inputs, part| match part.path.is_dir() {
            true => inputs.and_all_of(&part.path),
            false => inputs.and(&part.path),
        });
        self.record.plan.paths().fold(parts, |inputs, path| inputs.and(path))
    }

    /// The kinds of devices that made the parts, each once; one, where the bits are those of one run.
    pub fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<&str> = self.parts.iter().map(|part| part.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }
}

/// Whether two parts are of one job, as far as their records tell.
fn check_same_job(path: &Path, record: &PartRecord, other: &Path, expected: &PartRecord, copies: bool) -> Result<()> {
    let (path, other) = (shown_path(path), shown_path(other));
    let rejected = |what: String, hint: &str| Err(Error::rejected(format!("{path}: {what}")).hint(hint));
    const ONE_JOB: &str = "name the parts of one job; a part that is not of it is run again";
    if record.kind != expected.kind {
        let (own, expected) = (record.kind.in_words(), expected.kind.in_words());
        return rejected(format!("a part of {expected} expected, as {other} is, one of {own} found"), ONE_JOB);
    }
    if record.part.n_parts() != expected.part.n_parts() {
        let (own, n) = (record.part.n_parts(), expected.part.n_parts());
        return rejected(format!("one of {n} parts expected, as {other} is, one of {own} found"), ONE_JOB);
    }
    if record.tool != expected.tool {
        let (own, expected) = (crate::shown::shown(&record.tool), crate::shown::shown(&expected.tool));
        return rejected(format!("a part made by {expected} expected, as {other} is, one by {own} found"), ONE_JOB);
    }
    if record.job != expected.job {
        let (what, own, expected) = difference(&record.job, &expected.job);
        let (own, expected) = (crate::shown::shown(&own), crate::shown::shown(&expected));
        return rejected(
            format!("made with other options than {other}: {what} {expected} expected, {own} found"),
            ONE_JOB,
        );
    }
    if let Some(difference) = expected.plan.difference(&record.plan, copies) {
        let hint = match difference.of_copies {
            true => "--copies joins parts that have read copies of the same files",
            false => "make all parts from the same inputs",
        };
        return rejected(format!("of other inputs than {other}: {}", difference.what), hint);
    }
    if record.factored != expected.factored {
        return rejected(
            format!("of other inputs than {other}: other adapters"),
            "make all parts from the same inputs",
        );
    }
    Ok(())
}

/// The first option that differs, and both of its values, `own` first.
fn difference(own: &Value, other: &Value) -> (String, String, String) {
    let short = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let (Some(own), Some(other)) = (own.as_object(), other.as_object()) {
        let differing = own.iter().find(|(key, value)| other.get(key.as_str()) != Some(*value));
        if let Some((key, value)) = differing {
            let (what, a, b) = difference(value, other.get(key.as_str()).unwrap_or(&Value::Null));
            return (if what.is_empty() { key.clone() } else { what }, a, b);
        }
    }
    (String::new(), short(own), short(other))
}

fn check_complete(found: &BTreeMap<Part, FoundPart>, n_parts: usize) -> Result<()> {
    let is_missing = |part: &Part| !found.contains_key(part);
    let missing: Vec<String> =
        Part::all(n_parts)?.into_iter().filter(is_missing).map(|part| part.number().to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let told = missing.get(..N_TOLD).unwrap_or(&missing).join(", ");
    let more = if missing.len() > N_TOLD { format!(" and {} more", missing.len() - N_TOLD) } else { String::new() };
    let (what, verb) = if missing.len() == 1 { ("part", "is") } else { ("parts", "are") };
    Err(Error::rejected(format!("{what} {told}{more} of {n_parts} {verb} missing"))
        .hint("run what is missing, and name all parts"))
}
