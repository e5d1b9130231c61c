//! `tvb plan`: what each M and method would cost and lose, as it is and coded, from a Gram file alone.

mod choices;
mod show;
mod subsets;

use crate::args::Context;
use crate::coding::{Kept, parse_kept, parse_rate};
use crate::output::Answer;
use crate::solving::{TuningArgs, parse_max_error};
use choices::Choices;
use clap::ValueEnum;
use serde_json::{Value, json};
use show::Shown;
use std::path::PathBuf;
use subsets::Subset;
use tvb::basis::gram_file;
use tvb::checkpoint::{Dtype, Existing, Inputs, StagedOutput};
use tvb::jobs::compress::KeptEdit;
use tvb::jobs::report::{Pareto, pareto_svg};
use tvb::jobs::spectra::{find_own_spectra, find_spectra};
use tvb::progress::Progress;
use tvb::solve::{
    Gram, LADDER, Limit, MaxError, Method, Parts, PlanRow, Rung, SolveOptions, TableCodes, TableOptions, plan_table,
};
use tvb::units::{Amount, parse_amount};
use tvb::{Rate, Result, arithmetic};

/// Show what each number of atoms, each method and each code would cost and lose; no checkpoint is read
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A Gram file from `tvb gram`
    #[arg(long, value_name = "FILE")]
    pub gram: PathBuf,
    /// Numbers of atoms to show; a spread from 1 to T where none is given
    #[arg(short = 'm', long = "atoms", value_name = "N", value_delimiter = ',')]
    pub atoms: Vec<usize>,
    /// Methods to show beside the coded tasks: names, or `all` (default anchored,exact,sample)
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Show every method's atoms coded too, in this many bits an element: 1, 1.6, 2, 3, 4, 5, 6, 8, 0.25 or 0.5
    #[arg(long, value_name = "BITS", value_delimiter = ',', value_parser = parse_rate)]
    pub bits: Vec<Rate>,
    /// Bits of the shared column that keeps the sum of all tasks beside those codes, or off (default 3)
    #[arg(long, value_name = "BITS", value_parser = parse_kept, requires = "bits")]
    pub keep_sum: Option<Kept>,
    /// Show how true this edit would be, such as 'a - 0.5*b'; may be given more than once
    #[arg(long = "expression", value_name = "EXPRESSION", allow_hyphen_values = true)]
    pub expressions: Vec<String>,
    /// Say what `compress` takes for at most this much: 500M, or 6% of the float32 task vectors
    #[arg(long, value_name = "SIZE", value_parser = typed_amount)]
    pub max_bytes: Option<Typed<Amount>>,
    /// Say what `compress` takes for at most this error; `mean:E` or `worst:E` (default worst)
    #[arg(long, value_name = "E", value_parser = typed_error)]
    pub max_error: Option<Typed<MaxError>>,
    /// Only these tasks
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Show beside the table what bases of these tasks alone could keep: NAME,NAME; may be given more than once
    #[arg(long = "subset", value_name = "NAMES")]
    pub subsets: Vec<String>,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// How the table is printed
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// Write a plot of gain and noise against size here (SVG)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Replace an existing plot
    #[arg(long)]
    pub overwrite: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// Comma-separated values; a name that a spreadsheet would compute gets a `'` before it
    Csv,
}

/// A value with the words that said it.
#[derive(Clone, Debug)]
pub(crate) struct Typed<T> {
    pub words: String,
    pub value: T,
}

fn typed_amount(words: &str) -> Result<Typed<Amount>> {
    Ok(Typed { words: words.to_owned(), value: parse_amount(words)? })
}

fn typed_error(words: &str) -> Result<Typed<MaxError>> {
    Ok(Typed { words: words.to_owned(), value: parse_max_error(words)? })
}

