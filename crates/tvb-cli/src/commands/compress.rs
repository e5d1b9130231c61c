//! `tvb compress`: base and fine-tunes → basis.

use crate::args::Context;
use crate::coding::CodingArgs;
use crate::commands::gram::parse_part;
use crate::inputs::{InputArgs, left_out_json};
use crate::output::{Align, Answer, Table};
use crate::solving::{MethodArgs, SizeArgs};
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tvb::basis::Basis;
use tvb::checkpoint::{Existing, Inputs};
use tvb::columns::plan::Plan;
use tvb::cost::Choice;
use tvb::jobs::compress::{CompressOptions, Compressed, Foretold, compress, compress_work, forecast, foretell};
use tvb::jobs::parts::compress_part;
use tvb::pass::Part;
use tvb::pass::kept::Keep;
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Error, Result, units};

/// Compress the task vectors of fine-tuned checkpoints into a basis
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub coding: CodingArgs,
    /// LoRA adapters alone: a core of P by P for each, between two factors of rank P that all share
    #[arg(long, value_name = "P", value_parser = parse_rank)]
    pub shared_rank: Option<usize>,
    /// How mixtures, and what adapters share, are stored where they are not coded (default f32)
    #[arg(long, value_enum, conflicts_with = "bits")]
    pub dtype: Option<DtypeName>,
    /// Write the largest finite value of a type in place of a value beyond it, which is an error otherwise
    #[arg(long)]
    pub clip: bool,
    /// A Gram file of these inputs, from `tvb gram`: one read instead of two
    #[arg(long, value_name = "FILE")]
    pub gram: Option<PathBuf>,
    /// Keep inputs that fit in --memory there between the two passes; auto: where the file system does not cache them. A GPU
    /// with memory of its own keeps what fits in --device-memory besides
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub keep_inputs: KeepName,
    /// The basis folder, or that of a part of it
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Make one part of the rows only, such as 3/8; `tvb join` makes the basis of all parts
    #[arg(long, value_name = "K/N", value_parser = parse_part)]
    pub part: Option<Part>,
    /// With --part: write the rows to where they belong in this folder, the same for all parts; joining copies nothing then
    #[arg(long, value_name = "DIR", requires = "part")]
    pub into: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `--shared-rank`.
fn parse_rank(text: &str) -> Result<usize> {
    let rank = text.parse().ok().filter(|rank| *rank > 0);
    rank.ok_or_else(|| Error::usage(format!("a rank from 1 on expected, {text:?} found")))
}

/// `--keep-inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepName {
    Auto,
    Always,
    Never,
}

