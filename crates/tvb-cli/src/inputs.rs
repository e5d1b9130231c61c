//! The inputs that several commands take: a base, fine-tunes, and which tensors take part.

use crate::args::Context;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tvb::checkpoint::{Budget, OpenOptions};
use tvb::columns::open::open_columns;
use tvb::columns::plan::{Plan, Selection};
use tvb::columns::tasks::TaskSource;
use tvb::progress::Progress;
use tvb::{Error, Result};

/// A base and fine-tunes, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct InputArgs {
    /// The base checkpoint: a file, a Hugging Face folder or a diffusers pipeline; PATH::KEY for one state dict of a PyTorch file
    #[arg(long, value_name = "PATH", required_unless_present = "from")]
    pub base: Option<PathBuf>,
    /// Fine-tuned checkpoints; names default to the file's or the folder's
    #[arg(value_name = "[NAME=]PATH[::KEY]", required_unless_present = "from")]
    pub tasks: Vec<OsString>,
    /// A run folder with zeroshot.pt and */finetuned.pt, in place of --base and tasks
    #[arg(long, value_name = "DIR", conflicts_with_all = ["base", "tasks"])]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Which tensors take part, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct SelectionArgs {
    /// Only tensors whose name matches
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pub include: Option<String>,
    /// No tensor whose name matches
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pub exclude: Option<String>,
    /// Leave out tensors that do not match instead of stopping
    #[arg(long)]
    pub skip_mismatched: bool,
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

impl InputArgs {
    /// Opens every header and matches them.
    pub(crate) fn plan(&self, context: &Context) -> Result<Plan> {
        let (base, sources) = match (&self.from, &self.base) {
            (Some(folder), _) => tvb::columns::tasks::find_run(folder)?,
            (None, Some(base)) => (base.clone(), parse_tasks(&self.tasks, context)?),
            (None, None) => return Err(Error::usage("no base given").hint("--base PATH, or --from DIR")),
        };
        self.selection.plan(&base, sources, context)
    }
}

impl SelectionArgs {
    /// Opens `base` and every source and matches them.
    pub(crate) fn plan(&self, base: &Path, sources: Vec<TaskSource>, context: &Context) -> Result<Plan> {
        let (selection, base, budget) = (self.clone(), base.to_owned(), context.budget.clone());
        let plan = context.unless_stopped(move |_| selection.open(&base, &sources, &budget))?;
        let columns = std::iter::once(&plan.base).chain(plan.tasks.iter().map(|task| &task.checkpoint));
        columns.flat_map(|column| column.notes()).for_each(|note| context.progress.note(note));
        Ok(plan)
    }

    fn open(&self, base: &Path, sources: &[TaskSource], budget: &Budget) -> Result<Plan> {
        let options = OpenOptions { key: self.key.clone(), budget: budget.clone() };
        let (base, tasks) = open_columns(base, sources, &options)?;
        let mut selection = Selection::all().skip_mismatched(self.skip_mismatched);
        if let Some(pattern) = &self.include {
            selection = selection.include(pattern)?;
        }
        if let Some(pattern) = &self.exclude {
            selection = selection.exclude(pattern)?;
        }
        Plan::new(base, tasks, &selection)
    }
}

/// Reads a list of tasks and says how those were told apart that were given no names.
pub(crate) fn parse_tasks(texts: &[OsString], context: &Context) -> Result<Vec<TaskSource>> {
    let (tasks, notes) = TaskSource::parse_all_in(Path::new(""), texts)?;
    notes.iter().for_each(|note| context.progress.note(note));
    Ok(tasks)
}

/// Checked while the command line is read, before anything is opened.
fn pattern(text: &str) -> std::result::Result<String, String> {
    match Selection::all().include(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}
