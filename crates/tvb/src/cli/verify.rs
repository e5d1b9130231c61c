//! `tvb verify`: is a basis what it was when it was written, and is it as good as it says?

use super::args::Context;
use super::compress::shown;
use super::inputs::{SelectionArgs, open_plan};
use super::output::{Align, Answer, Table};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use tvb::basis::Basis;
use tvb::verify::{verify_errors, verify_files};
use tvb::{Error, Result};

/// Check every byte of a basis and, with the originals, measure the true error of each task
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The basis folder
    basis: PathBuf,
    /// The fine-tunes it was made from
    #[arg(value_name = "[NAME=]PATH", requires = "base")]
    tasks: Vec<OsString>,
    /// The base it was made from
    #[arg(long, value_name = "PATH", requires = "tasks")]
    base: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let basis = Basis::open(&args.basis)?;
    let runtime = context.runtime()?;
    let files = verify_files(&basis, &runtime, &context.progress)?;
    let mut table = Table::new([("file", Align::Left), ("state", Align::Left)]);
    for file in &files {
        table.row([file.file.clone(), file.damage.clone().unwrap_or_else(|| "intact".into())]);
    }
    let mut text = table.to_string();
    let files_json: Vec<Value> =
        files.iter().map(|file| json!({ "file": file.file, "damage": file.damage })).collect();
    let mut json = json!({ "basis": args.basis, "files": files_json });
    let damaged: Vec<&str> =
        files.iter().filter(|file| file.damage.is_some()).map(|file| file.file.as_str()).collect();
    if !damaged.is_empty() {
        let n_damaged = damaged.len();
        let error = Error::rejected(format!("{}: {n_damaged} damaged: {}", args.basis.display(), damaged.join(", ")))
            .hint("copy the basis again, or make it again");
        return Ok(Answer::new(text, json).with_problem(error));
    }
    if let Some(base) = &args.base {
        let plan = open_plan(base, &args.tasks, &args.selection)?;
        let errors = verify_errors(&basis, &plan, &runtime, &context.progress)?;
        let mut table =
            Table::new([("task", Align::Left), ("measured error", Align::Right), ("predicted", Align::Right)]);
        for error in &errors {
            table.row([error.task.clone(), format!("{:.6}", error.measured), shown(error.predicted)]);
        }
        text += &format!("\n{table}");
        let errors = errors.iter().map(|error| {
            json!({ "task": error.task, "measured_error": error.measured, "predicted_error": error.predicted })
        });
        json["tasks"] = errors.collect();
    }
    Ok(Answer::new(text, json))
}
