//! `tvb join`: the parts of a job → what one run would have written.

use crate::args::Context;
use crate::output::Answer;
use serde_json::json;
use std::path::PathBuf;
use tvb::checkpoint::Existing;
use tvb::jobs::parts::{JoinOptions, Joined, PartSet, join};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Basis, Grams, Result, units};

/// Make of all parts of a job (`--part K/N`) what one run would have written, byte for byte
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The parts, in any order
    #[arg(required = true, value_name = "PART")]
    pub parts: Vec<PathBuf>,
    /// The Gram file, or the basis folder
    #[arg(short, long, value_name = "PATH")]
    pub output: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Parts may have read copies of the same files: with other paths and times of change
    #[arg(long)]
    pub copies: bool,
    /// The folder that the parts wrote their rows to, where it is not at the path that they were given
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Check that all parts are there and belong together, and stop
    #[arg(long)]
    pub dry_run: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let runtime = context.runtime()?;
    if args.dry_run {
        let set = PartSet::read(&args.parts, args.copies, &runtime.budget)?;
        let n_parts = set.parts.len();
        let kind = set.record.kind.in_words();
        let text = format!("all {n_parts} parts of {kind} are there and belong together\n");
        return Ok(Answer::new(text, json!({ "n_parts": n_parts, "kind": set.record.kind, "devices": set.devices() })));
    }
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let mut options = JoinOptions::new(&args.output);
    (options.existing, options.copies, options.into) = (existing, args.copies, args.into.clone());
    let started = std::time::Instant::now();
    let joined = join(&args.parts, &options, &runtime, &context.progress)?;
    let seconds = started.elapsed();
    match joined {
        Joined::Grams(grams) => Ok(of_grams(args, &grams, seconds)),
        Joined::Basis(basis) => Ok(of_basis(args, &basis, seconds)),
        _ => Err(tvb::Error::failed("an output of a kind that this program does not know")),
    }
}

fn of_basis(args: &Args, basis: &Basis, seconds: std::time::Duration) -> Answer {
    let text = format!(
        "{}: {}, from {} parts in {}\n",
        shown_path(&basis.folder),
        escaped(&basis.in_words()),
        args.parts.len(),
        units::duration(seconds),
    );
    let mut json = crate::commands::inspect::basis_json(basis);
    Answer::add(&mut json, "output", path_json(&args.output));
    Answer::add(&mut json, "n_parts", args.parts.len());
    Answer::add(&mut json, "seconds", seconds.as_secs_f64());
    Answer::new(text, json)
}

fn of_grams(args: &Args, grams: &Grams, seconds: std::time::Duration) -> Answer {
    let frozen: Vec<&String> = grams.tensors.iter().filter(|tensor| tensor.frozen).map(|tensor| &tensor.name).collect();
    let n_parameters: usize = grams.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let text = format!(
        "{}: Gram of {} tasks over {} parameters, {} tensors ({} frozen), from {} parts in {}\n",
        shown_path(&args.output),
        grams.n_tasks(),
        units::count(n_parameters as u64),
        grams.tensors.len(),
        frozen.len(),
        args.parts.len(),
        units::duration(seconds),
    );
    let json = json!({
        "output": path_json(&args.output),
        "n_parts": args.parts.len(),
        "n_tasks": grams.n_tasks(),
        "n_parameters": n_parameters,
        "n_tensors": grams.tensors.len(),
        "frozen": frozen,
        "seconds": seconds.as_secs_f64(),
    });
    Answer::new(text, json)
}
