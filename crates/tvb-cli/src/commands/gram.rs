//! `tvb gram`: the Gram file, so that every later solve costs milliseconds.

use crate::args::Context;
use crate::inputs::{InputArgs, left_out_json};
use crate::output::Answer;
use serde_json::json;
use std::path::PathBuf;
use tvb::checkpoint::Existing;
use tvb::cost::Choice;
use tvb::jobs::gram::{gram_work, make_gram_file};
use tvb::shown::{path_json, shown_path};
use tvb::{Result, units};

/// Read the inputs once and keep their Gram matrices in a small file
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
    /// The Gram file
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan(context)?;
    if args.dry_run {
        return Ok(crate::commands::check::run_on(&plan));
    }
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let runtime = context.runtime_for(|| Ok(gram_work(&plan)))?;
    let started = std::time::Instant::now();
    let grams = make_gram_file(&plan, &args.output, existing, &runtime, &context.progress)?;
    let seconds = started.elapsed();
    let n_frozen = grams.tensors.iter().filter(|tensor| tensor.frozen).count();
    let text = format!(
        "{}: Gram of {} tasks over {} parameters, {} tensors ({n_frozen} frozen), in {} ({})\n",
        shown_path(&args.output),
        grams.n_tasks(),
        units::count(plan.n_rows()),
        grams.tensors.len(),
        units::duration(seconds),
        units::rate(plan.read_bytes(), seconds),
    );
    Ok(Answer::new(
        text,
        json!({
            "output": path_json(&args.output),
            "n_tasks": grams.n_tasks(),
            "n_parameters": plan.n_rows(),
            "n_tensors": grams.tensors.len(),
            "frozen": grams.tensors.iter().filter(|tensor| tensor.frozen).map(|tensor| &tensor.name).collect::<Vec<_>>(),
            "left_out": left_out_json(&plan.left_out),
            "read_bytes": plan.read_bytes(),
            "seconds": seconds.as_secs_f64(),
            "device": runtime.device_name(),
            "device_choice": runtime.choice.as_ref().map(Choice::to_json),
        }),
    ))
}
