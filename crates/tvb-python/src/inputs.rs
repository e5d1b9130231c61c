//! A base and tasks as Python names them: paths, or tensors in memory.

use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tvb::checkpoint::{Checkpoint, OpenOptions};
use tvb::columns::open::{open_base, open_task};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::columns::tasks::{TaskSource, check_name, check_unique, split_key};
use tvb::progress::{Progress, unless_cancelled};
use tvb::{Error, Result};

/// Where a column's values are.
#[derive(FromPyObject)]
pub(crate) enum Input {
    /// A file or folder, `PATH` or `PATH::KEY`.
    Path(PathBuf),
}

/// A task: the name it was given, and where it is. Without a name the text is what the command takes, `NAME=PATH` or `PATH`.
pub(crate) type NamedInput = (Option<String>, Input);

/// A base and tasks.
pub(crate) struct Inputs {
    pub(crate) base: Input,
    pub(crate) tasks: Vec<NamedInput>,
}

impl Inputs {
    /// Opens every header and matches them; says what was left out and why.
    pub(crate) fn plan(self, options: OpenOptions, selection: Selection, progress: &dyn Progress) -> Result<Plan> {
        let (sources, notes) = sources(self.tasks)?;
        notes.iter().for_each(|note| progress.note(note));
        let plan = unless_cancelled(progress, move |_| {
            let base = self.base.open_base(&options)?;
            let tasks = sources.into_iter().map(|source| source.open(&base, &options)).collect::<Result<_>>()?;
            Plan::new(base, tasks, &selection)
        })?;
        plan.tell(progress);
        Ok(plan)
    }
}

impl Input {
    /// Opens a base.
    pub(crate) fn open_base(&self, options: &OpenOptions) -> Result<Checkpoint> {
        match self {
            Input::Path(path) => open_base(path, options),
        }
    }
}

/// A task with its name.
enum Source {
    Path(TaskSource),
}

impl Source {
    fn open(&self, base: &Checkpoint, options: &OpenOptions) -> Result<Task> {
        match self {
            Source::Path(source) => open_task(source, base, options),
        }
    }
}

/// Every task with its name, and what was done to tell them apart.
fn sources(tasks: Vec<NamedInput>) -> Result<(Vec<Source>, Vec<String>)> {
    // Texts are read together, so that tasks without names are told apart.
    let texts: Vec<OsString> =
        tasks.iter().filter(|(name, _)| name.is_none()).map(|(_, Input::Path(path))| path.into()).collect();
    let (parsed, notes) = TaskSource::parse_all_in(Path::new(""), &texts)?;
    let mut parsed = parsed.into_iter();
    let mut found = Vec::with_capacity(tasks.len());
    for (name, input) in tasks {
        let Some(name) = name else {
            found.extend(parsed.next());
            continue;
        };
        check_name(&name)?;
        let Input::Path(path) = input;
        let (path, key) = split_key(&path).map_err(|error| error.context(format!("task {name}")))?;
        found.push(TaskSource { name, path, key });
    }
    check_unique(&found)?;
    if found.is_empty() {
        return Err(Error::usage("no task given").hint("give at least one fine-tuned checkpoint: {\"NAME\": PATH}"));
    }
    Ok((found.into_iter().map(Source::Path).collect(), notes))
}
