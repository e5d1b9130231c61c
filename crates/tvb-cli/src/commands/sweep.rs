//! `tvb sweep add` and `tvb sweep negate`: the scale that works best, by the user's own evaluator.

use crate::args::Context;
use crate::commands::compress::DtypeName;
use crate::commands::edit::{Opened, OriginalsArgs, RuleName, addition, check_alone, model_id, split};
use crate::commands::tensor_weights::TensorWeightArgs;
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tvb::checkpoint::{Existing, Inputs};
use tvb::jobs::edit::{Edit, sweep_work};
use tvb::jobs::evaluate::Evaluator;
use tvb::jobs::sweep::{Control, DEFAULT_SCALES, Goal, SweepOptions, Swept, parse_scales, read_metrics, sweep};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::solve::Rule;
use tvb::{Error, Result, arithmetic, units};

/// What the help says below the flags.
const EVALUATOR_HELP: &str = "\
The evaluator is any program. {checkpoint} among its arguments becomes the candidate's path, {scale} its scale; the last
line of its stdout is a flat JSON object of metrics, such as {\"accuracy\": 0.81, \"control\": 0.93}.
With --serve it is started once and reads a path from each line of its stdin; its answer to each is one line with such an
object, flushed. Lines that do not begin with { are ignored. docs/evaluators.md has examples of both.
The same command resumes an interrupted sweep.";

/// Find the scale that works best, by your own evaluator
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Kind {
    Add(Box<AddArgs>),
    Negate(Box<NegateArgs>),
}

/// Sweep over θ0 + λ Σ αt τ̂t
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EVALUATOR_HELP)]
struct AddArgs {
    /// The basis folder
    #[arg(required_unless_present = "from_checkpoints")]
    basis: Option<PathBuf>,
    /// More than a basis: to say what to do with it
    #[arg(hide = true)]
    more: Vec<OsString>,
    /// A task to add, with its weight (default: all tasks, weight 1)
    #[arg(long = "task", value_name = "NAME[:WEIGHT]", allow_hyphen_values = true)]
    tasks: Vec<String>,
    /// How atoms are combined
    #[arg(long, value_enum, default_value = "projected")]
    rule: RuleName,
    #[command(flatten)]
    sweep: SweepArgs,
}

/// Sweep over θ0 − λ τ̂
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EVALUATOR_HELP)]
struct NegateArgs {
    /// The basis folder, then the task; the task alone with --from-checkpoints
    #[arg(value_name = "BASIS TASK", num_args = 1.., required = true)]
    words: Vec<OsString>,
    #[command(flatten)]
    sweep: SweepArgs,
}

/// What both take, as typed.
#[derive(Clone, Debug, clap::Args)]
struct SweepArgs {
    /// The base checkpoint θ0
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    /// The base's name on the Hugging Face hub, for the model card
    #[arg(long, value_name = "ID", value_parser = model_id)]
    base_model: Option<String>,
    /// The folder for the results and the best candidate
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Scales λ: START:STOP:STEP, or a list
    #[arg(long, default_value = DEFAULT_SCALES, value_name = "SCALES", allow_hyphen_values = true)]
    scales: String,
    #[command(flatten)]
    by_tensor: TensorWeightArgs,
    /// The metric that decides: a key of the evaluator's JSON object, or `normalized`
    #[arg(long, value_name = "NAME")]
    metric: String,
    /// Less of the metric is better
    #[arg(long)]
    minimize: bool,
    /// A metric that must be kept
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
    /// The part of the control's reference that is enough
    #[arg(long, default_value_t = 0.95, value_name = "X", requires = "control")]
    keep: f64,
    /// The unedited model's metrics: a JSON file, or `auto` to evaluate the base
    #[arg(long, default_value = "auto", value_name = "FILE|auto", requires = "control")]
    reference: PathBuf,
    /// Evaluate the base too, and record what it scores
    #[arg(long)]
    eval_zero_shot: bool,
    /// Each task's metric after its own fine-tuning, as a flat JSON file: adds the metrics `normalized` (the mean) and
    /// `normalized.NAME`
    #[arg(long, value_name = "FILE")]
    normalize_by: Option<PathBuf>,
    /// How long one run of the evaluator may take, such as 90, 5m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    timeout: Option<Duration>,
    /// Start the evaluator once, and let it read the candidates' paths from its stdin
    #[arg(long)]
    serve: bool,
    /// Evaluators that run at once
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: NonZeroUsize,
    /// Keep every candidate, not only the best
    #[arg(long)]
    keep_all: bool,
    /// Replace another sweep's results
    #[arg(long)]
    overwrite: bool,
    /// Type of the candidates' float tensors; each keeps its own where nothing is said
    #[arg(long, value_enum)]
    dtype: Option<DtypeName>,
    /// Write the largest finite value of a type in place of a value beyond it, which is an error otherwise
    #[arg(long)]
    clip: bool,
    /// Use a base that is not the one the basis was made from
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    originals: OriginalsArgs,
    /// The evaluator, with {checkpoint} among its arguments unless it serves
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    match &args.kind {
        Kind::Add(args) => {
            check_alone(args.basis.as_deref(), &args.more)?;
            let (chosen, rule) = addition(&args.tasks, args.rule, args.basis.is_some())?;
            run_sweep(args.basis.as_deref(), &args.sweep, rule, context, |names| arithmetic::addition(names, &chosen))
        }
        Kind::Negate(args) => {
            let (basis, [task]) = split(&args.words, &args.sweep.originals)?;
            let alpha = |names: &[String]| arithmetic::negation(names, &task);
            run_sweep(basis.as_deref(), &args.sweep, Rule::Projected, context, alpha)
        }
    }
}

