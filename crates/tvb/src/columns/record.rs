//! A plan written down: what was matched, from which files, without the data. Whoever has it knows what a job over these columns
//! was about, and can finish one whose parts have read them.

use super::fit::Fit;
use super::left_out::{LeftOut, Skipped};
use super::plan::{Plan, PlannedTensor, Task};
use super::probe::probes;
use super::tasks::{check_count, check_names};
use crate::checkpoint::{Budget, Checkpoint, Dtype, Place, Tensor};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

/// Elements of all tensors together that can be worked with.
const N_ROWS_MAX: u64 = 1 << 50;

/// A plan, written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// The base, then the tasks.
    columns: Vec<ColumnRecord>,
    /// The tensors that take part.
    tensors: Vec<TensorRecord>,
    carried: Vec<String>,
    skipped: Vec<Skipped>,
    left_out: LeftOut,
    fit: Fit,
}

/// A base or a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnRecord {
    /// The task's name; empty for the base.
    name: String,
    /// What was opened, and its key.
    source: String,
    files: Vec<FileRecord>,
    /// Of some of its elements.
    probe: Digest,
    /// How its tensors are stored, in their order: so many alike.
    stored: Vec<StoredAlike>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    path: String,
    n_bytes: u64,
    /// Nanoseconds since 1970, where the system knows.
    modified: Option<u64>,
}

/// Tensors one after another that are stored alike in a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAlike {
    n: usize,
    /// In safetensors' spelling.
    dtype: String,
    what: Stored,
}

/// What a column has of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stored {
    /// The tensor itself.
    Tensor,
    /// The difference from the base.
    Delta,
    /// No difference.
    Unmoved,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorRecord {
    name: String,
    shape: Vec<usize>,
}

impl PlanRecord {
    /// Writes a plan down. Looks at a few bytes of every column.
    ///
    /// # Errors
    /// Failed: I/O.
    pub fn of(plan: &Plan) -> Result<PlanRecord> {
        let column = |(column, probe): (usize, Digest)| {
            let checkpoint = plan.column_checkpoint(column);
            let files = checkpoint.files().iter().map(|file| {
                let stamp = file.stamp();
                let since = stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                FileRecord {
                    path: file.path.display().to_string(),
                    n_bytes: stamp.len,
                    modified: since.map(|since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
                }
            });
            let task = column.checked_sub(1).and_then(|task| plan.tasks.get(task));
            ColumnRecord {
                name: task.map_or(String::new(), |task| task.name.clone()),
                source: checkpoint.source(),
                files: files.collect(),
                probe,
                stored: stored(plan, column),
            }
        };
        let tensors = plan.tensors.iter();
        let tensors = tensors.map(|tensor| TensorRecord { name: tensor.name.clone(), shape: tensor.shape.clone() });
        Ok(PlanRecord {
            columns: probes(plan)?.into_iter().enumerate().map(column).collect(),
            tensors: tensors.collect(),
            carried: plan.carried.clone(),
            skipped: plan.skipped.clone(),
            left_out: plan.left_out.clone(),
            fit: plan.fit.clone(),
        })
    }

    /// What was opened as the base, as its user wrote it.
    pub fn base(&self) -> &str {
        self.columns.first().map_or("", |base| base.source.as_str())
    }

    /// The tasks' names and what was opened for each, in order.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let tasks = self.columns.get(1..).unwrap_or_default();
        tasks.iter().map(|task| (task.name.as_str(), task.source.as_str()))
    }

