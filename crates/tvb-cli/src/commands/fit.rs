//! `tvb fit`: coefficients over tasks or atoms that work best, by the user's own evaluator.

use crate::args::Context;
use crate::commands::compress::DtypeName;
use crate::commands::edit::{Opened, OriginalsArgs, check_alone, model_id};
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use tvb::checkpoint::{Existing, Inputs};
use tvb::jobs::edit::{Combination, edit_work};
use tvb::jobs::evaluate::Evaluator;
use tvb::jobs::fit::{Chosen, FitOptions, Fitted, fit};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Error, Result, units};

/// What the help says below the flags.
const EVALUATOR_HELP: &str = "\
The evaluator is any program. {checkpoint} among its arguments becomes the candidate's path; the last line of its stdout is a
flat JSON object of metrics, such as {\"accuracy\": 0.81}. With --serve it is started once and reads a path from each line of
its stdin; its answer to each is one line with such an object, flushed. docs/evaluators.md has examples of both.
The same command resumes an interrupted fit, and goes on with one whose --evaluations were fewer.";

/// Rows of the table beside the best point: the best starts.
const N_SHOWN: usize = 5;

/// Fit coefficients over tasks or atoms without gradients, by your own evaluator
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EVALUATOR_HELP)]
pub(crate) struct Args {
    /// The basis folder
    #[arg(required_unless_present = "from_checkpoints")]
    basis: Option<PathBuf>,
    /// More than a basis: to say what to do with it
    #[arg(hide = true)]
    more: Vec<OsString>,
    /// The base checkpoint θ0
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    /// The base's name on the Hugging Face hub, for the model card
    #[arg(long, value_name = "ID", value_parser = model_id)]
    base_model: Option<String>,
    /// The folder for the results, the best candidate and its coefficients
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The metric that decides: a key of the evaluator's JSON object
    #[arg(long, value_name = "NAME")]
    metric: String,
    /// Less of the metric is better
    #[arg(long)]
    minimize: bool,
    /// What gets a coefficient: all tasks, all atoms, or these tasks
    #[arg(long, value_name = "tasks|atoms|NAME,NAME", default_value = "tasks")]
    over: String,
    /// Coefficients of their own for each of N runs of layers
    #[arg(long, value_name = "N")]
    blocks: Option<usize>,
    /// Points that are evaluated at most
    #[arg(long, default_value = "200", value_name = "N")]
    evaluations: NonZeroUsize,
    /// How long points are evaluated at most, such as 90, 5m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    time: Option<Duration>,
    /// What the sum of the coefficients' sizes costs, in units of the metric
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    l1: f64,
    /// What the sum of their squares costs
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    l2: f64,
    /// Evaluators that run at once; the result does not depend on it
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: NonZeroUsize,
    /// Seed of the search
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Coefficients to try first, as `tvb fit` or tvb.torch wrote them
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// A file for the best coefficients, beside DIR/coefficients.json
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Start the evaluator once, and let it read the candidates' paths from its stdin
    #[arg(long)]
    serve: bool,
    /// How long one point of the evaluator may take, such as 90, 5m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    timeout: Option<Duration>,
    /// Replace another fit's results
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
    check_alone(args.basis.as_deref(), &args.more)?;
    let options = options(args, context)?;
    let from = Opened::new(args.basis.as_deref(), Some(&args.base), &args.originals, context)?;
    let base = from.open_base(&args.base, args.originals.selection.key.as_deref(), context)?;
    let n_tasks = match &options.over {
        Chosen::Named(names) => names.len(),
        Chosen::Tasks | Chosen::Atoms => from.names().len(),
    };
    let runtime = context.runtime_for(|| Ok(edit_work(from.source(), Some(&base), n_tasks, 1, options.dtype)))?;
    let fitted = fit(from.source(), &base, &options, &runtime, &context.progress)?;
    Ok(Answer::new(text(&fitted, &options)?, json(&fitted, &options)?))
}

/// What was typed as what is meant.
fn options(args: &Args, context: &Context) -> Result<FitOptions> {
    let evaluator = match args.serve {
        true => Evaluator::serving(args.command.clone(), args.timeout)?,
        false => Evaluator::new(args.command.clone(), args.timeout)?,
    };
    let mut options = FitOptions::new(&args.output, evaluator, &args.metric);
    options.minimize = args.minimize;
    options.over = match args.over.as_str() {
        "tasks" => Chosen::Tasks,
        "atoms" => Chosen::Atoms,
        names => Chosen::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
    };
    options.n_blocks = args.blocks;
    options.n_evaluations = args.evaluations;
    options.time = args.time;
    (options.l1, options.l2) = (args.l1, args.l2);
    options.n_jobs = args.jobs;
    options.seed = args.seed;
    options.init = args.init.as_deref().map(|path| Combination::read(path, &context.budget)).transpose()?;
    options.save.clone_from(&args.save);
    options.existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    options.dtype = args.dtype.map(DtypeName::kernel);
    options.clip = args.clip;
    options.force = args.force;
    options.command = context.command_line();
    options.base_model.clone_from(&args.base_model);
    options.protect = args.init.iter().fold(Inputs::none(), |inputs, path| inputs.and(path));
    Ok(options)
}

/// The best starts and the best point, and its coefficients.
fn text(fitted: &Fitted, options: &FitOptions) -> Result<String> {
    let best = fitted.best().ok_or_else(|| Error::failed("a fit: a point or more expected, none found"))?;
    let mut starts = Vec::new();
    for point in fitted.points.iter().filter(|point| point.from.starts_with("start: ")) {
        starts.push((point.objective(options)?, point.metric(options)?, point));
    }
    starts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = Table::new([("point", Align::Left), (&options.metric, Align::Right), ("", Align::Left)]);
    for (_, metric, point) in starts.iter().take(N_SHOWN) {
        table.row([escaped(&point.from).into_owned(), format!("{metric:.4}"), String::new()]);
    }
    let number = best.number.map_or_else(String::new, |number| format!(" (point {number})"));
    table.row([format!("{}{number}", escaped(&best.from)), format!("{:.4}", best.metric(options)?), "best".to_owned()]);
    let mut text = table.to_string();
    let shape = &fitted.combination;
    for (row, values) in shape.values.iter().enumerate() {
        let block = shape.blocks.as_ref().and_then(|blocks| blocks.get(row));
        let named = shape.names.iter().zip(values).map(|(name, value)| format!("{value:.3}*{}", escaped(name)));
        let block = block.map_or_else(String::new, |block| format!("{}: ", escaped(&block.name)));
        text += &format!("{block}{}\n", named.collect::<Vec<_>>().join(" + ").replace("+ -", "- "));
    }
    text += &format!("best: {}\n", shown_path(&fitted.best_path));
    text += &format!("coefficients: {}\n", shown_path(&options.output.join("coefficients.json")));
    text += &format!("results: {}\n", shown_path(&options.output.join("results.json")));
    Ok(text)
}

fn json(fitted: &Fitted, options: &FitOptions) -> Result<serde_json::Value> {
    let best = fitted.best().ok_or_else(|| Error::failed("a fit: a point or more expected, none found"))?;
    Ok(json!({
        "output": path_json(&options.output),
        "fingerprint": fitted.fingerprint,
        "n_points": fitted.points.len(),
        "n_evaluated": fitted.n_evaluated,
        "names": fitted.combination.names,
        "best": {
            "number": best.number, "from": best.from, "values": best.values, "metrics": best.metrics,
            "objective": best.objective(options)?, "checkpoint": path_json(&fitted.best_path),
            "coefficients": path_json(&options.output.join("coefficients.json")),
        },
    }))
}