fn run_sweep(
    basis: Option<&Path>,
    args: &SweepArgs,
    rule: Rule,
    context: &Context,
    alpha: impl Fn(&[String]) -> Result<Vec<f64>>,
) -> Result<Answer> {
    let options = options(args, context)?;
    let from = Opened::new(basis, Some(&args.base), &args.originals, context)?;
    let by_tensor = args.by_tensor.of(from.source())?;
    let edit = Edit { alpha: alpha(&from.names())?, scale: 1.0, rule, by_tensor };
    let base = from.open_base(&args.base, args.originals.selection.key.as_deref(), context)?;
    let n_tasks = edit.alpha.iter().filter(|weight| **weight != 0.0).count();
    let runtime =
        context.runtime_for(|| Ok(sweep_work(from.source(), &base, n_tasks, options.scales.len(), options.dtype)))?;
    let swept = sweep(from.source(), &edit, &base, &options, &runtime, &context.progress)?;
    let answer = Answer::new(table(&swept, &options), json(&swept, &options));
    match swept.best() {
        Some(_) => Ok(answer),
        None => Ok(answer.with_problem(none_eligible(&swept, &options))),
    }
}

/// What was typed as what is meant.
fn options(args: &SweepArgs, context: &Context) -> Result<SweepOptions> {
    if !(args.keep.is_finite() && args.keep >= 0.0) {
        return Err(Error::usage(format!("--keep: a part such as 0.95 expected, {} found", args.keep)));
    }
    let reference = match args.control {
        Some(_) if args.reference != Path::new("auto") => Some(read_metrics(&args.reference, &context.budget)?),
        _ => None,
    };
    let scales = parse_scales(&args.scales).map_err(|error| error.context("--scales"))?;
    let evaluator = match args.serve {
        true => Evaluator::serving(args.command.clone(), args.timeout)?,
        false => Evaluator::new(args.command.clone(), args.timeout)?,
    };
    let goal = Goal {
        metric: args.metric.clone(),
        minimize: args.minimize,
        control: args.control.clone().map(|name| Control { name, keep: args.keep, reference }),
    };
    // `auto` is no file.
    let files = args.normalize_by.iter().chain(Some(&args.reference).filter(|path| *path != Path::new("auto")));
    let inputs = files.fold(Inputs::none(), |inputs, path| inputs.and(path));
    Ok(SweepOptions::new(&args.output, scales, evaluator, goal)
        .zero_shot(args.eval_zero_shot)
        .fine_tuned(args.normalize_by.as_deref().map(|path| read_metrics(path, &context.budget)).transpose()?)
        .n_jobs(args.jobs)
        .keep_all(args.keep_all)
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .dtype(args.dtype.map(DtypeName::kernel))
        .clip(args.clip)
        .force(args.force)
        .command(context.command_line())
        .base_model(args.base_model.clone())
        .protect(inputs))
}

fn none_eligible(swept: &Swept, options: &SweepOptions) -> Error {
    let control = options.goal.control.as_ref().map_or("control", |control| control.name.as_str());
    let floor = swept.choice.floor.unwrap_or(f64::NAN);
    Error::failed(format!(
        "none of {} scales keeps {control} at {floor:.6} or above: no best candidate",
        swept.points.len()
    ))
    .hint("try smaller scales, or a lower --keep; results.json has every point")
}

fn table(swept: &Swept, options: &SweepOptions) -> String {
    let goal = &options.goal;
    let shown = |metrics: &tvb::jobs::evaluate::Metrics, name: &str| {
        metrics.get(name).map_or("-".into(), |value| format!("{value:.4}"))
    };
    let control = goal.control.as_ref().map(|control| control.name.as_str()).filter(|name| *name != goal.metric);
    let row = |label: String, metrics: &tvb::jobs::evaluate::Metrics, mark: &str| {
        [
            label,
            shown(metrics, &goal.metric),
            control.map_or(String::new(), |name| shown(metrics, name)),
            mark.to_owned(),
        ]
    };
    let headings = [
        ("scale", Align::Right),
        (&goal.metric, Align::Right),
        (control.unwrap_or(""), Align::Right),
        ("", Align::Left),
    ];
    let mut table = Table::new(headings);
    if let Some(metrics) = &swept.zero_shot {
        table.row(row("base".into(), metrics, ""));
    }
    for (index, (point, eligible)) in swept.points.iter().zip(&swept.choice.eligible).enumerate() {
        let mark = match (swept.choice.best == Some(index), eligible) {
            (true, _) => "best",
            (false, true) => "",
            (false, false) => "control lost",
        };
        table.row(row(point.scale.to_string(), &point.metrics, mark));
    }
    let mut text = table.to_string();
    if let (Some(best), Some(path)) = (swept.best(), &swept.best_path) {
        let value = shown(&best.metrics, &goal.metric);
        text += &format!("best: scale {}, {} {value}: {}\n", best.scale, escaped(&goal.metric), shown_path(path));
    }
    text += &format!("results: {}\n", shown_path(&options.output.join("results.json")));
    text
}

fn json(swept: &Swept, options: &SweepOptions) -> serde_json::Value {
    let points = swept.points.iter().zip(&swept.choice.eligible);
    json!({
        "output": path_json(&options.output),
        "fingerprint": swept.fingerprint,
        "points": points.map(|(point, eligible)| json!({
            "scale": point.scale, "metrics": point.metrics, "eligible": eligible, "seconds": point.seconds,
        })).collect::<Vec<_>>(),
        "zero_shot": swept.zero_shot,
        "control_floor": swept.choice.floor,
        "n_evaluated": swept.n_evaluated,
        "best": swept.best().map(|best| json!({
            "scale": best.scale, "metrics": best.metrics, "checkpoint": swept.best_path.as_deref().map(path_json),
        })),
    })
}
