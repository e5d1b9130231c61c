//! `tvb compress`: base and fine-tunes become a basis.

use super::args::Context;
use super::inputs::{InputArgs, OutputArgs};
use super::method::MethodArgs;
use super::output::{Align, Answer, Table};
use super::preflight;
use super::sizing::{SizeArgs, StoredDtype};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use tvb::basis::manifest::Manifest;
use tvb::basis::{Basis, gram_file};
use tvb::compress::{CompressOptions, Size, atoms_for_ratio, compress, solve_for};
use tvb::plan::Plan;
use tvb::{Error, Result, units};

/// Compress the task vectors of fine-tuned checkpoints into a basis
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    size: SizeArgs,
    /// How atoms are stored
    #[arg(long, value_enum, default_value_t = StoredDtype::F32, help_heading = "Size of the basis")]
    dtype: StoredDtype,
    /// A Gram file of the same checkpoints: they are then read once instead of twice
    #[arg(long, value_name = "FILE")]
    gram: Option<PathBuf>,
    #[command(flatten)]
    method: MethodArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let plan = args.inputs.plan()?;
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let options = CompressOptions {
        method: args.method.meant(&names)?,
        size: args.size.meant(),
        balance: args.method.balance,
        coordinates: args.method.coordinates(),
        dtype: Some(args.dtype.meant()),
        gram: args.gram.clone(),
        output: args.output.output.clone(),
        existing: args.output.existing(),
    };
    if args.output.dry_run {
        return dry_run(&plan, &options, context);
    }
    let started = Instant::now();
    let basis = compress(&plan, &options, &context.runtime()?, &context.progress)?;
    let seconds = started.elapsed().as_secs_f64();
    for note in &basis.manifest.notes {
        tracing::warn!("{note}");
    }
    let mut json = serde_json::to_value(&basis.manifest)
        .map_err(|error| Error::failed(format!("the manifest cannot be shown as JSON: {error}")))?;
    json["output"] = json!(options.output);
    json["device"] = json!(context.device_name()?);
    json["seconds"] = json!(seconds);
    let elapsed = units::duration(started.elapsed());
    let text = format!("{}\n{} written in {elapsed}\n", summary(&basis), options.output.display());
    Ok(Answer::new(text, json))
}

/// The plan without the work; M is known unless it depends on a Gram matrix that is not there yet.
fn dry_run(plan: &Plan, options: &CompressOptions, context: &Context) -> Result<Answer> {
    let n_tasks = plan.tasks.len();
    let dtype_bytes = options.dtype.map_or(4, tvb_kernels::Dtype::size) as u64;
    let atom_bytes = plan.n_rows() * dtype_bytes;
    let n_atoms = match (&options.gram, options.size) {
        (Some(path), _) => {
            let solved = solve_for(&gram_file::read(path)?, options, &context.progress)?;
            Some(solved.coefficients.n_stored())
        }
        (None, Size::Atoms(n_atoms)) => Some(n_atoms),
        (None, Size::Ratio(ratio)) => Some(atoms_for_ratio(ratio, n_tasks)?),
        (None, Size::MaxError(_)) => None,
        (None, Size::MaxBytes(limit)) => Some(((limit / atom_bytes.max(1)) as usize).min(n_tasks)),
    };
    let n_bytes = n_atoms.map(|n_atoms| n_atoms as u64 * atom_bytes);
    let n_passes = if options.gram.is_some() { 1 } else { 2 };
    let output = preflight::Output { path: &options.output, n_bytes };
    let (mut text, mut json) = preflight::describe(plan, n_passes, Some(&output), context)?;
    let shown = n_atoms.map_or("as many as the error needs".into(), |n_atoms| n_atoms.to_string());
    text += &format!("atoms    {shown}, by method {}\n", options.method.name());
    json["method"] = json!(options.method.name());
    json["n_atoms"] = json!(n_atoms);
    Ok(Answer::new(text, json))
}

/// Tasks with their errors, then what the basis takes and loses.
pub(super) fn summary(basis: &Basis) -> String {
    let manifest = &basis.manifest;
    let mut table = Table::new([("task", Align::Left), ("norm", Align::Right), ("relative error", Align::Right)]);
    for task in &manifest.tasks {
        table.row([task.name.clone(), shown(task.norm), shown(task.relative_error)]);
    }
    format!("{table}\n{}", totals(manifest))
}

fn totals(manifest: &Manifest) -> String {
    let atom_bytes: u64 = manifest.atoms.iter().map(|atom| atom.bytes).sum();
    let dtype = manifest.atoms.first().map_or("nothing stored".into(), |atom| atom.dtype.to_string());
    let mut text = format!(
        "method   {}: {} tasks in {} atoms, {} of {dtype}\n",
        manifest.method.name,
        manifest.tasks.len(),
        manifest.atoms.len(),
        units::bytes(atom_bytes)
    );
    if let (Some(loss), Some(bound), Some(relative)) =
        (manifest.loss, manifest.spectral_bound, manifest.relative_loss)
    {
        text += &format!("loss     {loss:.4e}, bound {bound:.4e}; {:.2} % of all squared norms\n", 100.0 * relative);
    }
    if let Some(addition) = manifest.addition {
        let (projected, sum) = (addition.projected, addition.sum);
        text += &format!(
            "addition cosine {:.6}, norm ratio {:.6} (rule sum: {:.6}, {:.6})\n",
            projected.cosine, projected.norm_ratio, sum.cosine, sum.norm_ratio
        );
    }
    text
}

/// A figure, or `-` where it is unknown.
pub(super) fn shown(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.6}"))
}

/// JSON has no infinity: such a figure is null.
pub(super) fn finite(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}
