//! The base and the fine-tunes, and which tensors take part: flags shared by every command that reads checkpoints.

use regex::Regex;
use std::ffi::OsString;
use std::path::PathBuf;
use tvb::Result;
use tvb::checkpoint::{Checkpoint, Existing, raise_open_file_limit};
use tvb::plan::{Plan, Selection, Task};
use tvb::tasks::TaskSource;

/// Base and fine-tunes, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Fine-tuned checkpoints; the default name is the file's stem, or its folder's name where that says nothing
    #[arg(value_name = "[NAME=]PATH", required = true)]
    tasks: Vec<OsString>,
    /// The checkpoint that was fine-tuned: a file or a folder
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    #[command(flatten)]
    selection: SelectionArgs,
}

/// Which tensors take part, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Tensors")]
pub(super) struct SelectionArgs {
    /// Only tensors whose name matches
    #[arg(long, value_name = "REGEX")]
    include: Option<Regex>,
    /// No tensor whose name matches
    #[arg(long, value_name = "REGEX")]
    exclude: Option<Regex>,
    /// Leave out tensors that are missing or of another shape somewhere, instead of stopping
    #[arg(long)]
    skip_mismatched: bool,
}

/// Where the result goes, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Where the result goes; it appears complete or not at all
    #[arg(long, short = 'o', value_name = "PATH")]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be read, written and needed, and stop
    #[arg(long)]
    pub dry_run: bool,
}

impl InputArgs {
    /// Opens every header and matches the tensors.
    pub(super) fn plan(&self) -> Result<Plan> {
        open_plan(&self.base, &self.tasks, &self.selection)
    }
}

/// Opens the base and the tasks and matches their tensors.
pub(super) fn open_plan(base: &std::path::Path, tasks: &[OsString], selection: &SelectionArgs) -> Result<Plan> {
    raise_open_file_limit();
    // Names first: a typing mistake should not cost the time to open a hundred files.
    let sources = TaskSource::parse_all(tasks)?;
    let base = Checkpoint::open(base).map_err(|error| error.context("base"))?;
    let open = |source: TaskSource| {
        let checkpoint =
            Checkpoint::open(&source.path).map_err(|error| error.context(format!("task {}", source.name)))?;
        Ok(Task { name: source.name, checkpoint })
    };
    let tasks = sources.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    Plan::new(base, tasks, &selection.meant())
}

impl SelectionArgs {
    fn meant(&self) -> Selection {
        Selection {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            skip_mismatched: self.skip_mismatched,
        }
    }
}

impl OutputArgs {
    /// What to do with an output that exists.
    pub(super) fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Refuse }
    }
}
