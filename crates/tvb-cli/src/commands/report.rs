//! `tvb report`: one self-contained page of plots.

use crate::args::Context;
use crate::output::Answer;
use serde_json::json;
use std::path::PathBuf;
use tvb::Result;
use tvb::basis::Basis;
use tvb::checkpoint::{Existing, write_whole};
use tvb::jobs::report::basis_report;

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
    let basis = Basis::open_within(&args.basis, &context.budget)?;
    let go_on = |_: f64| !tvb::progress::Progress::cancelled(&context.progress);
    let page = basis_report(&basis, &go_on)?;
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    write_whole(&args.output, page.as_bytes(), existing)?;
    let text = format!("{}: report of {}\n", args.output.display(), basis.folder.display());
    Ok(Answer::new(text, json!({ "output": args.output, "bytes": page.len() })))
}