impl KeepName {
    fn keep(self) -> Keep {
        match self {
            KeepName::Auto => Keep::Auto,
            KeepName::Always => Keep::Always,
            KeepName::Never => Keep::Never,
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeName {
    F32,
    Bf16,
    F16,
}

impl DtypeName {
    pub(crate) fn kernel(self) -> tvb_kernels::Dtype {
        match self {
            DtypeName::F32 => tvb_kernels::Dtype::F32,
            DtypeName::Bf16 => tvb_kernels::Dtype::Bf16,
            DtypeName::F16 => tvb_kernels::Dtype::F16,
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan(context)?;
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let options = storage(args, &names)?
        .balance(args.method.tuning.balance)
        .coordinates(args.method.tuning.coordinates())
        .clip(args.clip)
        .gram(args.gram.clone())
        .keep(args.keep_inputs.keep())
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .protect(args.method.tuning.init.iter().fold(Inputs::none(), |inputs, path| inputs.and(path)));
    if args.dry_run {
        let mut answer = dry_run(plan, options, context)?;
        if let Some(part) = args.part {
            let text = format!("all of this in {} parts, of which this is {part}\n", part.n_parts());
            answer.extend(&text, "part", json!(part.to_string()));
        }
        return Ok(answer);
    }
    let input_bytes = plan.stored_bytes();
    let runtime = context.runtime_for(|| Ok(compress_work(&plan, &options)))?;
    let started = Instant::now();
    if let Some(part) = args.part {
        compress_part(&plan, &options, part, args.into.as_deref(), &runtime, &context.progress)?;
        let (seconds, device) = (started.elapsed(), runtime.device_name());
        let text = format!(
            "{}: part {part} of a basis, in {} on {device}\n",
            shown_path(&args.output),
            units::duration(seconds)
        );
        let mut json = json!({ "output": path_json(&args.output), "part": part.to_string(), "device": device });
        Answer::add(&mut json, "into", args.into.as_deref().map(path_json));
        Answer::add(&mut json, "device_choice", runtime.choice.as_ref().map(Choice::to_json));
        Answer::add(&mut json, "seconds", seconds.as_secs_f64());
        return Ok(Answer::new(text, json));
    }
    let made = compress(&plan, &options, &runtime, &context.progress)?;
    let elapsed = started.elapsed();
    let device = runtime.device_name();
    let mut json = crate::commands::inspect::basis_json(&made.basis);
    Answer::add(&mut json, "output", path_json(&args.output));
    Answer::add(&mut json, "device", device.as_str());
    Answer::add(&mut json, "device_choice", runtime.choice.as_ref().map(Choice::to_json));
    Answer::add(&mut json, "seconds", elapsed.as_secs_f64());
    Answer::add(&mut json, "read_bytes", made.read_bytes);
    Answer::add(&mut json, "stored_bytes", made.basis.manifest.stored_bytes());
    Answer::add(&mut json, "float32_bytes", made.basis.full_bytes());
    Answer::add(&mut json, "input_bytes", input_bytes);
    Ok(Answer::new(summary(&made, input_bytes, elapsed, &device), json))
}

/// Method, size and storage: tasks that are coded as they are, unless a method or a number of atoms is asked for.
fn storage(args: &Args, names: &[String]) -> Result<CompressOptions> {
    let tuning = &args.method.tuning;
    let is_mixed = args.method.method.is_some() || args.size.counts_atoms();
    if let Some(rank) = args.shared_rank {
        if is_mixed || args.size.is_budget() || args.coding.is_any() {
            return Err(Error::usage(
                "--shared-rank beside a method, a size or bits: adapters in shared spaces are neither mixed nor coded",
            )
            .hint("give --shared-rank P alone (with --dtype bf16 for half the bytes), or leave it out"));
        }
        let dtype = args.dtype.map_or(tvb_kernels::Dtype::F32, DtypeName::kernel);
        return Ok(CompressOptions::new(&args.output).shared_rank(Some(rank)).dtype(dtype));
    }
    let coding = args.coding.options(names, tuning)?;
    if !is_mixed {
        if args.dtype.is_some() {
            return Err(Error::usage(
                "--dtype without a method: tasks are coded as they are, and --bits says how finely",
            )
            .hint("--method identity stores them as they are; -m N, --ratio R or --method NAME mixes them"));
        }
        let size = args.size.is_budget().then(|| args.size.size());
        if size.is_some() && args.coding.bits.is_some() {
            return Err(Error::usage("--bits and a budget: a budget chooses the bits").hint("leave one of them out"));
        }
        let options = CompressOptions::new(&args.output).coding(Some(coding)).keep_factors(!args.coding.is_any());
        return Ok(match size {
            Some(size) => options.size(size),
            None => options,
        });
    }
    let coding = args.coding.bits.map(|_| coding);
    if coding.is_none() && args.coding.is_any() {
        return Err(Error::usage("--keep-sum and --keep are about codes, and the mixtures are stored as floats")
            .hint("give --bits too"));
    }
    let name = args.method.method.as_deref().unwrap_or("anchored");
    let options = CompressOptions::mixtures(&args.output)
        .method(tuning.method(name, names)?)
        .size(args.size.size())
        .any_storage(args.size.is_budget() && coding.is_none() && args.dtype.is_none())
        .coding(coding);
    Ok(options.dtype(args.dtype.map_or(tvb_kernels::Dtype::F32, DtypeName::kernel)))
}

fn dry_run(plan: Plan, options: CompressOptions, context: &Context) -> Result<Answer> {
    let foretold = match options.shared_rank {
        Some(_) => Some(foretell(&plan, &options, &context.runtime()?, &context.progress)?),
        None => None,
    };
    let (inputs, wanted, memory_bytes) = (plan.clone(), options.clone(), context.memory_bytes);
    let forecast = context.unless_stopped(move |_| forecast(&inputs, &wanted, memory_bytes))?;
    let choice = context.choice_for(|| Ok(compress_work(&plan, &options)))?;
    let device = choice.as_ref().map_or(String::new(), |choice| format!("{}\n", escaped(&choice.to_string())));
    let shown = |bytes: Option<u64>| bytes.map_or("not known before the Gram is".to_owned(), units::bytes);
    let mut text = format!(
        "{} tasks × {} parameters in {} tensors ({} left out)\natoms   {}\nreads   {} ({} × {})\nmemory  at least {} on the CPU (--memory)\nwrites  at most {}, {} free\n{device}would write {}\n",
        plan.tasks.len(),
        units::count(plan.n_rows()),
        plan.tensors.len(),
        plan.skipped.len(),
        forecast.n_atoms.map_or("decided from the Gram matrix".to_owned(), |n| n.to_string()),
        units::bytes(forecast.read_bytes),
        forecast.n_reads,
        units::bytes(plan.read_bytes()),
        units::bytes(forecast.memory_bytes),
        shown(forecast.write_bytes),
        forecast.free_bytes.map_or("unknown".to_owned(), units::bytes),
        shown_path(&options.output),
    );
    let mut json = json!({
        "dry_run": true,
        "n_tasks": plan.tasks.len(),
        "n_parameters": plan.n_rows(),
        "n_tensors": plan.tensors.len(),
        "n_atoms": forecast.n_atoms,
        "read_bytes": forecast.read_bytes,
        "memory_bytes": forecast.memory_bytes,
        "write_bytes": forecast.write_bytes,
        "free_bytes": forecast.free_bytes,
        "device_choice": choice.as_ref().map(Choice::to_json),
        "skipped": plan.skipped,
        "left_out": left_out_json(&plan.left_out),
        "output": path_json(&options.output),
    });
    if let Some(Foretold { assessment, .. }) = foretold {
        let mut table = error_table();
        let mut tasks = Vec::new();
        for (number, task) in plan.tasks.iter().enumerate() {
            let of = |values: &[f64]| values.get(number).copied();
            let [norm, gain, noise, error] =
                [&assessment.norms, &assessment.gains, &assessment.noises, &assessment.relative_errors]
                    .map(|of_all| of(of_all));
            error_row(&mut table, &task.name, [norm, gain, noise, error]);
            tasks.push(
                json!({ "name": task.name, "norm": norm, "gain": gain, "noise": noise, "relative_error": error }),
            );
        }
        text.push_str(&table.to_string());
        Answer::add(&mut json, "tasks", tasks);
        Answer::add(&mut json, "mean_error", assessment.mean);
        Answer::add(&mut json, "worst_error", assessment.worst);
    }
    Ok(Answer::new(text, json))
}

fn summary(made: &Compressed, input_bytes: u64, elapsed: Duration, device: &str) -> String {
    let basis = &made.basis;
    let manifest = &basis.manifest;
    let mut table = error_table();
    for task in &manifest.tasks {
        error_row(&mut table, &task.name, [task.norm, task.gain, task.noise, task.relative_error]);
    }
    let mut text = format!(
        "{}: {}\n{}\n{table}",
        shown_path(&basis.folder),
        escaped(&basis.in_words()),
        sizes(basis, input_bytes)
    );
    if let Some(coded) = &manifest.coded
        && let Some(addition) = manifest.addition
    {
        let kept = if coded.n_kept > 0 { format!("; kept: {}", coded.kept.join(", ")) } else { String::new() };
        text.push_str(&format!(
            "addition of all: cosine {:.4}, norm ratio {:.4}{}\n",
            addition.projected.cosine,
            addition.projected.norm_ratio,
            escaped(&kept)
        ));
    } else if let (Some(loss), Some(bound), Some(addition)) =
        (manifest.relative_loss, bound_share(basis), manifest.addition)
    {
        text.push_str(&format!(
            "relative loss {loss:.4} (no basis of this size has less than {bound:.4}); addition of all: cosine {:.4}, norm ratio {:.4}\n",
            addition.projected.cosine, addition.projected.norm_ratio
        ));
    }
    for note in &manifest.notes {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    text.push_str(&format!("{} on {device} ({} read)\n", units::duration(elapsed), units::bytes(made.read_bytes)));
    text
}

/// Norm and errors of every task.
fn error_table() -> Table {
    let right = |name| (name, Align::Right);
    Table::new([("task", Align::Left), right("norm"), right("gain"), right("noise"), right("relative error")])
}

fn error_row(table: &mut Table, task: &str, figures: [Option<f64>; 4]) {
    let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
    let [norm, gain, noise, error] = figures.map(shown);
    table.row([task.to_owned(), norm, gain, noise, error]);
}

/// What the atoms take, and of what.
fn sizes(basis: &Basis, input_bytes: u64) -> String {
    if basis.manifest.generated.is_some() {
        return "made from a seed wherever they are needed".to_owned();
    }
    let stored = basis.manifest.stored_bytes();
    let percent = |share: f64| format!("{:.2}%", 100.0 * share);
    let share = |of: u64| if of > 0 { stored as f64 / of as f64 } else { 0.0 };
    let full = basis.full_bytes();
    let of_full = full.map_or(String::new(), |full| {
        format!("{} (1/{:.1}) of the float32 task vectors, ", percent(share(full)), 1.0 / share(full))
    });
    format!("{}: {of_full}{} of the inputs as stored", units::bytes(stored), percent(share(input_bytes)))
}

/// The bound as a share of all squared norms, as the relative loss is one.
fn bound_share(basis: &Basis) -> Option<f64> {
    let manifest = &basis.manifest;
    let (loss, bound, relative) = (manifest.loss?, manifest.spectral_bound?, manifest.relative_loss?);
    Some(if loss > 0.0 { bound / loss * relative } else { 0.0 })
}
