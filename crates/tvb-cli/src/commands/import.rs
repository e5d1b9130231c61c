//! `tvb import`: a basis as the reference code publishes it → a basis of ours.

use crate::args::Context;
use crate::output::Answer;
use std::path::PathBuf;
use tvb::checkpoint::Existing;
use tvb::jobs::interop::import;
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Result, units};

/// Make a basis of a published one (basis_vectors.pt with AWB.pt, pca_components.pt, …)
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The published folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The basis folder
    #[arg(short, long, value_name = "BASIS")]
    pub output: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let basis = import(&args.folder, &args.output, existing, &context.runtime()?, &context.progress)?;
    let manifest = &basis.manifest;
    let stored: u64 = manifest.atoms.iter().map(|atom| atom.bytes).sum();
    let mut text = format!(
        "{}: {} tasks ({}) in {} atoms, method {}, {}\n",
        shown_path(&args.output),
        basis.n_tasks(),
        escaped(&basis.task_names().join(", ")),
        basis.n_atoms(),
        escaped(&manifest.method.name),
        units::bytes(stored),
    );
    for note in &manifest.notes {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    text.push_str("errors are unknown: `tvb verify BASIS --base B TASK…` measures them on the originals\n");
    let mut json = crate::commands::inspect::basis_json(&basis);
    Answer::add(&mut json, "output", path_json(&args.output));
    Ok(Answer::new(text, json))
}
