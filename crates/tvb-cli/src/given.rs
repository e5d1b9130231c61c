//! Checkpoints that the caller has open already, such as state dicts in memory: named where a command line has a path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tvb::Result;
use tvb::checkpoint::{Checkpoint, OpenOptions};
use tvb::columns::open::{open_base, open_task, take_base, take_task};
use tvb::columns::plan::Task;
use tvb::columns::tasks::TaskSource;

/// Open checkpoints by the words that stand for them in place of a path.
#[derive(Clone, Debug, Default)]
pub struct Given(Arc<BTreeMap<PathBuf, Checkpoint>>);

impl Given {
    /// Checkpoints, each with what a flag or an argument calls it.
    pub fn new(checkpoints: impl IntoIterator<Item = (PathBuf, Checkpoint)>) -> Given {
        Given(Arc::new(checkpoints.into_iter().collect()))
    }

    /// The base of that path, open already or opened now.
    pub(crate) fn base(&self, path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
        match self.0.get(path) {
            Some(base) => take_base(base.clone()),
            None => open_base(path, options),
        }
    }

    /// The same for a task of this base.
    pub(crate) fn task(&self, source: &TaskSource, base: &Checkpoint, options: &OpenOptions) -> Result<Task> {
        match self.0.get(&source.path) {
            Some(task) => take_task(&source.name, task.clone(), base),
            None => open_task(source, base, options),
        }
    }
}