    /// How many tensors take part.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// The plan, of which nothing can be read. Everything in the record is checked. What is kept is charged to `budget`; `path` is
    /// for messages.
    ///
    /// # Errors
    /// Rejected: a record that no plan comes to, too little memory.
    pub fn plan(&self, path: &Path, budget: &Budget) -> Result<Plan> {
        let wrong = |what: String| Error::rejected(format!("{}: {what}", path.display()));
        let Some((base, tasks)) = self.columns.split_first().filter(|_| !self.tensors.is_empty()) else {
            return Err(wrong("a base and tensors expected, none found".into()));
        };
        check_count(tasks.len())?;
        check_names(tasks.iter().map(|task| task.name.as_str())).map_err(wrong)?;
        if tasks.is_empty() {
            return Err(wrong("at least one task expected, none found".into()));
        }
        let names: HashSet<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        self.fit.check(&names).map_err(wrong)?;
        let n_rows = self.tensors.iter().try_fold(0_u64, |sum, tensor| {
            let n = tensor.shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(u64::try_from(side).ok()?))?;
            sum.checked_add(n).filter(|sum| *sum <= N_ROWS_MAX)
        });
        if n_rows.is_none() {
            return Err(wrong(format!("tensors of at most {N_ROWS_MAX} elements together expected, more found")));
        }
        let checkpoint = |column: &ColumnRecord| {
            Checkpoint::elsewhere(Path::new(&column.source), self.column_tensors(column).map_err(wrong)?, budget)
        };
        let tasks = tasks.iter().map(|task| Ok(Task { name: task.name.clone(), checkpoint: checkpoint(task)? }));
        let n_columns = self.columns.len();
        let planned = |(number, tensor): (usize, &TensorRecord)| PlannedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            n_rows: tensor.shape.iter().product(),
            number: number as u32,
            columns: vec![number as u32; n_columns],
        };
        let mut plan = Plan::of_nothing(checkpoint(base)?, tasks.collect::<Result<_>>()?);
        plan.tensors = self.tensors.iter().enumerate().map(planned).collect();
        plan.carried.clone_from(&self.carried);
        plan.skipped.clone_from(&self.skipped);
        plan.left_out = self.left_out.clone();
        plan.fit = self.fit.clone();
        Ok(plan)
    }

    /// Its tensors in one column; what is wrong where it has not as many.
    fn column_tensors(&self, column: &ColumnRecord) -> std::result::Result<Vec<Tensor>, String> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        let mut left = self.tensors.iter();
        for alike in &column.stored {
            let dtype = Dtype::from_safetensors_name(&alike.dtype).filter(|dtype| dtype.float().is_some());
            let dtype = dtype.ok_or_else(|| format!("a float type expected, {} found", shown(&alike.dtype)))?;
            let place = match alike.what {
                Stored::Tensor => Place::Elsewhere { is_delta: false },
                Stored::Delta => Place::Elsewhere { is_delta: true },
                Stored::Unmoved => Place::Unmoved,
            };
            if alike.n == 0 || alike.n > left.len() {
                return Err(format!(
                    "{}: {} tensors expected, others found",
                    shown(&column.source),
                    self.tensors.len()
                ));
            }
            let own = left.by_ref().take(alike.n);
            tensors.extend(own.map(|TensorRecord { name, shape }| Tensor {
                name: name.clone(),
                dtype,
                shape: shape.clone(),
                place: place.clone(),
            }));
        }
        match left.len() {
            0 => Ok(tensors),
            n => Err(format!("{}: {n} of its tensors are missing", shown(&column.source))),
        }
    }

    /// What of `other` is not the same: the first thing, in words, and whether copies of the same files may differ in it.
    pub fn difference(&self, other: &PlanRecord, copies: bool) -> Option<Difference> {
        let differs = |what: String| Some(Difference { what, of_copies: false });
        if self.columns.len() != other.columns.len() {
            let n = |record: &PlanRecord| record.columns.len().saturating_sub(1);
            return differs(format!("{} tasks expected, {} found", n(self), n(other)));
        }
        let columns = || self.columns.iter().zip(&other.columns);
        if let Some((own, other)) = columns().find(|(own, other)| own.name != other.name) {
            return differs(format!("task {} expected, task {} found", shown(&own.name), shown(&other.name)));
        }
        if self.tensors.len() != other.tensors.len() {
            return differs(format!("{} tensors expected, {} found", self.tensors.len(), other.tensors.len()));
        }
        if let Some((own, other)) = self.tensors.iter().zip(&other.tensors).find(|(own, other)| own != other) {
            let (a, b) = (shown(&own.name), shown(&other.name));
            return differs(format!("tensor {a} {:?} expected, {b} {:?} found", own.shape, other.shape));
        }
        if let Some((own, _)) = columns().find(|(own, other)| own.stored != other.stored) {
            return differs(format!("{}: other types of tensors", own.title()));
        }
        if (&self.fit, &self.carried) != (&other.fit, &other.carried) {
            return differs("other tied tensors, other rows of an embedding, or others carried over".into());
        }
        if (&self.skipped, &self.left_out) != (&other.skipped, &other.left_out) {
            return differs("other tensors left out".into());
        }
        columns().find_map(|(own, other)| own.difference(other, copies))
    }

    /// The files of the inputs, as their paths were when they were read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.columns.iter().flat_map(|column| &column.files).map(|file| Path::new(&file.path))
    }

    /// The same for all copies of these inputs: without paths and times.
    pub fn contents_key(&self) -> Digest {
        let mut same = self.clone();
        for column in &mut same.columns {
            column.source.clear();
            column
                .files
                .iter_mut()
                .for_each(|file| *file = FileRecord { path: String::new(), modified: None, ..*file });
        }
        same.key()
    }

    fn key(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// How two records differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In words: what was expected and what was found.
    pub what: String,
    /// Whether copies of the same files may differ in it.
    pub of_copies: bool,
}

