//! Matches the base and the fine-tunes tensor by tensor, from headers alone, before any data is read.
//!
//! A plan says which tensors take part, where each column's bytes are, what is carried over, and what was left out
//! and why. Every mismatch is found here and listed together, so that nobody waits twenty minutes for the first.

use super::tasks::TaskSource;
use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::error::{Error, Result};
use regex::Regex;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

/// Mismatches listed in full before the rest become a count.
const MISMATCHES_LISTED: usize = 20;

/// One fine-tuned checkpoint under the name its task goes by.
#[derive(Clone, Debug)]
pub struct Task {
    /// Unique among the tasks of a run.
    pub name: String,
    /// The fine-tune θt.
    pub checkpoint: Checkpoint,
}

/// Which tensors take part: all, unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include: Option<Regex>,
    exclude: Option<Regex>,
    skip_mismatched: bool,
}

impl Selection {
    /// Every float tensor, and every mismatch is an error.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Only tensors in whose name the regular expression matches somewhere.
    ///
    /// # Errors
    /// Usage: not a regular expression.
    pub fn include(mut self, pattern: &str) -> Result<Selection> {
        self.include = Some(regex(pattern)?);
        Ok(self)
    }

    /// No tensor in whose name the regular expression matches somewhere.
    ///
    /// # Errors
    /// Usage: not a regular expression.
    pub fn exclude(mut self, pattern: &str) -> Result<Selection> {
        self.exclude = Some(regex(pattern)?);
        Ok(self)
    }

    /// Leave out what does not match between base and fine-tunes instead of stopping.
    #[must_use]
    pub fn skip_mismatched(mut self, skip: bool) -> Selection {
        self.skip_mismatched = skip;
        self
    }

    fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|re| re.is_match(name))
            && !self.exclude.as_ref().is_some_and(|re| re.is_match(name))
    }
}

/// The message is one line: the library's own draws the pattern over several.
fn regex(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
        Error::usage(format!("not a regular expression: {pattern:?}: {reason}")).caused_by(error)
    })
}

/// Headers of a base and its fine-tunes, matched.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The base θ0: column 0.
    pub base: Checkpoint,
    /// The fine-tunes θt: columns 1..=T, in the order given.
    pub tasks: Vec<Task>,
    /// The tensors that take part, in the base's file order.
    pub tensors: Vec<PlannedTensor>,
    /// Integer, bool and other tensors that only the base supplies.
    pub carried: Vec<String>,
    /// Float tensors that were left out, and why.
    pub skipped: Vec<Skipped>,
}

/// A tensor that takes part.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// Its name in the base.
    pub name: String,
    /// Its shape in every column.
    pub shape: Vec<usize>,
    /// Number of elements: the rows it adds to the task matrix V.
    pub n_rows: usize,
    /// For each column (base first) the index into that checkpoint's tensors.
    pub columns: Vec<u32>,
}

/// A float tensor that was left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// Its name in the base (or in the fine-tune, where the base lacks it).
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One disagreement between a fine-tune and the base.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mismatch {
    task: String,
    tensor: String,
    what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}, tensor {}: {}", self.task, self.tensor, self.what)
    }
}

impl Plan {
    /// Opens a base and its fine-tunes, each written `NAME=PATH` or `PATH`, and matches every float tensor.
    ///
    /// # Errors
    /// Usage: a task without a path or with a name that cannot be one. Rejected: a malformed checkpoint, two tasks of one
    /// name, any mismatch. Failed: I/O.
    pub fn open<T: AsRef<OsStr>>(base: impl AsRef<Path>, tasks: impl IntoIterator<Item = T>) -> Result<Plan> {
        let tasks: Vec<T> = tasks.into_iter().collect();
        let base = Checkpoint::open(base.as_ref()).map_err(|error| error.context("base"))?;
        let open = |source: TaskSource| {
            let checkpoint = Checkpoint::open(&source.path);
            let checkpoint = checkpoint.map_err(|error| error.context(format!("task {}", source.name)))?;
            Ok(Task { name: source.name, checkpoint })
        };
        let tasks = TaskSource::parse_all(&tasks)?.into_iter().map(open).collect::<Result<_>>()?;
        Plan::new(base, tasks, &Selection::all())
    }

