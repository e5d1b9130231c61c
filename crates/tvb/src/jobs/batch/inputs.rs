//! Which checkpoints a job reads: what jobs share when they share a Gram pass.

use super::job::Job;
use crate::checkpoint::{Budget, Checkpoint, OpenOptions};
use crate::columns::open::{open_base, open_columns};
use crate::columns::plan::{Plan, Selection};
use crate::columns::tasks::{self, TaskSource};
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// A base, its fine-tunes, and which tensors take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The base.
    pub base: PathBuf,
    /// The key of a PyTorch file that the base alone has.
    pub base_key: Option<String>,
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
                let rejected = |error: Error| match error.kind() {
                    ErrorKind::Usage => Error::rejected(error.message()),
                    _ => error,
                };
                let (tasks, _) = TaskSource::parse_all_in(folder, &job.tasks).map_err(rejected)?;
                (folder.join(base), tasks)
            }
            (None, None) => return Err(Error::rejected("base and tasks, or from, expected, none found")),
        };
        let (base, base_key) = tasks::split_key(&base).map_err(|error| Error::rejected(error.message()))?;
        Ok(Inputs {
            base,
            base_key,
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

    /// Opens the base.
    ///
    /// # Errors
    /// As [`open_base`].
    pub fn open_base(&self, budget: &Budget) -> Result<Checkpoint> {
        open_base(&self.base_source(), &self.options(budget))
    }

    /// The base as it is written, with its key.
    fn base_source(&self) -> PathBuf {
        let mut text = self.base.clone().into_os_string();
        if let Some(key) = &self.base_key {
            text.push("::");
            text.push(key);
        }
        text.into()
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
        let (base, tasks) = open_columns(&self.base_source(), &self.tasks, &self.options(budget))?;
        Plan::new(base, tasks, &selection)
    }
}
