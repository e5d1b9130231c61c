//! Matches the base and the fine-tunes tensor by tensor, from headers alone, before any data is read.
//!
//! A plan says which tensors take part, where each column's bytes are, what is carried over, and what was left out
//! and why. Every mismatch is found here and listed together, so that nobody waits twenty minutes for the first.

use super::coded::{CodedColumn, block_bytes};
use super::common_rows::{self, common_rows, is_other_vocabulary};
use super::fit::{CommonRows, Fit};
use super::heads::{Heads, Settled};
use super::left_out::{Share, TaskShare};
use super::matching::{UnderBaseNames, under_base_names};
use super::mismatches::{Mismatch, Mismatches, mismatch_error};
use super::tasks::TaskSource;
use super::tied::find_ties;
use crate::checkpoint::{Checkpoint, Dtype, Inputs, OpenOptions, Place, Tensor};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::shown::shown_path;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

pub use super::left_out::{LeftOut, Skipped};
pub use super::selection::Selection;
pub use super::tasks::Task;

/// Headers of a base and its fine-tunes, matched.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The base θ0: column 0.
    pub base: Checkpoint,
    /// The fine-tunes θt under the base's names: columns 1..=T, in the order given.
    pub tasks: Vec<Task>,
    /// The tensors that take part, in the base's file order.
    pub tensors: Vec<PlannedTensor>,
    /// Integer, bool and other tensors that only the base supplies.
    pub carried: Vec<String>,
    /// Float tensors that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// Columns that are read as codes, after the others.
    pub codes: Vec<CodedColumn>,
    /// What was matched otherwise than by equal names, a line each, for whoever made the inputs.
    pub notes: Vec<String>,
    /// The same, of what is much of the model.
    pub warnings: Vec<String>,
    /// How much of the base and of the tasks takes no part.
    pub left_out: LeftOut,
    /// How the columns fit the base: tied tensors, and those of which only the first rows take part.
    pub fit: Fit,
    /// The base as the columns see it.
    seen_base: Checkpoint,
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
    /// What the signs of its codes depend on: its number in the plan that it was first in.
    pub number: u32,
    /// For each column (base first) the index into that checkpoint's tensors.
    pub columns: Vec<u32>,
}

impl Plan {
    /// Opens a base and its fine-tunes, each written `NAME=PATH` or `PATH`, and matches every float tensor.
    ///
    /// # Errors
    /// Usage: a task without a path or with a name that cannot be one. Rejected: a malformed checkpoint, two tasks of one
    /// name, any mismatch. Failed: I/O.
    pub fn open<T: AsRef<OsStr>>(base: impl AsRef<Path>, tasks: impl IntoIterator<Item = T>) -> Result<Plan> {
        let tasks: Vec<T> = tasks.into_iter().collect();
        let sources = TaskSource::parse_all(&tasks)?;
        let (base, tasks) = super::open::open_columns(base.as_ref(), &sources, &OpenOptions::default())?;
        Plan::new(base, tasks, &Selection::all())
    }

