//! `tvb verify`: is a basis what it was, and as good as it says?

use crate::args::Context;
use crate::commands::edit::{open_basis, read_basis};
use crate::inputs::{SelectionArgs, VocabName};
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use tvb::columns::tasks::TaskSource;
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::shown::{escaped, shown_path};
use tvb::{Error, Result};

/// Check a basis' checksums and, with the originals, its true errors
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The basis folder
    pub basis: PathBuf,
    /// The base it was made from
    #[arg(long, value_name = "PATH", requires = "tasks")]
    pub base: Option<PathBuf>,
    /// The fine-tunes it was made from (all or some)
    #[arg(value_name = "[NAME=]PATH", requires = "base")]
    pub tasks: Vec<OsString>,
    #[command(flatten)]
    pub selection: SelectionArgs,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    // With the originals it is said of these.
    let basis = match args.base {
        Some(_) => read_basis(&args.basis, context)?,
        None => open_basis(&args.basis, context)?,
    };
    let runtime = context.runtime()?;
    let files = verify_files(&basis, &runtime, &context.progress)?;
    let damaged: Vec<&str> = files.iter().filter(|file| file.damage.is_some()).map(|file| file.file.as_str()).collect();
    let mut text = String::new();
    for file in &files {
        text.push_str(&format!(
            "{:<28} {}\n",
            escaped(&file.file),
            escaped(file.damage.as_deref().unwrap_or("intact"))
        ));
    }
    let mut json = json!({
        "files": files.iter().map(|file| json!({ "file": file.file, "damage": file.damage })).collect::<Vec<_>>(),
        "intact": damaged.is_empty(),
    });
    if !damaged.is_empty() {
        let problem = Error::rejected(format!("{}: damaged: {}", shown_path(&args.basis), damaged.join(", ")))
            .hint("make the basis again, or copy it again");
        return Ok(Answer::new(text, json).with_problem(problem));
    }
    if let Some(base) = &args.base {
        let mut selection = args.selection.clone();
        if !basis.manifest.fit.common_rows.is_empty() {
            selection.vocab = VocabName::Common;
        }
        let plan = selection.plan(base, TaskSource::parse_all(&args.tasks)?, context)?;
        let errors = verify_errors(&basis, &plan, &runtime, &context.progress)?;
        let right = |name| (name, Align::Right);
        let mut table = Table::new([
            ("task", Align::Left),
            right("gain"),
            right("noise"),
            right("measured error"),
            right("as the basis says"),
        ]);
        for error in &errors {
            let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.6}"));
            let [gain, noise, measured, predicted] =
                [error.gain, error.noise(), Some(error.measured), error.predicted].map(shown);
            table.row([error.task.clone(), gain, noise, measured, predicted]);
        }
        text.push_str(&table.to_string());
        let rows = errors.iter().map(|error| {
            json!({
                "task": error.task, "gain": error.gain, "noise": error.noise(),
                "measured": error.measured, "predicted": error.predicted,
            })
        });
        Answer::add(&mut json, "errors", rows.collect::<Vec<_>>());
    }
    Ok(Answer::new(text, json))
}