    /// Matches `tasks` against `base`. Task names must be unique and there must be at least one.
    ///
    /// # Errors
    /// Rejected: duplicate names, no tensor in common, or any mismatch unless `selection.skip_mismatched`; the message
    /// lists the first twenty mismatches and counts the rest.
    pub fn new(base: Checkpoint, tasks: Vec<Task>, selection: &Selection) -> Result<Plan> {
        check_task_names(&tasks)?;
        let prefixes: Vec<&str> = tasks.iter().map(|task| wrapper_prefix(&task.checkpoint, &base)).collect();
        let mut mismatches = find_extra_tensors(&base, &tasks, &prefixes, selection);
        let mut plan = Plan::of_nothing(base, tasks);
        let base = plan.base.clone();
        for (index, tensor) in base.tensors().iter().enumerate() {
            if tensor.dtype.float().is_none() {
                plan.carried.push(tensor.name.clone());
            } else if !selection.takes(&tensor.name) {
                plan.skipped.push(Skipped { name: tensor.name.clone(), reason: "not selected".into() });
            } else {
                plan.match_tensor(index, tensor, &prefixes, &mut mismatches);
            }
        }
        if !mismatches.is_empty() {
            if !selection.skip_mismatched {
                return Err(mismatch_error(&plan.base, &mismatches));
            }
            plan.skip(mismatches);
        }
        if plan.tensors.is_empty() {
            return Err(Error::rejected(format!(
                "{}: no float tensor takes part ({} carried over, {} left out)",
                plan.base.path().display(),
                plan.carried.len(),
                plan.skipped.len()
            ))
            .hint("check --include and --exclude, and that base and fine-tunes are the same model"));
        }
        Ok(plan)
    }

    /// No tensor yet.
    fn of_nothing(base: Checkpoint, tasks: Vec<Task>) -> Plan {
        Plan { base, tasks, tensors: Vec::new(), carried: Vec::new(), skipped: Vec::new() }
    }

    /// A plan over chosen tensors of `base` in its file order, every one of them in every column with the same shape.
    ///
    /// # Errors
    /// Rejected: every mismatch, listed.
    pub fn of_columns(base: Checkpoint, columns: Vec<Task>, names: &[String]) -> Result<Plan> {
        let mut plan = Plan::of_nothing(base, columns);
        let prefixes: Vec<&str> = plan.tasks.iter().map(|task| wrapper_prefix(&task.checkpoint, &plan.base)).collect();
        let mut mismatches = Vec::new();
        let base = plan.base.clone();
        let mut indices = Vec::with_capacity(names.len());
        for name in names {
            match base.index_of(name) {
                Some(index) => indices.push(index),
                None => mismatches.push(Mismatch {
                    task: "base".into(),
                    tensor: name.clone(),
                    what: format!("missing from {}", base.path().display()),
                }),
            }
        }
        indices.sort_unstable();
        for index in indices {
            plan.match_tensor(index, &base.tensors()[index], &prefixes, &mut mismatches);
        }
        if mismatches.is_empty() { Ok(plan) } else { Err(mismatch_error(&plan.base, &mismatches)) }
    }

    fn match_tensor(&mut self, index: usize, tensor: &Tensor, prefixes: &[&str], mismatches: &mut Vec<Mismatch>) {
        let mut columns = vec![index as u32];
        let n_before = mismatches.len();
        for (task, prefix) in self.tasks.iter().zip(prefixes) {
            let mut mismatch = |what: String| {
                mismatches.push(Mismatch { task: task.name.clone(), tensor: tensor.name.clone(), what });
            };
            match task.checkpoint.index_of(&format!("{prefix}{}", tensor.name)) {
                None => mismatch(format!("missing from {}", task.checkpoint.path().display())),
                Some(found_index) => {
                    let found = &task.checkpoint.tensors()[found_index];
                    if found.shape != tensor.shape {
                        mismatch(format!("shape {:?} expected, {:?} found", tensor.shape, found.shape));
                    } else if found.dtype.float().is_none() {
                        mismatch(format!(
                            "a float type expected ({} in the base), {} found",
                            tensor.dtype, found.dtype
                        ));
                    }
                    columns.push(found_index as u32);
                }
            }
        }
        if mismatches.len() == n_before {
            self.tensors.push(PlannedTensor {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                n_rows: tensor.n_elements(),
                columns,
            });
        }
    }

    fn skip(&mut self, mismatches: Vec<Mismatch>) {
        let mut seen = std::collections::HashSet::new();
        for mismatch in mismatches {
            if seen.insert(mismatch.tensor.clone()) {
                let reason = format!("task {}: {}", mismatch.task, mismatch.what);
                self.skipped.push(Skipped { name: mismatch.tensor, reason });
            }
        }
    }