impl ColumnRecord {
    fn title(&self) -> String {
        if self.name.is_empty() { "base".to_owned() } else { format!("task {}", shown(&self.name)) }
    }

    fn difference(&self, other: &ColumnRecord, copies: bool) -> Option<Difference> {
        let title = self.title();
        let differs = |of_copies, what: String| Some(Difference { what: format!("{title}: {what}"), of_copies });
        if self.files.len() != other.files.len() {
            return differs(false, format!("{} files expected, {} found", self.files.len(), other.files.len()));
        }
        for (own, other) in self.files.iter().zip(&other.files) {
            if own.n_bytes != other.n_bytes {
                let path = shown(&other.path);
                return differs(false, format!("{path} of {} bytes expected, {} found", own.n_bytes, other.n_bytes));
            }
        }
        if self.probe != other.probe {
            return differs(false, format!("{} holds other values", shown(&other.source)));
        }
        if copies {
            return None;
        }
        let times = self.files.iter().zip(&other.files);
        if let Some((_, other)) = times.clone().find(|(own, other)| own.modified != other.modified) {
            return differs(true, format!("{} was written at another time", shown(&other.path)));
        }
        if self.source != other.source {
            return differs(true, format!("{} expected, {} found", shown(&self.source), shown(&other.source)));
        }
        let (own, other) = times.into_iter().find(|(own, other)| own.path != other.path)?;
        differs(true, format!("{} expected, {} found", shown(&own.path), shown(&other.path)))
    }
}

