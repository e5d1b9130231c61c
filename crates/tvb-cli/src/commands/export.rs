//! `tvb export`: a basis in the reference code's layout, or a checkpoint as a PyTorch state dict.

use crate::args::Context;
use crate::commands::edit::open_basis;
use crate::inputs::open_base_of;
use crate::output::Answer;
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;
use tvb::basis::Basis;
use tvb::checkpoint::Existing;
use tvb::jobs::interop::{ExportOptions, export_basis, export_checkpoint};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Error, Result};

/// Write a basis in the reference code's layout, or a checkpoint as a PyTorch state dict
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A basis folder, or with --format pt a checkpoint
    pub path: PathBuf,
    /// The folder, or with --format pt the .pt file
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// What is written; by default what PATH can become
    #[arg(long, value_enum)]
    pub format: Option<FormatName>,
    /// The base, for the shapes of frozen tensors (default: where the basis was made from)
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// The folder of a published basis
    Reference,
    /// A state dict that torch.load accepts
    Pt,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let is_basis = Basis::is_at(&args.path);
    let shown = shown_path(&args.output);
    match (args.format, is_basis) {
        (Some(FormatName::Reference) | None, true) => {
            let basis = open_basis(&args.path, context)?;
            let base = args.base.as_deref().map(|path| open_base_of(&basis, path, None, context)).transpose()?;
            let options = ExportOptions::new(&args.output).existing(existing).base(base);
            let exported = export_basis(&basis, &options, &context.runtime()?, &context.progress)?;
            let mut text = format!("{shown}: {} atoms as {}\n", basis.manifest.n_vectors(), exported.method);
            exported.notes.iter().for_each(|note| text.push_str(&format!("note: {}\n", escaped(note))));
            let json = json!({ "output": path_json(&args.output), "method": exported.method, "notes": exported.notes });
            Ok(Answer::new(text, json))
        }
        (Some(FormatName::Pt) | None, false) => {
            let checkpoint = context.open(&args.path)?;
            export_checkpoint(&checkpoint, &args.output, existing, &context.progress)?;
            let n_tensors = checkpoint.tensors().len();
            let json = json!({ "output": path_json(&args.output), "n_tensors": n_tensors });
            Ok(Answer::new(format!("{shown}: a state dict of {n_tensors} tensors\n"), json))
        }
        (Some(FormatName::Pt), true) => Err(Error::usage("--format pt is for a checkpoint, a basis found")
            .hint("`tvb recover` or `tvb add` writes a checkpoint of it first")),
        (Some(FormatName::Reference), false) => Err(Error::usage(format!(
            "--format reference is for a basis folder, none found in {}",
            shown_path(&args.path)
        ))),
    }
}
