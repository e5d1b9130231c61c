//! `tvb gram`: the Gram file, so that every later solve costs milliseconds.

use super::args::Context;
use super::inputs::{InputArgs, OutputArgs};
use super::output::Answer;
use super::preflight;
use serde_json::json;
use std::time::Instant;
use tvb::basis::gram_file;
use tvb::checkpoint::StagedOutput;
use tvb::{Error, Result, units};

/// Read the checkpoints once and keep their inner products, so that every later solve costs milliseconds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan()?;
    let path = &args.output.output;
    if args.output.dry_run {
        let output = preflight::Output { path, n_bytes: None };
        let (text, json) = preflight::describe(&plan, 1, Some(&output), context)?;
        return Ok(Answer::new(text, json));
    }
    // Refused before the work, not after it.
    let staged = StagedOutput::file(path, args.output.existing())?;
    let started = Instant::now();
    let grams = tvb::gram::gram(&plan, &context.runtime()?, &context.progress)?;
    let bytes = gram_file::to_bytes(&grams)?;
    std::fs::write(staged.path(), &bytes).map_err(|error| Error::io("writing", staged.path(), &error))?;
    staged.commit()?;
    let elapsed = started.elapsed();
    let n_frozen = grams.tensors.iter().filter(|tensor| tensor.frozen).count();
    let text = format!(
        "{}: {} tasks, {} tensors ({n_frozen} frozen), {} in {}\n",
        path.display(),
        grams.n_tasks(),
        grams.tensors.len(),
        units::bytes(bytes.len() as u64),
        units::duration(elapsed)
    );
    let json = json!({
        "output": path,
        "bytes": bytes.len(),
        "tasks": grams.tasks,
        "n_tensors": grams.tensors.len(),
        "n_frozen": n_frozen,
        "n_parameters": plan.n_rows(),
        "device": context.device_name()?,
        "seconds": elapsed.as_secs_f64(),
    });
    Ok(Answer::new(text, json))
}