/// How a column's tensors are stored.
fn stored(plan: &Plan, column: usize) -> Vec<StoredAlike> {
    let mut stored: Vec<StoredAlike> = Vec::new();
    for planned in &plan.tensors {
        let tensor = plan.column_tensor(planned, column);
        let what = match tensor.place {
            Place::Unmoved => Stored::Unmoved,
            _ if tensor.is_delta() => Stored::Delta,
            _ => Stored::Tensor,
        };
        let dtype = tensor.dtype.safetensors_name();
        match stored.last_mut().filter(|last| (last.dtype.as_str(), last.what) == (dtype, what)) {
            Some(last) => last.n += 1,
            None => stored.push(StoredAlike { n: 1, dtype: dtype.to_owned(), what }),
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::plan::Selection;

    fn zoo(tasks: &[&str]) -> Plan {
        let path = |name: &str| format!("../tvb-zoo/checkpoints/{name}.safetensors");
        Plan::open(path("base"), tasks.iter().map(|task| path(task))).unwrap()
    }

    fn read(text: &str) -> Result<Plan> {
        let record: PlanRecord = serde_json::from_str(text).map_err(|error| Error::rejected(error.to_string()))?;
        record.plan(Path::new("part"), &Budget::default())
    }

    #[test]
    fn a_plan_comes_back_without_its_data() {
        let plan = zoo(&["digits", "waves"]);
        let record = PlanRecord::of(&plan).unwrap();
        let found = read(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!((found.n_columns(), found.n_rows(), found.n_bytes()), (3, plan.n_rows(), plan.n_bytes()));
        assert_eq!(found.column_name(2), plan.column_name(2));
        for (own, other) in plan.tensors.iter().zip(&found.tensors) {
            assert_eq!((&own.name, &own.shape, own.number), (&other.name, &other.shape, other.number));
            for column in 0..3 {
                let tensors = (plan.column_tensor(own, column), found.column_tensor(other, column));
                assert_eq!((tensors.0.dtype, tensors.0.is_delta()), (tensors.1.dtype, tensors.1.is_delta()));
                assert_eq!(plan.column_checkpoint(column).source(), found.column_checkpoint(column).source());
            }
        }
        let tensor = found.column_tensor(&found.tensors[0], 1);
        let error = found.column_checkpoint(1).read(tensor, 0, &mut [0; 4]).unwrap_err();
        assert!(error.message().contains("cannot be read"), "{error}");
    }

    #[test]
    fn other_inputs_are_told_apart() {
        let record = |tasks: &[&str]| PlanRecord::of(&zoo(tasks)).unwrap();
        let own = record(&["digits", "waves"]);
        assert_eq!(own.difference(&record(&["digits", "waves"]), false), None);
        assert_eq!(own.key(), record(&["digits", "waves"]).key());
        let what =
            |other: &PlanRecord, copies| own.difference(other, copies).map(|found| (found.what, found.of_copies));
        assert_eq!(what(&record(&["digits"]), true), Some(("2 tasks expected, 1 found".into(), false)));
        let waves = Some(("task `waves` expected, task `letters` found".into(), false));
        assert_eq!(what(&record(&["digits", "letters"]), true), waves);
        // The same name and shape: only the values tell.
        let mut other = record(&["digits", "letters"]);
        other.columns[2].name = "waves".into();
        let found = own.difference(&other, true).unwrap();
        assert!(found.what.contains("task `waves`") && !found.of_copies, "{}", found.what);
        let mut copied = own.clone();
        copied.columns[1].files[0].modified = Some(7);
        copied.columns[2].source = "elsewhere".into();
        assert_eq!(own.difference(&copied, true), None);
        let found = own.difference(&copied, false).unwrap();
        assert!(found.what.contains("was written at another time") && found.of_copies);
        copied.columns[2].files[0].n_bytes += 1;
        assert!(own.difference(&copied, true).is_some_and(|found| found.what.contains("bytes expected")));
        let selected = |selection: Selection| {
            let plan = zoo(&["digits", "waves"]);
            PlanRecord::of(&Plan::new(plan.base, plan.tasks, &selection).unwrap()).unwrap()
        };
        let first = &own.tensors[0].name;
        let other = selected(Selection::all().exclude(&format!("^{}$", regex::escape(first))).unwrap());
        assert!(own.difference(&other, true).is_some_and(|found| found.what.contains("tensors expected")));
    }

    #[test]
    fn what_no_plan_comes_to_is_refused() {
        let record = PlanRecord::of(&zoo(&["digits", "waves"])).unwrap();
        let value = serde_json::to_value(&record).unwrap();
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = value.clone();
            change(&mut value);
            read(&value.to_string())
        };
        changed(&|_| {}).unwrap();
        let huge = serde_json::json!([1_u64 << 40, 1_u64 << 40]);
        let changes: [&dyn Fn(&mut serde_json::Value); 12] = [
            &|value| value["extra"] = 1.into(),
            &|value| value["columns"] = serde_json::json!([]),
            &|value| drop(value["columns"].as_array_mut().unwrap().drain(1..)),
            &|value| value["columns"][1]["name"] = "../a".into(),
            &|value| value["columns"][1]["name"] = value["columns"][2]["name"].clone(),
            &|value| value["columns"][1]["stored"][0]["n"] = 0.into(),
            &|value| value["columns"][1]["stored"][0]["n"] = u64::MAX.into(),
            &|value| value["columns"][1]["stored"] = serde_json::json!([]),
            &|value| value["columns"][0]["stored"][0]["dtype"] = "I64".into(),
            &|value| value["tensors"] = serde_json::json!([]),
            &|value| value["tensors"][0]["shape"] = huge.clone(),
            &|value| value["tensors"][0]["name"] = value["tensors"][1]["name"].clone(),
        ];
        for (number, change) in changes.iter().enumerate() {
            assert!(changed(change).is_err(), "change {number}");
        }
    }
}
