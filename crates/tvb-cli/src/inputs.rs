//! The inputs that several commands take: a base, fine-tunes, and which tensors take part.

use crate::args::Context;
use crate::given::Given;
use crate::output::Answer;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tvb::basis::Basis;
use tvb::checkpoint::{Budget, Checkpoint, OpenOptions};
use tvb::columns::left_out::{LeftOut, Share};
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
    /// What is done with embeddings and heads of another number of tokens than the base's
    #[arg(long, value_enum, default_value = "whole", value_name = "HOW")]
    pub vocab: VocabName,
    /// Change the names of the tasks' tensors before they are matched, as sed does: s/REGEX/REPLACEMENT/, or NAME:s/…/…/ for
    /// one task; again for another rule
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub rename: Vec<String>,
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Tensors that an output takes as they are: no part of the edit.
    #[arg(skip)]
    pub apart: Option<String>,
}

/// `--vocab`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum VocabName {
    /// They do not match
    #[default]
    Whole,
    /// Their first rows, which all have, take part; the base keeps its others
    Common,
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
    /// The tensors that a basis has, for checkpoints that are matched against it.
    pub(crate) fn of_basis(basis: &Basis, rename: &[String], key: Option<&str>) -> SelectionArgs {
        let manifest = &basis.manifest;
        SelectionArgs {
            rename: rename.to_vec(),
            key: key.map(str::to_owned),
            vocab: if manifest.fit.common_rows.is_empty() { VocabName::Whole } else { VocabName::Common },
            // Of what the basis left out it does not matter what a task has.
            skip_mismatched: !manifest.skipped.is_empty(),
            ..SelectionArgs::default()
        }
    }

    /// Opens `base` and every source and matches them.
    pub(crate) fn plan(&self, base: &Path, sources: Vec<TaskSource>, context: &Context) -> Result<Plan> {
        let (selection, base, budget) = (self.clone(), base.to_owned(), context.budget.clone());
        let given = context.given.clone();
        let plan = context.unless_stopped(move |_| selection.open(&base, &sources, &given, &budget))?;
        plan.tell(&context.progress);
        Ok(plan)
    }

    /// The same for what is matched against a basis next: only what was renamed is said.
    pub(crate) fn plan_quietly(&self, base: &Path, sources: Vec<TaskSource>, context: &Context) -> Result<Plan> {
        let (selection, base, budget) = (self.clone(), base.to_owned(), context.budget.clone());
        let given = context.given.clone();
        let plan = context.unless_stopped(move |_| selection.open(&base, &sources, &given, &budget));
        // There is nothing to choose: the tensors are the basis's.
        let plan = plan.map_err(|error| match error.hint_text() {
            Some(hint) if hint.contains("--skip-mismatched") || hint.contains("--exclude") => error.hint(
                "the tensors are those of the basis: give its base, and fine-tunes of it; --rename matches other names",
            ),
            _ => error,
        })?;
        plan.notes.iter().for_each(|note| context.progress.note(note));
        Ok(plan)
    }

    fn open(&self, base: &Path, sources: &[TaskSource], given: &Given, budget: &Budget) -> Result<Plan> {
        let options = OpenOptions { key: self.key.clone(), budget: budget.clone() };
        let base = given.base(base, &options)?;
        let tasks = sources.iter().map(|source| given.task(source, &base, &options)).collect::<Result<_>>()?;
        let mut selection =
            Selection::all().skip_mismatched(self.skip_mismatched).common_vocab(self.vocab == VocabName::Common);
        if let Some(pattern) = &self.include {
            selection = selection.include(pattern)?;
        }
        if let Some(pattern) = &self.exclude {
            selection = selection.exclude(pattern)?;
        }
        if let Some(pattern) = &self.apart {
            selection = selection.apart(pattern)?;
        }
        for rule in &self.rename {
            selection = selection.rename(rule)?;
        }
        Plan::new(base, tasks, &selection)
    }
}

/// Opens the base of an edit.
pub(crate) fn open_base(path: &Path, key: Option<&str>, context: &Context) -> Result<Checkpoint> {
    let options = OpenOptions { key: key.map(str::to_owned), budget: context.budget.clone() };
    let (path, given) = (path.to_owned(), context.given.clone());
    context.unless_stopped(move |_| given.base(&path, &options))
}

/// Opens the base of an edit from a basis, under the names that the basis knows, and says what its owner may not expect of it.
pub(crate) fn open_base_of(basis: &Basis, path: &Path, key: Option<&str>, context: &Context) -> Result<Checkpoint> {
    let (base, note) = basis.base(open_base(path, key, context)?)?;
    base.notes().iter().for_each(|note| context.progress.note(&format!("base: {note}")));
    note.iter().for_each(|note| context.progress.note(note));
    Ok(base)
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

/// The same for a rule of names.
fn rule(text: &str) -> std::result::Result<String, String> {
    match Selection::all().rename(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}

/// What takes no part, for programs.
pub(crate) fn left_out_json(left_out: &LeftOut) -> Value {
    let share = |share: &Share| json!({ "n_tensors": share.n_tensors, "n_parameters": share.n_parameters, "of": share.of, "share": share.share() });
    let task = left_out.task.as_ref().map(|task| {
        let mut object = share(&task.share);
        Answer::add(&mut object, "name", task.name.as_str());
        object
    });
    json!({ "base": share(&left_out.base), "task": task })
}