/// Methods that are shown where none is named.
const METHODS: [&str; 3] = ["anchored", "exact", "sample"];

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    // Before the work, so that what is refused is refused at once.
    let inputs = Inputs::none().and(&args.gram);
    let plot = args.plot.as_deref().map(|path| StagedOutput::file(path, existing, &inputs)).transpose()?;
    let (path, budget) = (args.gram.clone(), context.budget.clone());
    let grams = context.unless_stopped(move |_| gram_file::read_within(&path, &budget))?;
    grams.left_out.tell(&grams.skipped, &context.progress);
    let names: Vec<String> = grams.tasks.iter().map(|task| task.name.clone()).collect();
    let n_rows = grams.n_moved_rows();
    let mut gram = Gram::new(grams.total())?.over(n_rows);
    let (coded, raw) = grams.parted();
    let mut parts = Parts { coded, raw };
    let mut tasks = names.clone();
    if !args.tasks.is_empty() {
        let chosen: Vec<usize> =
            args.tasks.iter().map(|name| arithmetic::find_task(&names, name)).collect::<Result<_>>()?;
        gram = gram.subset(&chosen)?.over(n_rows);
        parts = parts.subset(&chosen)?;
        tasks = chosen.iter().filter_map(|&task| names.get(task).cloned()).collect();
    }
    let methods = methods(args, &tasks)?;
    let ms = if args.atoms.is_empty() { spread(tasks.len()) } else { args.atoms.clone() };
    ms.iter().try_for_each(|&m| tvb::solve::check_atoms(m, tasks.len()))?;
    let mut options = SolveOptions::atoms(1);
    options.balance = args.tuning.balance;
    options.coordinates = args.tuning.coordinates();
    let weights =
        args.tuning.weights.iter().map(|text| arithmetic::parse_weighted(text)).collect::<Result<Vec<_>>>()?;
    let kept = vec![KeptEdit::sum(&tasks, &weights)?.alpha];
    let mixtures: Vec<Rung> = args.bits.iter().map(|&rate| Rung::new(rate, kept_rate(args))).collect();
    let mut rungs = LADDER.to_vec();
    mixtures.iter().for_each(|rung| {
        if !rungs.contains(rung) {
            rungs.push(*rung)
        }
    });
    rungs.sort_unstable();
    let codes = TableCodes { parts, tasks: rungs, mixtures, kept };
    let edit = |text: &String| arithmetic::expression(&tasks, text);
    let table = TableOptions {
        n_parameters: Some(n_rows),
        codes: Some(codes),
        expressions: args.expressions.iter().map(edit).collect::<Result<_>>()?,
        ..TableOptions::new(options)
    };
    let shapes: Vec<Vec<usize>> = grams.moved_shapes().into_iter().map(<[usize]>::to_vec).collect();
    let full_bytes = grams.moved_bytes(Dtype::F32).saturating_mul(tasks.len() as u64);
    // Where no method is named, `compress` codes the tasks as they are.
    let of_choices = if args.methods.is_empty() { Vec::new() } else { methods.clone() };
    let choices = Choices { limits: limits(args, full_bytes), methods: of_choices, shapes: shapes.clone(), full_bytes };
    let engine = context.small_engine()?;
    let mut solved = methods.clone();
    solved.extend(choices.methods.iter().cloned());
    let has_target = choices.limits.iter().any(|(_, limit)| matches!(limit, Limit::Error(_)));
    let subsets: Vec<Subset> =
        args.subsets.iter().map(|words| Subset::parse(words, &tasks, &gram)).collect::<Result<_>>()?;
    let (gram, subsets, warnings) = context.unless_stopped(move |_| {
        let mut warnings: Vec<String> = Vec::new();
        warnings.extend(find_spectra(&gram, &solved, (options.balance, has_target), &engine));
        let grams: Vec<&Gram> = subsets.iter().map(|subset| &subset.gram).collect();
        warnings.extend(find_own_spectra(&grams, &engine));
        // Those that are left to the CPU too, while it can be stopped.
        grams.iter().for_each(|gram| {
            gram.spectrum();
        });
        Ok((gram, subsets, warnings))
    })?;
    warnings.iter().for_each(|warning| context.progress.warn(warning));
    let (rows, chosen) = context.unless_stopped(move |go_on| {
        let rows = plan_table(&gram, &methods, &ms, &table, go_on)?;
        let chosen = choices.of(&gram, &table, go_on)?;
        Ok((rows, chosen))
    })?;
    if let Some(plot) = plot {
        let point = |row: &PlanRow| Pareto::of(row, row.storage.bytes(row.n_stored, &shapes), full_bytes);
        plot.commit_bytes(pareto_svg(&rows.iter().map(point).collect::<Vec<_>>())?.as_bytes())?;
    }
    let shown = Shown { rows: &rows, tasks: &tasks, expressions: &args.expressions, shapes: &shapes, full_bytes };
    let text = match args.format {
        Format::Table => {
            let chosen: String = chosen.iter().map(|chosen| format!("{}\n", chosen.line())).collect();
            let subsets = if subsets.is_empty() { String::new() } else { subsets::table(&subsets) };
            shown.table() + &chosen + &subsets
        }
        Format::Csv => shown.csv(),
    };
    let mut json = json!({ "tasks": tasks, "atom_bytes_f32": grams.moved_bytes(Dtype::F32), "rows": shown.json() });
    if !chosen.is_empty() {
        Answer::add(&mut json, "chosen", chosen.iter().map(choices::Chosen::json).collect::<Vec<Value>>());
    }
    if !subsets.is_empty() {
        Answer::add(&mut json, "subsets", subsets.iter().map(Subset::json).collect::<Vec<Value>>());
    }
    Ok(Answer::new(text, json))
}

/// The budgets, as typed and meant.
fn limits(args: &Args, full_bytes: u64) -> Vec<(String, Limit)> {
    let bytes = args.max_bytes.as_ref().map(|typed| (&typed.words, "bytes", Limit::Bytes(typed.value.of(full_bytes))));
    let error = args.max_error.as_ref().map(|typed| (&typed.words, "error", Limit::Error(typed.value)));
    bytes.into_iter().chain(error).map(|(words, of, limit)| (format!("--max-{of} {words}"), limit)).collect()
}

/// The rate of the column that keeps the sum beside `--bits`.
fn kept_rate(args: &Args) -> Option<Rate> {
    match args.keep_sum {
        Some(Kept(rate)) => rate,
        None => Rung::DEFAULT.kept_rate,
    }
}

fn methods(args: &Args, tasks: &[String]) -> Result<Vec<Method>> {
    if args.methods.iter().any(|name| name == "all") {
        return Method::all().iter().map(|method| args.tuning.method(method.name(), tasks)).collect();
    }
    let default = METHODS.map(str::to_owned);
    let named = if args.methods.is_empty() { default.as_slice() } else { args.methods.as_slice() };
    named.iter().map(|name| args.tuning.method(name.trim(), tasks)).collect()
}

/// Numbers of atoms worth showing: all of few, a spread of many.
fn spread(n_tasks: usize) -> Vec<usize> {
    if n_tasks <= 20 {
        return (1..=n_tasks).collect();
    }
    let mut ms: Vec<usize> = (1..=16).map(|step| (n_tasks * step).div_ceil(16)).collect();
    ms.dedup();
    ms
}
