//! `tvb recover`: the recovered task vectors, or with a base the recovered checkpoints.

use crate::args::Context;
use crate::commands::compress::DtypeName;
use crate::commands::edit::{model_id, open_basis};
use crate::inputs::open_base_of;
use crate::output::Answer;
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;
use tvb::basis::manifest::TaskRecord;
use tvb::checkpoint::Existing;
use tvb::jobs::recover::{RecoverOptions, recover, recover_work};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Result, arithmetic};

/// Recover task vectors from a basis, or with --base whole checkpoints
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The basis folder
    pub basis: PathBuf,
    /// Tasks to recover (default: all)
    pub tasks: Vec<String>,
    /// The base: recovered checkpoints instead of task vectors
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// The base's name on the Hugging Face hub, for the model cards
    #[arg(long, value_name = "ID", value_parser = model_id, requires = "base")]
    pub base_model: Option<String>,
    /// The folder for the outputs, one for each task
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Type of the float tensors; each keeps its own where nothing is said
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeName>,
    /// Scale each task so that its gain is 1 (unbiased): single tasks from mixtures gain by it, sums would lose
    #[arg(long, value_enum, default_value = "none", value_name = "HOW")]
    pub gain: GainName,
    /// Write the largest finite value of a type in place of a value beyond it, which is an error otherwise
    #[arg(long)]
    pub clip: bool,
    /// Replace existing outputs
    #[arg(long)]
    pub overwrite: bool,
    /// Use a base that is not the one the basis was made from
    #[arg(long)]
    pub force: bool,
}

/// `--gain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GainName {
    /// As they come out of the basis
    None,
    /// Scaled to a gain of 1
    Unbiased,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let basis = open_basis(&args.basis, context)?;
    let names = basis.task_names();
    let tasks: Vec<usize> = match args.tasks.is_empty() {
        true => (0..names.len()).collect(),
        false => args.tasks.iter().map(|name| arithmetic::find_task(&names, name)).collect::<Result<_>>()?,
    };
    let base = args.base.as_deref().map(|path| open_base_of(&basis, path, None, context)).transpose()?;
    let options = RecoverOptions::new(tasks.clone(), &args.output)
        .dtype(args.dtype.map(DtypeName::kernel))
        .clip(args.clip)
        .unbiased(args.gain == GainName::Unbiased)
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .force(args.force)
        .command(context.command_line())
        .base_model(args.base_model.clone());
    let runtime = context.runtime_for(|| Ok(recover_work(&basis, base.as_ref(), &options)))?;
    let recovered = recover(&basis, base.as_ref(), &options, &runtime, &context.progress)?;
    let mut text = String::new();
    let mut rows = Vec::new();
    let mut drowned = 0;
    for (&task, path) in tasks.iter().zip(&recovered.written) {
        let Some(record) = basis.manifest.tasks.get(task) else { continue };
        let name = &record.name;
        let (gain, noise, error) = scaled(record, args.gain);
        drowned += usize::from(args.gain == GainName::Unbiased && noise.is_some_and(|noise| noise > 1.0));
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        text.push_str(&format!(
            "{}: {} (gain {}, noise {}, relative error {})\n",
            escaped(name),
            shown_path(path),
            shown(gain),
            shown(noise),
            shown(error)
        ));
        rows.push(json!({
            "task": name, "output": path_json(path), "gain": gain, "noise": noise, "relative_error": error,
        }));
    }
    if drowned > 0 {
        let plural = if drowned == 1 { "" } else { "s" };
        text.push_str(&format!(
            "{drowned} task{plural} with more noise than signal: the basis has hardly anything of them to scale\n"
        ));
    }
    Ok(Answer::new(text, json!({ "recovered": rows, "clipped": recovered.clipped })))
}

/// Gain, noise and relative error of a task as it was written.
fn scaled(record: &TaskRecord, gain: GainName) -> (Option<f64>, Option<f64>, Option<f64>) {
    match (gain, record.gain, record.noise) {
        (GainName::Unbiased, Some(gain), Some(noise)) if gain > 0.0 => {
            let noise = noise / (gain * gain);
            (Some(1.0), Some(noise), Some(noise))
        }
        _ => (record.gain, record.noise, record.relative_error),
    }
}
