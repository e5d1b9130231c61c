//! `tvb gram`: the Gram file, so that every later solve costs milliseconds.

use crate::args::Context;
use crate::inputs::{InputArgs, left_out_json};
use crate::output::Answer;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tvb::basis::gram_file;
use tvb::checkpoint::Existing;
use tvb::columns::plan::Plan;
use tvb::cost::Choice;
use tvb::jobs::gram::{extend_gram_file, gram_work, make_gram_file};
use tvb::jobs::parts::gram_part;
use tvb::ops::Grams;
use tvb::ops::gram_part::{GramShape, factored};
use tvb::ops::same_inputs::check_extends;
use tvb::pass::{Part, Runtime};
use tvb::shown::{path_json, shown_path};
use tvb::{Result, units};

/// Read the inputs once and keep their Gram matrices in a small file
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
    /// The Gram file, or the part of one
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Read one part of the rows only, such as 3/8; `tvb join` makes the Gram file of all parts
    #[arg(long, value_name = "K/N", value_parser = parse_part)]
    pub part: Option<Part>,
    /// A Gram file of the first of these tasks: its entries are taken as they are, and only those of the new tasks are formed.
    /// It may be the output itself, with --overwrite
    #[arg(long, value_name = "FILE", conflicts_with = "part")]
    pub extend: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan(context)?;
    let known = args.extend.as_ref().map(|path| known(path, &plan, context)).transpose()?;
    let n_new = known.as_ref().map(|known| plan.tasks.len().saturating_sub(known.n_tasks()));
    if args.dry_run {
        let mut answer = crate::commands::check::run_on(&plan);
        if let Some(n_new) = n_new {
            let text = format!("{n_new} new beside {} of the Gram file\n", plan.tasks.len() - n_new);
            answer.extend(&text, "n_new", json!(n_new));
        }
        if let Some(part) = args.part {
            say_share(&mut answer, &plan, part);
        }
        return Ok(answer);
    }
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    // Of a part too it is the whole job that is weighed, so that all parts take the device of one run.
    let runtime = context.runtime_for(|| Ok(gram_work(&plan)))?;
    let started = std::time::Instant::now();
    if let Some(part) = args.part {
        gram_part(&plan, part, &args.output, existing, &runtime, &context.progress)?;
        return Ok(of_part(args, part, &plan, &runtime, started.elapsed()));
    }
    let grams = match &known {
        Some(known) => extend_gram_file(&plan, known, &args.output, existing, &runtime, &context.progress)?,
        None => make_gram_file(&plan, &args.output, existing, &runtime, &context.progress)?,
    };
    let seconds = started.elapsed();
    let n_frozen = grams.tensors.iter().filter(|tensor| tensor.frozen).count();
    let text = format!(
        "{}: Gram of {} tasks{} over {} parameters, {} tensors ({n_frozen} frozen), in {} ({})\n",
        shown_path(&args.output),
        grams.n_tasks(),
        n_new.map_or(String::new(), |n_new| format!(" ({n_new} new)")),
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
            "n_new": n_new,
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

/// The Gram file to be extended, if the tasks of a plan are its tasks and more.
fn known(path: &Path, plan: &Plan, context: &Context) -> Result<Grams> {
    let (owned, budget) = (path.to_owned(), context.budget.clone());
    let grams = context.unless_stopped(move |_| gram_file::read_within(&owned, &budget))?;
    check_extends(plan, &grams).map_err(|error| error.context(shown_path(path)))?;
    Ok(grams)
}

/// `3/8`; the error names no file or line, since clap says which flag it is of.
pub(crate) fn parse_part(text: &str) -> std::result::Result<Part, String> {
    text.parse().map_err(|error: tvb::Error| error.message().to_owned())
}

/// Parameters that belong to a part.
fn n_parameters(plan: &Plan, part: Part) -> u64 {
    let shape = GramShape::new(plan, &factored(plan), part);
    let of_factored = shape.factored.iter().filter_map(|&tensor| plan.tensors.get(tensor)).map(|tensor| tensor.n_rows);
    shape.pieces.iter().map(|piece| piece.rows.len()).chain(of_factored).map(|n| n as u64).sum()
}

/// What a dry run says of a part.
fn say_share(answer: &mut Answer, plan: &Plan, part: Part) {
    let own = n_parameters(plan, part);
    let all = plan.n_rows();
    let percent = 100.0 * own as f64 / all.max(1) as f64;
    let text = format!("part {part}: {} of {} parameters ({percent:.1} %)\n", units::count(own), units::count(all));
    answer.extend(&text, "part", json!({ "part": part.to_string(), "n_parameters": own }));
}

/// The answer of a part.
fn of_part(args: &Args, part: Part, plan: &Plan, runtime: &Runtime, seconds: Duration) -> Answer {
    let own = n_parameters(plan, part);
    let share = own as f64 / plan.n_rows().max(1) as f64;
    let read_bytes = (plan.read_bytes() as f64 * share) as u64;
    let text = format!(
        "{}: part {part} of a Gram of {} tasks: {} of {} parameters, in {} ({})\n",
        shown_path(&args.output),
        plan.tasks.len(),
        units::count(own),
        units::count(plan.n_rows()),
        units::duration(seconds),
        units::rate(read_bytes, seconds),
    );
    let json = json!({
        "output": path_json(&args.output),
        "part": part.to_string(),
        "n_tasks": plan.tasks.len(),
        "n_parameters": own,
        "n_parameters_of_all": plan.n_rows(),
        "left_out": left_out_json(&plan.left_out),
        "seconds": seconds.as_secs_f64(),
        "device": runtime.device_name(),
        "device_choice": runtime.choice.as_ref().map(Choice::to_json),
    });
    Answer::new(text, json)
}
