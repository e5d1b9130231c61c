//! `cargo xtask bench merges`: `tvb merge` beside mergekit, beside PyTorch, and beside the time that the bytes alone take.
//!
//! mergekit and `tvb` are given the same recipe: arithmetic in float32, an output in the inputs' bfloat16.

use super::inputs::{Inputs, Kind};
use super::jobs::Programs;
use super::peers;
use super::turns::{Contender, by_turns};
use crate::process::{Result, root};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fine-tuned language models that are merged.
const N_MODELS: usize = 4;
/// Fine-tuned image encoders whose matrices are merged.
const N_ENCODERS: usize = 8;
/// What torch runs for the methods by matrix.
const SCRIPT: &str = "benches/peers/matrices_torch.py";

/// Merges of bf16 language models beside mergekit, of image encoders by matrix beside PyTorch, each beside its I/O floor
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Parameters of each of the four language models
    #[arg(long, value_name = "N", default_value_t = 374_000_000)]
    parameters: usize,
    /// Parameters of each of the eight image encoders, of which PyTorch needs minutes for ten million
    #[arg(long, value_name = "N", default_value_t = super::inputs::FULL)]
    encoder_parameters: usize,
    /// Runs of each merge; the table has the median
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Only these
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// A Python with mergekit and PyTorch, in place of what `cargo xtask interop` has made
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// A built tvb, in place of building one
    #[arg(long, value_name = "PATH")]
    pub(super) tvb: Option<PathBuf>,
    /// Where the table goes; by default benches/results/MACHINE/DATE-merges.md
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// One half of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Methods by element: ties, dare
    Elements,
    /// Methods by matrix: TSV-M
    Matrices,
}

/// Runs them, and answers with the page's tables.
pub(super) fn run(args: &Args, programs: &Programs) -> Result<String> {
    let python = peers::find_python(args.python.as_deref());
    if python.is_none() {
        eprintln!(
            "note: no Python with torch and safetensors found; `cargo xtask interop` makes one, or --python PATH"
        );
    }
    let rounds = args.rounds.max(1);
    let mut text = format!("\nMedians of {rounds} runs by turns. Resident memory counts pages of mapped files.\n");
    if args.only != Some(Part::Matrices) {
        let inputs = Inputs::make(&programs.make_inputs, Kind::Gpt2, N_MODELS, args.parameters)?;
        let table = by_element(&inputs, programs, python.as_deref(), rounds);
        inputs.remove()?;
        text += &headed(N_MODELS, "bf16 checkpoints", args.parameters, &table?);
    }
    if args.only != Some(Part::Elements) {
        let inputs = Inputs::make(&programs.make_inputs, Kind::Vit, N_ENCODERS, args.encoder_parameters)?;
        let table = by_matrix(&inputs, programs, python.as_deref(), rounds);
        inputs.remove()?;
        text += &headed(N_ENCODERS, "f32 checkpoints", args.encoder_parameters, &table?);
    }
    Ok(text)
}

fn headed(n: usize, what: &str, n_parameters: usize, table: &str) -> String {
    format!("\n{n} {what} of {:.1} M parameters and their base\n\n{table}", n_parameters as f64 / 1e6)
}

/// Methods that look at each element: ties reads everything twice, dare once.
fn by_element(inputs: &Inputs, programs: &Programs, python: Option<&Path>, rounds: usize) -> Result<String> {
    let out = inputs.folder.join("out");
    let mergekit = python.filter(|python| peers::can_import(python, "mergekit"));
    if python.is_some() && mergekit.is_none() {
        eprintln!("note: this Python has no mergekit, whose rows are left out");
    }
    let mut contenders = vec![
        Contender::new("floor: read twice, write 1", None, || Ok(floor(programs, inputs, &out, 2))),
        Contender::new("floor: read once, write 1", None, || Ok(floor(programs, inputs, &out, 1))),
    ];
    for (method, density, at) in [("ties", 0.2, 0), ("dare_linear", 0.5, 1), ("dare_ties", 0.5, 1)] {
        let recipe = recipe(inputs, method, density)?;
        let (own, theirs, out) = (recipe.clone(), recipe, &out);
        contenders.push(Contender::new(&format!("`tvb merge`, recipe of {method}"), Some(at), move || {
            let mut command = merge(programs, out);
            command.arg(&own).arg("--allow-outside");
            Ok(command)
        }));
        if method == "ties" {
            contenders.push(Contender::new(
                "`tvb merge --method ties`, over whole task vectors",
                Some(at),
                move || {
                    let mut command = merge(programs, out);
                    command.args(["--method", method, "--density", "0.2", "--lambda", "0.3", "--base"]);
                    command.arg(inputs.base()).args(inputs.tasks());
                    Ok(command)
                },
            ));
        }
        if let Some(python) = mergekit {
            let name = format!("mergekit, recipe of {method}");
            contenders.push(Contender::new(&name, Some(at), move || Ok(peers::mergekit(python, &theirs, out))));
        }
    }
    by_turns(&contenders, rounds, &out)
}

/// TSV-M, which reads everything once and decomposes each matrix of each task.
fn by_matrix(inputs: &Inputs, programs: &Programs, python: Option<&Path>, rounds: usize) -> Result<String> {
    let out = inputs.folder.join("out");
    let mut contenders = vec![
        Contender::new("floor: read once, write 1", None, || Ok(floor(programs, inputs, &out, 1))),
        Contender::new("`tvb merge --method tsv_m`", Some(0), || {
            let mut command = merge(programs, &out);
            command.args(["--method", "tsv_m", "--base"]).arg(inputs.base()).args(inputs.tasks());
            Ok(command)
        }),
    ];
    if let Some(python) = python {
        let out = &out;
        contenders.push(Contender::new("PyTorch script: TSV-M", Some(0), move || {
            let mut command = Command::new(python);
            command.arg(root().join(SCRIPT)).arg("tsv_m").arg(inputs.base()).arg(out).args(inputs.tasks());
            Ok(command)
        }));
    }
    by_turns(&contenders, rounds, &out)
}

/// `tvb merge` without its models.
fn merge(programs: &Programs, out: &Path) -> Command {
    let mut command = Command::new(&programs.tvb);
    command.args(["-qq", "--device", "cpu", "merge", "-o"]).arg(out.join("merged.safetensors"));
    command
}

/// The same bytes read and as many written.
fn floor(programs: &Programs, inputs: &Inputs, out: &Path, n_reads: u32) -> Command {
    let mut command = Command::new(&programs.io_floor);
    command.args([n_reads.to_string(), inputs.checkpoint_bytes().to_string()]).arg(out.join("floor"));
    command.args(inputs.all());
    command
}

/// Writes mergekit's recipe of a method beside the inputs, and answers where.
fn recipe(inputs: &Inputs, method: &str, density: f64) -> Result<PathBuf> {
    let mut text = format!("merge_method: {method}\nbase_model: {}\nmodels:\n", inputs.base().display());
    for task in inputs.tasks() {
        text +=
            &format!("  - model: {}\n    parameters:\n      weight: 0.3\n      density: {density}\n", task.display());
    }
    text += "parameters:\n  normalize: false\ndtype: float32\nout_dtype: bfloat16\n";
    let path = inputs.folder.join(format!("{method}.yml"));
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
