//! `tvb compress`: base and fine-tunes → basis.

use crate::args::Context;
use crate::inputs::InputArgs;
use crate::output::{Align, Answer, Table};
use crate::solving::{MethodArgs, SizeArgs};
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tvb::basis::Basis;
use tvb::checkpoint::{Existing, Inputs};
use tvb::columns::plan::Plan;
use tvb::jobs::compress::{CompressOptions, Compressed, compress, forecast};
use tvb::pass::kept::Keep;
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Result, units};

/// Compress the task vectors of fine-tuned checkpoints into a basis
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    /// How atoms are stored
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: DtypeName,
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
    /// The basis folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
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
    let options = CompressOptions::new(&args.output)
        .method(args.method.tuning.method(&args.method.method, &names)?)
        .size(args.size.size())
        .balance(args.method.tuning.balance)
        .coordinates(args.method.tuning.coordinates())
        .dtype(args.dtype.kernel())
        .clip(args.clip)
        .gram(args.gram.clone())
        .keep(args.keep_inputs.keep())
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .protect(args.method.tuning.init.iter().fold(Inputs::none(), |inputs, path| inputs.and(path)));
    if args.dry_run {
        return dry_run(plan, options, context);
    }
    let runtime = context.runtime()?;
    let started = Instant::now();
    let made = compress(&plan, &options, &runtime, &context.progress)?;
    let elapsed = started.elapsed();
    let device = runtime.device_name();
    let mut json = crate::commands::inspect::basis_json(&made.basis);
    Answer::add(&mut json, "output", path_json(&args.output));
    Answer::add(&mut json, "device", device.as_str());
    Answer::add(&mut json, "seconds", elapsed.as_secs_f64());
    Answer::add(&mut json, "read_bytes", made.read_bytes);
    Ok(Answer::new(summary(&made, elapsed, &device), json))
}

fn dry_run(plan: Plan, options: CompressOptions, context: &Context) -> Result<Answer> {
    let (inputs, wanted, memory_bytes) = (plan.clone(), options.clone(), context.memory_bytes);
    let forecast = context.unless_stopped(move |_| forecast(&inputs, &wanted, memory_bytes))?;
    let shown = |bytes: Option<u64>| bytes.map_or("not known before the Gram is".to_owned(), units::bytes);
    let text = format!(
        "{} tasks × {} parameters in {} tensors ({} left out)\natoms   {}\nreads   {} ({} × {})\nmemory  at least {} on the CPU (--memory)\nwrites  at most {}, {} free\nwould write {}\n",
        plan.tasks.len(),
        units::count(plan.n_rows()),
        plan.tensors.len(),
        plan.skipped.len(),
        forecast.n_atoms.map_or("decided from the Gram matrix".to_owned(), |n| n.to_string()),
        units::bytes(forecast.read_bytes),
        forecast.n_reads,
        units::bytes(plan.n_bytes()),
        units::bytes(forecast.memory_bytes),
        shown(forecast.write_bytes),
        forecast.free_bytes.map_or("unknown".to_owned(), units::bytes),
        shown_path(&options.output),
    );
    let json = json!({
        "dry_run": true,
        "n_tasks": plan.tasks.len(),
        "n_parameters": plan.n_rows(),
        "n_tensors": plan.tensors.len(),
        "n_atoms": forecast.n_atoms,
        "read_bytes": forecast.read_bytes,
        "memory_bytes": forecast.memory_bytes,
        "write_bytes": forecast.write_bytes,
        "free_bytes": forecast.free_bytes,
        "skipped": plan.skipped,
        "output": path_json(&options.output),
    });
    Ok(Answer::new(text, json))
}

fn summary(made: &Compressed, elapsed: Duration, device: &str) -> String {
    let basis = &made.basis;
    let manifest = &basis.manifest;
    let mut table = Table::new([("task", Align::Left), ("norm", Align::Right), ("relative error", Align::Right)]);
    for task in &manifest.tasks {
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        table.row([task.name.clone(), shown(task.norm), shown(task.relative_error)]);
    }
    let stored: u64 = manifest.atoms.iter().map(|atom| atom.bytes).sum();
    let each = manifest.atoms.first().map_or(0, |atom| atom.bytes);
    let sizes = match manifest.generated {
        Some(_) => "made from a seed wherever they are needed".to_owned(),
        None => format!("{} instead of {}", units::bytes(stored), units::bytes(each * manifest.tasks.len() as u64)),
    };
    let mut text = format!(
        "{}: {} tasks in {} atoms ({}), {sizes}\n{table}",
        shown_path(&basis.folder),
        manifest.tasks.len(),
        manifest.n_vectors(),
        escaped(&manifest.method.name),
    );
    if let (Some(loss), Some(bound), Some(addition)) = (manifest.relative_loss, bound_share(basis), manifest.addition) {
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

/// The bound as a share of all squared norms, as the relative loss is one.
fn bound_share(basis: &Basis) -> Option<f64> {
    let manifest = &basis.manifest;
    let (loss, bound, relative) = (manifest.loss?, manifest.spectral_bound?, manifest.relative_loss?);
    Some(if loss > 0.0 { bound / loss * relative } else { 0.0 })
}
