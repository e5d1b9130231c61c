//! `tvb check`: do these checkpoints fit, and what would a run need? Headers only.

use super::args::Context;
use super::inputs::InputArgs;
use super::output::Answer;
use super::preflight;
use tvb::Result;

/// Check from headers alone that the checkpoints fit, and what a run would need
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    inputs: InputArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan()?;
    let (text, json) = preflight::describe(&plan, 2, None, context)?;
    Ok(Answer::new(text, json))
}