    /// The same plan over fewer tensors: those whose index `keep` answers true for.
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Plan {
        let tensors = self.tensors.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, t)| t.clone());
        Plan { tensors: tensors.collect(), ..self.clone() }
    }

    /// Columns of the data: T tasks and the base.
    pub fn n_columns(&self) -> usize {
        self.tasks.len() + 1
    }

    /// d: rows of the task matrix, over the tensors that take part.
    pub fn n_rows(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.n_rows as u64).sum()
    }

    /// The checkpoint behind column `column` (0 is the base).
    pub fn column_checkpoint(&self, column: usize) -> &Checkpoint {
        if column == 0 { &self.base } else { &self.tasks[column - 1].checkpoint }
    }

    /// The stored tensor behind a planned one in one column.
    pub fn column_tensor(&self, planned: &PlannedTensor, column: usize) -> &Tensor {
        &self.column_checkpoint(column).tensors()[planned.columns[column] as usize]
    }

    /// How messages name a column: the base's path or the task's name.
    pub fn column_name(&self, column: usize) -> String {
        if column == 0 {
            format!("base {}", self.base.path().display())
        } else {
            format!("task {}", self.tasks[column - 1].name)
        }
    }

    /// Bytes of one read of every column.
    pub fn n_bytes(&self) -> u64 {
        let column_bytes =
            |column| -> u64 { self.tensors.iter().map(|tensor| self.column_tensor(tensor, column).n_bytes()).sum() };
        (0..self.n_columns()).map(column_bytes).sum()
    }

    /// The stored types of one column with their number of tensors, most frequent first.
    pub fn column_dtypes(&self, column: usize) -> Vec<(Dtype, usize)> {
        let mut counts: Vec<(Dtype, usize)> = Vec::new();
        for tensor in &self.tensors {
            let dtype = self.column_tensor(tensor, column).dtype;
            match counts.iter_mut().find(|(counted, _)| *counted == dtype) {
                Some((_, count)) => *count += 1,
                None => counts.push((dtype, 1)),
            }
        }
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts
    }
}

/// `module.` is what data-parallel training puts before every name; it is dropped where the base has none.
fn wrapper_prefix(checkpoint: &Checkpoint, base: &Checkpoint) -> &'static str {
    const WRAPPER: &str = "module.";
    let wrapped = |checkpoint: &Checkpoint| {
        !checkpoint.tensors().is_empty() && checkpoint.tensors().iter().all(|tensor| tensor.name.starts_with(WRAPPER))
    };
    if wrapped(checkpoint) && !wrapped(base) { WRAPPER } else { "" }
}

fn check_task_names(tasks: &[Task]) -> Result<()> {
    if tasks.is_empty() {
        return Err(Error::usage("no task given").hint("name at least one fine-tune: NAME=PATH or PATH"));
    }
    crate::columns::tasks::check_count(tasks.len())?;
    for (index, task) in tasks.iter().enumerate() {
        if let Some(earlier) = tasks[..index].iter().find(|earlier| earlier.name == task.name) {
            return Err(Error::rejected(format!(
                "task {}: two checkpoints go by this name: {} and {}",
                task.name,
                earlier.checkpoint.path().display(),
                task.checkpoint.path().display()
            ))
            .hint("name them apart: NAME=PATH"));
        }
    }
    Ok(())
}

/// Float tensors that a fine-tune has and the base lacks.
fn find_extra_tensors(base: &Checkpoint, tasks: &[Task], prefixes: &[&str], selection: &Selection) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    for (task, prefix) in tasks.iter().zip(prefixes) {
        for tensor in task.checkpoint.tensors() {
            let name = tensor.name.strip_prefix(prefix).unwrap_or(&tensor.name);
            if tensor.dtype.float().is_some() && selection.takes(name) && base.get(name).is_none() {
                mismatches.push(Mismatch {
                    task: task.name.clone(),
                    tensor: name.to_owned(),
                    what: "not in the base".into(),
                });
            }
        }
    }
    mismatches
}

fn mismatch_error(base: &Checkpoint, mismatches: &[Mismatch]) -> Error {
    let n_more = mismatches.len().saturating_sub(MISMATCHES_LISTED);
    let listed = mismatches.iter().take(MISMATCHES_LISTED).map(Mismatch::to_string);
    Error::rejected(format!(
        "{}: {} {} between the base and the fine-tunes",
        base.path().display(),
        mismatches.len(),
        if mismatches.len() == 1 { "mismatch" } else { "mismatches" }
    ))
    .below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more"))))
    .hint("--skip-mismatched leaves these tensors out; --exclude REGEX chooses by name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_selection_takes_what_is_included_and_not_excluded() {
        let selection = Selection::all().include("^h\\.").unwrap().exclude("bias$").unwrap();
        for (name, taken) in [("h.0.weight", true), ("h.0.bias", false), ("emb.weight", false)] {
            assert_eq!(selection.takes(name), taken, "{name}");
        }
        assert!(Selection::all().takes("emb.weight"));
    }

    #[test]
    fn a_bad_pattern_is_a_usage_error_on_one_line() {
        for error in [Selection::all().include("a(").unwrap_err(), Selection::all().exclude("a(").unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert_eq!(error.message(), "not a regular expression: \"a(\": unclosed group");
        }
    }
}
