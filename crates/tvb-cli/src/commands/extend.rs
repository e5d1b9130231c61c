//! `tvb extend`: tasks join a basis whose originals need not be there.

use crate::args::Context;
use crate::commands::edit::open_basis;
use crate::inputs::{SelectionArgs, parse_tasks};
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;
use tvb::checkpoint::Existing;
use tvb::jobs::compress::parse_rate;
use tvb::jobs::extend::{ExtendOptions, Extended, extend};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Rate, Result, units};
use tvb_kernels::DeviceChoice;

/// Take new tasks into a basis without the originals of those that are in it
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The basis folder
    pub basis: PathBuf,
    /// The fine-tuned checkpoints that join it
    #[arg(value_name = "NAME=PATH[::KEY]", required = true)]
    pub tasks: Vec<OsString>,
    /// The base that the basis was made from
    #[arg(long, value_name = "PATH")]
    pub base: PathBuf,
    /// Write the extended basis here; it replaces the old one otherwise
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// M of a basis of mixtures from now on (default: as many as before); with as many as it has and newcomers, the newcomers are
    /// added as they are
    #[arg(short = 'm', long = "atoms", value_name = "M")]
    pub n_atoms: Option<usize>,
    /// A Gram file of all tasks, old and new, from `tvb gram`: no inner product is estimated then
    #[arg(long, value_name = "FILE")]
    pub gram: Option<PathBuf>,
    /// The newcomers' weight in the sum that is kept (default 1)
    #[arg(long, value_name = "W", default_value_t = 1.0, allow_negative_numbers = true, hide_default_value = true)]
    pub weight: f64,
    /// Bits of the shared column that keeps the sum, from now on (default: as many as before)
    #[arg(long, value_name = "BITS", value_parser = parse_rate)]
    pub keep_sum: Option<Rate>,
    /// Change the names of the newcomers' tensors before they are matched: s/REGEX/REPLACEMENT/, or NAME:s/…/…/ for one task
    #[arg(long, value_name = "RULE")]
    pub rename: Vec<String>,
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Take a base that is not the one the basis was made from
    #[arg(long)]
    pub force: bool,
    /// Replace an existing output
    #[arg(long, requires = "output")]
    pub overwrite: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let basis = open_basis(&args.basis, context)?;
    let selection = SelectionArgs::of_basis(&basis, &args.rename, args.key.as_deref());
    let plan = selection.plan_quietly(&args.base, parse_tasks(&args.tasks, context)?, context)?;
    let options = ExtendOptions::default()
        .output(args.output.clone())
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .n_atoms(args.n_atoms)
        .gram(args.gram.clone())
        .weight(args.weight)
        .keep_bits(args.keep_sum)
        .force(args.force);
    let runtime = context.runtime_on(&DeviceChoice::Cpu)?;
    let started = Instant::now();
    let extended = extend(&basis, &plan, &options, &runtime, &context.progress)?;
    let seconds = started.elapsed();
    let mut json = crate::commands::inspect::basis_json(&extended.basis);
    let new: Vec<&str> = plan.tasks.iter().map(|task| task.name.as_str()).collect();
    Answer::add(&mut json, "output", path_json(&extended.basis.folder));
    Answer::add(&mut json, "joined", json!(new));
    Answer::add(&mut json, "seconds", seconds.as_secs_f64());
    Answer::add(&mut json, "read_bytes", extended.read_bytes);
    Answer::add(&mut json, "written_bytes", extended.written_bytes);
    Answer::add(&mut json, "growth_notes", json!(extended.notes));
    let mut text = summary(&extended);
    text.push_str(&format!(
        "{} ({} read, {} written)\n",
        units::duration(seconds),
        units::bytes(extended.read_bytes),
        units::bytes(extended.written_bytes)
    ));
    Ok(Answer::new(text, json))
}

fn summary(extended: &Extended) -> String {
    let basis = &extended.basis;
    let manifest = &basis.manifest;
    let right = |name| (name, Align::Right);
    let mut table =
        Table::new([("task", Align::Left), ("", Align::Left), right("gain"), right("noise"), right("relative error")]);
    let n_old = manifest.tasks.len() - extended.n_new;
    for (number, task) in manifest.tasks.iter().enumerate() {
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        let [gain, noise, error] = [task.gain, task.noise, task.relative_error].map(shown);
        let is_new = if number < n_old { "expected" } else { "new, measured" };
        table.row([task.name.clone(), is_new.to_owned(), gain, noise, error]);
    }
    let mut text = format!("{}: {}\n{table}", shown_path(&basis.folder), escaped(&basis.in_words()));
    if let Some(addition) = manifest.addition {
        text.push_str(&format!(
            "addition of all: cosine {:.4}, norm ratio {:.4}\n",
            addition.projected.cosine, addition.projected.norm_ratio
        ));
    }
    if let Some(estimates) = &manifest.estimates {
        text.push_str(&crate::commands::inspect::estimates_text(estimates));
    }
    for note in &extended.notes {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    text
}