    /// Matches `tasks` against `base`. Task names must be unique and there must be at least one.
    ///
    /// # Errors
    /// Rejected: duplicate names, no tensor in common, or any mismatch unless `selection.skip_mismatched`; the message
    /// lists the first twenty mismatches and counts the rest.
    pub fn new(base: Checkpoint, tasks: Vec<Task>, selection: &Selection) -> Result<Plan> {
        check_task_names(&tasks)?;
        let UnderBaseNames { tasks, nameless, mut heads, mut notes } =
            under_base_names(&base, tasks, selection.renames())?;
        notes.splice(0..0, base.notes().iter().map(|note| format!("base: {note}")));
        let ties = find_ties(&base, tasks, &|name| selection.takes(name))?;
        notes.extend(ties.notes);
        let mut fit = Fit { twins: ties.twins, common_rows: Vec::new() };
        let seconds: HashSet<String> = fit.twins.iter().map(|twin| twin.name.clone()).collect();
        let seconds: HashSet<&str> = seconds.iter().map(String::as_str).collect();
        heads.without(&fit.twins);
        let Settled { mut tasks, in_none, told } =
            heads.of_base(&base, ties.tasks, &|name| selection.takes(name), n_floats(&base, &seconds))?;
        let (much, little): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, is_much)| *is_much);
        notes.extend(little.into_iter().map(|(line, _)| line));
        let (of_heads, note) = heads.of_tasks(&tasks, &|name| selection.takes(name));
        notes.extend(note);
        // Rows that tasks have beyond the common ones.
        let mut n_beyond = vec![0; tasks.len()];
        if selection.common_vocab {
            fit.common_rows = common_rows(&base, &tasks, &seconds);
            notes.extend(common_rows::note(&fit, &base));
            for (task, n_beyond) in tasks.iter_mut().zip(&mut n_beyond) {
                let seen = fit.seen(&task.checkpoint)?;
                *n_beyond = n_floats(&task.checkpoint, &seconds).saturating_sub(n_floats(&seen, &seconds));
                task.checkpoint = seen;
            }
        }
        let mut mismatches = Mismatches::new(selection);
        find_extra_tensors(&base, (&tasks, &heads), &fit, selection, &mut mismatches);
        for (task, tensor, n_elements) in nameless.iter().filter(|(_, tensor, _)| selection.takes(tensor)) {
            let task = tasks.get(*task).map_or("", |task| task.name.as_str());
            mismatches.add(task, (tensor, *n_elements), || "another tensor has this name in the base's manner".into());
        }
        let warnings = much.into_iter().map(|(line, _)| line).collect();
        let mut plan = Plan { notes, warnings, skipped: of_heads, ..Plan::of_nothing(base, tasks) };
        plan.seen_base = fit.seen(&plan.base)?;
        let base = plan.seen_base.clone();
        // A tensor is chosen by all of its names, or it would be edited under one of them alone.
        let takes = |name: &str| {
            selection.takes(name) && fit.twins.iter().all(|twin| twin.of != name || selection.takes(&twin.name))
        };
        for (index, tensor) in base.tensors().iter().enumerate() {
            if seconds.contains(tensor.name.as_str()) {
                continue;
            }
            if tensor.dtype.float().is_none() {
                plan.carried.push(tensor.name.clone());
            } else if !takes(&tensor.name) {
                plan.skipped.push(skipped(&tensor.name, tensor.n_elements(), selection.reason(&tensor.name).into()));
            } else if in_none.contains(&tensor.name) {
                plan.skipped.push(skipped(&tensor.name, tensor.n_elements(), "no task has a head".into()));
            } else {
                plan.match_tensor(index, tensor, &mut mismatches);
            }
        }
        if mismatches.n > 0 {
            if !selection.skip_mismatched {
                return Err(mismatch_error(&plan.base, &mismatches));
            }
            plan.skip(mismatches.kept);
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
        plan.left_out = plan.count_left_out(&nameless, &n_beyond, &fit, &seconds);
        let taking_part: HashSet<&str> = plan.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        plan.fit = fit.of_tensors(&taking_part);
        Ok(plan)
    }

    /// No tensor yet.
    pub(super) fn of_nothing(base: Checkpoint, tasks: Vec<Task>) -> Plan {
        Plan {
            seen_base: base.clone(),
            fit: Fit::default(),
            base,
            tasks,
            tensors: Vec::new(),
            carried: Vec::new(),
            skipped: Vec::new(),
            codes: Vec::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
            left_out: LeftOut::default(),
        }
    }

    /// A plan over chosen tensors of `base` in its file order, every one of them in every column with the same shape.
    ///
    /// # Errors
    /// Rejected: every mismatch, listed.
    pub fn of_columns(base: Checkpoint, columns: Vec<Task>, names: &[String]) -> Result<Plan> {
        let mut plan = Plan::of_nothing(base, columns);
        let mut mismatches = Mismatches::new(&Selection::all());
        let base = plan.base.clone();
        let mut chosen = Vec::with_capacity(names.len());
        for name in names {
            match base.index_of(name).and_then(|index| Some((index, base.tensors().get(index)?))) {
                Some(found) => chosen.push(found),
                None => mismatches.add("base", (name, 0), || format!("missing from {}", base.path().display())),
            }
        }
        chosen.sort_unstable_by_key(|(index, _)| *index);
        for (index, tensor) in chosen {
            plan.match_tensor(index, tensor, &mut mismatches);
        }
        if mismatches.n == 0 { Ok(plan) } else { Err(mismatch_error(&plan.base, &mismatches)) }
    }

    fn match_tensor(&mut self, index: usize, tensor: &Tensor, mismatches: &mut Mismatches) {
        let mut columns = vec![index as u32];
        let n_before = mismatches.n;
        let mut of_vocabulary = false;
        for task in &self.tasks {
            let mut mismatch =
                |what: &dyn Fn() -> String| mismatches.add(&task.name, (&tensor.name, tensor.n_elements()), what);
            let found = task.checkpoint.index_of(&tensor.name);
            match found.and_then(|index| Some((index, task.checkpoint.tensors().get(index)?))) {
                None => mismatch(&|| format!("missing from {}", shown_path(task.checkpoint.path()))),
                Some((found_index, found)) => {
                    if found.shape != tensor.shape {
                        of_vocabulary |= is_other_vocabulary(&tensor.shape, &found.shape);
                        mismatch(&|| format!("shape {:?} expected, {:?} found", tensor.shape, found.shape));
                    } else if found.dtype.float().is_none() {
                        mismatch(&|| {
                            let (expected, found) = (tensor.dtype, found.dtype);
                            format!("a float type expected ({expected} in the base), {found} found")
                        });
                    }
                    columns.push(found_index as u32);
                }
            }
        }
        mismatches.of_vocabulary |= of_vocabulary;
        if mismatches.n == n_before {
            self.tensors.push(PlannedTensor {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                n_rows: tensor.n_elements(),
                number: self.tensors.len() as u32,
                columns,
            });
        }
    }

    /// What takes no part, counted from what does. `nameless` and `n_beyond` are parameters of tasks that are in no view of them:
    /// what found no name, and rows beyond the common ones.
    fn count_left_out(
        &self,
        nameless: &[(usize, String, usize)],
        n_beyond: &[u64],
        fit: &Fit,
        seconds: &HashSet<&str>,
    ) -> LeftOut {
        let of = n_floats(&self.base, seconds);
        let is_cut = |rows: &&CommonRows| {
            self.base.get(&rows.name).and_then(|tensor| tensor.shape.first()).is_some_and(|all| *all > rows.n_rows)
        };
        let n_skipped = self.skipped.iter().filter(|skipped| self.base.get(&skipped.name).is_some()).count();
        let n_tensors = (n_skipped + fit.common_rows.iter().filter(is_cut).count()) as u64;
        let base = Share { n_tensors, n_parameters: of.saturating_sub(self.n_rows()), of };
        let of_task = |((index, task), n_beyond): ((usize, &Task), &u64)| {
            let extra = task.checkpoint.tensors().iter().filter(|tensor| is_float(tensor, seconds));
            let extra = extra.filter(|tensor| self.base.get(&tensor.name).is_none());
            let nameless = nameless.iter().filter(|(task, ..)| *task == index).map(|(_, _, n)| *n as u64);
            let hidden: Vec<u64> = nameless.chain(Some(*n_beyond).filter(|n| *n > 0)).collect();
            let n_hidden = hidden.iter().sum::<u64>();
            let (n_tensors, n_extra) =
                extra.fold((hidden.len() as u64, 0), |(n, sum), tensor| (n + 1, sum + tensor.n_elements() as u64));
            let of = n_floats(&task.checkpoint, seconds) + n_hidden;
            TaskShare { name: task.name.clone(), share: Share { n_tensors, n_parameters: n_extra + n_hidden, of } }
        };
        let tasks = self.tasks.iter().enumerate().zip(n_beyond).map(of_task);
        let tasks = tasks.filter(|task| task.share.n_parameters > 0);
        LeftOut { base, task: tasks.max_by(|a, b| a.share.share().total_cmp(&b.share.share())) }
    }

    /// Tells whoever made the inputs what was matched, and what was left out.
    pub fn tell(&self, progress: &dyn Progress) {
        self.notes.iter().for_each(|note| progress.note(note));
        self.warnings.iter().for_each(|warning| progress.warn(warning));
        self.left_out.tell(&self.skipped, progress);
    }

    fn skip(&mut self, mismatches: Vec<Mismatch>) {
        for mismatch in mismatches {
            let reason = format!("task {}: {}", mismatch.task, mismatch.what);
            self.skipped.push(skipped(&mismatch.tensor, mismatch.n_elements, reason));
        }
    }

    /// The same plan over fewer tensors: those whose index `keep` answers true for.
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Plan {
        let tensors = self.tensors.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, t)| t.clone());
        let codes = self.codes.iter().map(|column| {
            let places = column.places.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, place)| *place);
            CodedColumn { places: places.collect(), ..column.clone() }
        });
        Plan { tensors: tensors.collect(), codes: codes.collect(), ..self.clone() }
    }

    /// Columns of the data: T tasks and the base.
    pub fn n_columns(&self) -> usize {
        self.tasks.len() + 1
    }

    /// Columns with those that are read as codes: as many digests has a block.
    pub fn n_digests(&self) -> usize {
        self.n_columns() + self.codes.len()
    }

    /// d: rows of the task matrix, over the tensors that take part.
    pub fn n_rows(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.n_rows as u64).sum()
    }

    /// The checkpoint behind column `column` (0 is the base).
    pub fn column_checkpoint(&self, column: usize) -> &Checkpoint {
        match column.checked_sub(self.n_columns()).and_then(|coded| self.codes.get(coded)) {
            Some(coded) => &coded.checkpoint,
            None if column == 0 => &self.seen_base,
            None => &self.task(column).checkpoint,
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "columns are counted by this program; there are T of them after the base"
    )]
    fn task(&self, column: usize) -> &Task {
        &self.tasks[column - 1]
    }

    /// The stored tensor behind a planned one in one column.
    #[allow(clippy::indexing_slicing, reason = "`match_tensor` found each index in the list it is looked up in")]
    pub fn column_tensor(&self, planned: &PlannedTensor, column: usize) -> &Tensor {
        &self.column_checkpoint(column).tensors()[planned.columns[column] as usize]
    }

    /// What an output must leave alone: every file of every column.
    pub fn inputs(&self) -> Inputs {
        self.tasks.iter().fold(self.base.inputs(), |inputs, task| inputs.with(&task.checkpoint.inputs()))
    }

    /// How messages name a column: the base's path or the task's name.
    pub fn column_name(&self, column: usize) -> String {
        if column == 0 {
            format!("base {}", self.base.path().display())
        } else if column >= self.n_columns() {
            self.column_checkpoint(column).path().display().to_string()
        } else {
            format!("task {}", self.task(column).name)
        }
    }

    /// Bytes of the rows of every column, those that are formed with them: what one pass works on.
    pub fn n_bytes(&self) -> u64 {
        let column_bytes =
            |column| -> u64 { self.tensors.iter().map(|tensor| self.column_tensor(tensor, column).n_bytes()).sum() };
        (0..self.n_columns()).map(column_bytes).sum::<u64>() + self.codes_bytes()
    }

    /// Bytes of the tasks' tensors as they are stored: of an adapter those of its files.
    pub fn stored_bytes(&self) -> u64 {
        (1..self.n_columns()).map(|column| self.stored_in(column)).sum()
    }

    /// Bytes of one read of every column as it is stored.
    pub fn read_bytes(&self) -> u64 {
        (0..self.n_columns()).map(|column| self.stored_in(column)).sum::<u64>() + self.codes_bytes()
    }

    /// Bytes of adapters' factors, which are read when these are opened, and not in a pass.
    pub fn factor_bytes(&self) -> u64 {
        let of_column = |column: usize| match self.column_checkpoint(column).of_adapter() {
            Some(of) => of.n_bytes.saturating_sub(self.whole_bytes(column)),
            None => 0,
        };
        (1..self.n_columns()).map(of_column).sum()
    }

    fn stored_in(&self, column: usize) -> u64 {
        let checkpoint = self.column_checkpoint(column);
        let is_formed = |tensor: &PlannedTensor| matches!(self.column_tensor(tensor, column).place, Place::LowRank(_));
        match checkpoint.of_adapter() {
            Some(of) => of.n_bytes,
            None if self.tensors.iter().any(is_formed) => checkpoint.files().iter().map(|file| file.len).sum(),
            None => self.whole_bytes(column),
        }
    }

    /// Bytes of a column's tensors that lie in files as they are.
    fn whole_bytes(&self, column: usize) -> u64 {
        let tensors = self.tensors.iter().map(|tensor| self.column_tensor(tensor, column));
        let is_whole = |tensor: &&Tensor| !tensor.is_delta() && !matches!(tensor.place, Place::Rescaled { .. });
        tensors.filter(is_whole).map(Tensor::n_bytes).sum()
    }

    /// Bytes of all codes and scales.
    fn codes_bytes(&self) -> u64 {
        let n_blocks: u64 = self.tensors.iter().map(|tensor| tvb_kernels::n_blocks(tensor.n_rows) as u64).sum();
        self.codes.iter().map(|column| n_blocks * block_bytes(column.rate) as u64).sum()
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

/// Whether a tensor's parameters count: floats, each under its first name.
fn is_float(tensor: &Tensor, seconds: &HashSet<&str>) -> bool {
    tensor.dtype.float().is_some() && !seconds.contains(tensor.name.as_str())
}

/// The float parameters of a checkpoint.
fn n_floats(checkpoint: &Checkpoint, seconds: &HashSet<&str>) -> u64 {
    let floats = checkpoint.tensors().iter().filter(|tensor| is_float(tensor, seconds));
    floats.map(|tensor| tensor.n_elements() as u64).sum()
}

fn skipped(name: &str, n_elements: usize, reason: String) -> Skipped {
    Skipped { name: name.to_owned(), reason, n_elements: n_elements as u64 }
}

fn check_task_names(tasks: &[Task]) -> Result<()> {
    if tasks.is_empty() {
        return Err(Error::usage("no task given").hint("name at least one fine-tune: NAME=PATH or PATH"));
    }
    crate::columns::tasks::check_count(tasks.len())?;
    for (index, task) in tasks.iter().enumerate() {
        crate::columns::tasks::check_name(&task.name)?;
        if let Some(earlier) = tasks.iter().take(index).find(|earlier| earlier.name == task.name) {
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
fn find_extra_tensors(
    base: &Checkpoint,
    (tasks, heads): (&[Task], &Heads),
    fit: &Fit,
    selection: &Selection,
    mismatches: &mut Mismatches,
) {
    let is_known = |name: &str| base.get(name).is_some() || fit.twins.iter().any(|twin| twin.name == name);
    for (index, task) in tasks.iter().enumerate() {
        for tensor in task.checkpoint.tensors() {
            let is_new = tensor.dtype.float().is_some() && selection.takes(&tensor.name) && !is_known(&tensor.name);
            if is_new && !heads.has(index, &tensor.name) {
                mismatches.add(&task.name, (&tensor.name, tensor.n_elements()), || "not in the base".into());
            }
        }
    }
}
