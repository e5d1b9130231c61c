//! `tvb report`: one self-contained page of plots.

use crate::args::Context;
use crate::commands::edit::open_basis;
use crate::output::Answer;
use serde_json::json;
use std::path::PathBuf;
use tvb::Result;
use tvb::checkpoint::{Existing, StagedOutput};
use tvb::jobs::report::basis_report;
use tvb::progress::Progress;
use tvb::shown::{path_json, shown_path};

/// Write one self-contained HTML page that shows what a basis keeps and loses
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A basis folder
    pub basis: PathBuf,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Replace an existing page
    #[arg(long)]
    pub overwrite: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let basis = open_basis(&args.basis, context)?;
    let folder = shown_path(&basis.folder);
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let staged = StagedOutput::file(&args.output, existing, &basis.inputs())?;
    let engine = context.small_engine()?;
    let (page, warnings) = context.unless_stopped(move |go_on| basis_report(&basis, &engine, go_on))?;
    warnings.iter().for_each(|warning| context.progress.warn(warning));
    staged.commit_bytes(page.as_bytes())?;
    let text = format!("{}: report of {}\n", shown_path(&args.output), folder);
    Ok(Answer::new(text, json!({ "output": path_json(&args.output), "bytes": page.len() })))
}
