//! Which checkpoints a job reads: what jobs share when they share a Gram pass.

use super::job::Job;
use crate::checkpoint::{Budget, Checkpoint, OpenOptions, raise_open_file_limit};
use crate::columns::open::open_columns;
use crate::columns::plan::{Plan, Selection};
use crate::columns::tasks::{self, TaskSource};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A base, its fine-tunes, and which tensors take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The base.
    pub base: PathBuf,
    /// The fine-tunes, in column order.
    pub tasks: Vec<TaskSource>,
    /// Only tensors whose name matches.
    pub include: Option<String>,
    /// No tensor whose name matches.
    pub exclude: Option<String>,
    /// Leave out what does not match.
    pub skip_mismatched: bool,
    /// Rules for the names of the tasks' tensors.
    pub rename: Vec<String>,
    /// Of embeddings and heads of other sizes, take the rows that all have.
    pub common_vocab: bool,
    /// Where in a PyTorch file the state dict lies.
    pub key: Option<String>,
}

impl Inputs {
    /// Finds the inputs of a job; `folder` is what its paths are relative to. A run folder is listed, nothing is opened.
    ///
    /// # Errors
    /// Rejected: no base or task in a run folder, two tasks of one name.
    pub(super) fn of(job: &Job, folder: &Path) -> Result<Inputs> {
        let (base, tasks) = match (&job.from, &job.base) {
            (Some(from), _) => tasks::find_run(&folder.join(from))?,
            (None, Some(base)) => {
                let tasks: Vec<TaskSource> =
                    job.tasks.iter().map(|text| source(text, folder)).collect::<Result<_>>()?;
                tasks::check_unique(&tasks)?;
                (folder.join(base), tasks)
            }
            (None, None) => return Err(Error::rejected("base and tasks, or from, expected, none found")),
        };
        Ok(Inputs {
            base,
            tasks,
            include: job.include.clone(),
            exclude: job.exclude.clone(),
            skip_mismatched: job.skip_mismatched,
            rename: job.rename.clone(),
            common_vocab: job.common_vocab,
            key: job.key.clone(),
        })
    }

    /// Every path that is read.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.base.as_path()).chain(self.tasks.iter().map(|task| task.path.as_path()))
    }

    /// Names of the tasks, in column order.
    pub fn names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// Opens a checkpoint of these inputs.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn open(&self, path: &Path, budget: &Budget) -> Result<Checkpoint> {
        raise_open_file_limit();
        Checkpoint::open_with(path, &self.options(budget))
    }

    fn options(&self, budget: &Budget) -> OpenOptions {
        OpenOptions { key: self.key.clone(), budget: budget.clone() }
    }

    /// Opens every header and matches them.
    ///
    /// # Errors
    /// Rejected: a malformed checkpoint, or mismatches. Failed: I/O.
    pub fn plan(&self, budget: &Budget) -> Result<Plan> {
        let rejected = |key: &'static str| move |error: Error| Error::rejected(error.message()).context(key);
        let mut selection = Selection::all().skip_mismatched(self.skip_mismatched).common_vocab(self.common_vocab);
        if let Some(pattern) = &self.include {
            selection = selection.include(pattern).map_err(rejected("include"))?;
        }
        if let Some(pattern) = &self.exclude {
            selection = selection.exclude(pattern).map_err(rejected("exclude"))?;
        }
        for rule in &self.rename {
            selection = selection.rename(rule).map_err(rejected("rename"))?;
        }
        let (base, tasks) = open_columns(&self.base, &self.tasks, &self.options(budget))?;
        Plan::new(base, tasks, &selection)
    }
}

/// A task whose path is relative to `folder`; its default name is that of the whole path.
fn source(text: &str, folder: &Path) -> Result<TaskSource> {
    let rejected = |error: Error| Error::rejected(error.message());
    let written = TaskSource::parse(text.as_ref()).map_err(rejected)?;
    let path = folder.join(&written.path);
    let is_named = written.path.as_os_str() != text;
    Ok(if is_named { TaskSource { path, ..written } } else { TaskSource::parse(path.as_os_str()).map_err(rejected)? })
}
