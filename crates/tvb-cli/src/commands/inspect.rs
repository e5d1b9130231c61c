//! `tvb inspect`: what a basis, a Gram file, a part of a job, a checkpoint or an adapter holds.

use crate::args::Context;
use crate::inputs::left_out_json;
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tvb::basis::history::{Estimates, Event};
use tvb::basis::part_file::{self, PartFile};
use tvb::basis::{Basis, gram_file};
use tvb::checkpoint::{Budget, Checkpoint, OpenOptions};
use tvb::columns::adapter::{Adapter, Found};
use tvb::columns::tasks::split_key;
use tvb::columns::unfit::unfit;
use tvb::jobs::tensor_spectra::{TensorSpectra, tensor_spectra_of_basis, tensor_spectra_of_grams};
use tvb::matrix::Matrix;
use tvb::ops::{Grams, Per};
use tvb::progress::Progress;
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Result, units};

/// Say what a basis, a Gram file, a part of a job, a checkpoint or an adapter holds
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A basis folder, a Gram file, a part (--part), a checkpoint, or an adapter (LoRA)
    pub path: PathBuf,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let (path, budget) = (args.path.clone(), context.budget.clone());
    let (mut answer, of) = context.unless_stopped(move |_| inspect(&path, &budget))?;
    let Some(of) = of else { return Ok(answer) };
    let engine = context.small_engine()?;
    let spectra = context.unless_stopped(move |_| {
        Ok(match &of {
            Spectral::Basis(basis) => tensor_spectra_of_basis(basis, &engine),
            Spectral::Grams(grams) => tensor_spectra_of_grams(grams, &engine),
        })
    })?;
    if let Some(spectra) = &spectra {
        if let Some(warning) = &spectra.warning {
            context.progress.warn(warning);
        }
        answer.extend(&tensors_text(spectra), "tensor_spectra", json!(spectra));
    }
    Ok(answer)
}

/// What has Gram matrices by tensor.
enum Spectral {
    Basis(Box<Basis>),
    Grams(Box<Grams>),
}

/// Tensors shown in text; `--json` has all.
const MAX_TENSORS: usize = 8;

/// Where most of the change is, and how many directions it has there.
fn tensors_text(spectra: &TensorSpectra) -> String {
    let mut table = Table::new([
        ("tensor", Align::Left),
        ("share of the change", Align::Right),
        ("effective rank", Align::Right),
        ("in one direction", Align::Right),
    ]);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    for tensor in spectra.tensors.iter().take(MAX_TENSORS) {
        table.row([
            tensor.tensor.clone(),
            percent(tensor.share),
            tensor.effective_rank.map_or("not found".to_owned(), |rank| format!("{rank:.2}")),
            tensor.first_share.map_or("not found".to_owned(), percent),
        ]);
    }
    let n_more = spectra.tensors.len().saturating_sub(MAX_TENSORS);
    let more = if n_more > 0 { format!("… and {n_more} tensors more (--json has all)\n") } else { String::new() };
    format!("{table}{more}")
}

fn inspect(path: &Path, budget: &Budget) -> Result<(Answer, Option<Spectral>)> {
    if Basis::is_at(path) {
        let basis = Basis::open_within(path, budget)?;
        let answer = Answer::new(basis_text(&basis), basis_json(&basis));
        return Ok((answer, Some(Spectral::Basis(Box::new(basis)))));
    }
    if part_file::is_folder(path) {
        return Ok((of_part(path, budget)?, None));
    }
    let (path, key) = &split_key(path)?;
    let options = OpenOptions { key: key.clone(), budget: budget.clone() };
    let checkpoint = match Found::at(path, &options)? {
        Found::Checkpoint(checkpoint) => checkpoint,
        Found::Adapter(adapter) => {
            return Ok((Answer::new(adapter_text(path, &adapter), adapter_json(path, &adapter)), None));
        }
    };
    if checkpoint.metadata().get("format").is_some_and(|format| format == part_file::FORMAT) {
        return Ok((of_part(path, budget)?, None));
    }
    if checkpoint.metadata().get("format").is_some_and(|format| format == gram_file::FORMAT) {
        let grams = gram_file::read_within(path, budget)?;
        let answer = Answer::new(gram_text(path, &grams), gram_json(&grams)?);
        return Ok((answer, Some(Spectral::Grams(Box::new(grams)))));
    }
    let unfit = unfit(&checkpoint)?;
    let mut text = checkpoint_text(&checkpoint);
    checkpoint.notes().iter().for_each(|note| text.push_str(&format!("note: {}\n", escaped(note))));
    if let Some(unfit) = &unfit {
        text.push_str(&format!("no base and no whole task: {}\n  {}\n", escaped(&unfit.to_string()), unfit.hint));
    }
    let mut json = checkpoint_json(&checkpoint);
    Answer::add(&mut json, "notes", checkpoint.notes());
    Answer::add(&mut json, "unfit", unfit.map(|unfit| unfit.to_string()));
    Ok((Answer::new(text, json), None))
}

/// Names of tasks that a line of the history lists.
const NAMES_SHOWN: usize = 4;

/// How far inner products that are estimated may be off.
pub(crate) fn estimates_text(estimates: &Estimates) -> String {
    let bound = match estimates.cosine_bound {
        Some(bound) => format!(", and no more than {bound:.2} whatever happens"),
        None => String::new(),
    };
    if !estimates.unbiased {
        return format!(
            "inner products of {} pairs of tasks are what the atoms hold of them, more or less than they are{bound}\n",
            estimates.n_pairs
        );
    }
    format!(
        "inner products of {} pairs of tasks are estimates: their cosines are off by {:.1e} (standard error, the largest){bound}\n",
        estimates.n_pairs, estimates.cosine_error
    )
}

/// What a part is a part of, and of which inputs.
fn of_part(path: &Path, budget: &Budget) -> Result<Answer> {
    let record = PartFile::open(path, budget)?.finish()?;
    let (part, kind, plan) = (record.part, record.kind.in_words(), &record.plan);
    let mut table = Table::new([("task", Align::Left), ("source", Align::Left)]);
    plan.tasks().for_each(|(name, source)| table.row([name.to_owned(), source.to_owned()]));
    let text = format!(
        "{}: part {part} of {kind} of {} tasks over {} tensors, made by {} on {}\nbase {}\n{table}`tvb join` makes one output of all {} parts\n",
        shown_path(path),
        plan.tasks().len(),
        plan.n_tensors(),
        escaped(&record.tool),
        escaped(&record.device),
        escaped(plan.base()),
        part.n_parts(),
    );
    let tasks: Vec<Value> = plan.tasks().map(|(name, source)| json!({ "name": name, "source": source })).collect();
    let json = json!({
        "part": part.to_string(),
        "of": record.kind,
        "tool": record.tool,
        "device": record.device,
        "base": plan.base(),
        "tasks": tasks,
        "n_tensors": plan.n_tensors(),
        "job": record.job,
    });
    Ok(Answer::new(text, json))
}

fn basis_text(basis: &Basis) -> String {
    let manifest = &basis.manifest;
    let mut table = Table::new([
        ("task", Align::Left),
        ("norm", Align::Right),
        ("gain", Align::Right),
        ("noise", Align::Right),
        ("relative error", Align::Right),
        ("source", Align::Left),
    ]);
    let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
    for task in &manifest.tasks {
        table.row([
            task.name.clone(),
            shown(task.norm),
            shown(task.gain),
            shown(task.noise),
            shown(task.relative_error),
            task.source.clone().unwrap_or_else(|| "unknown".into()),
        ]);
    }
    let stored = manifest.stored_bytes();
    let n_tensors: usize = manifest.stored.tensors.len();
    let mut text = format!(
        "{}: basis of {}, written by {}\nbase {}\n{} tensors in each, {} frozen, {} left out, {} carried over; {} in {}\n{table}",
        shown_path(&basis.folder),
        escaped(&basis.in_words()),
        escaped(&manifest.tool),
        escaped(&manifest.base.source),
        n_tensors,
        manifest.frozen.len(),
        manifest.skipped.len(),
        manifest.carried.len(),
        units::bytes(stored),
        match (&manifest.coded, manifest.atoms.first()) {
            (Some(_), _) => "codes".to_owned(),
            (None, Some(atom)) => manifest.shared().map_or(atom.dtype, |shared| shared.dtype).to_string(),
            (None, None) => "files: made from a seed".to_owned(),
        },
    );
    if manifest.tasks.iter().any(|task| task.error_bound.is_some()) {
        text.push_str("errors of tasks are what is expected since the basis has grown, but for the newest\n");
    }
    if let Some(relative) = manifest.relative_loss {
        text.push_str(&format!("relative loss {relative:.6}\n"));
    }
    if let Some(addition) = manifest.addition {
        for (rule, of) in [("projected", addition.projected), ("sum", addition.sum)] {
            text.push_str(&format!(
                "addition of all, rule {rule}: cosine {:.4}, norm ratio {:.4}\n",
                of.cosine, of.norm_ratio
            ));
        }
    }
    for (key, label) in [
        ("mean_error", "mean relative error"),
        ("worst_error", "worst relative error"),
        ("effective_rank", "effective rank"),
        ("epsilon", "largest |cosine| between tasks"),
        ("condition", "condition of the atoms"),
    ] {
        if let Some(value) = manifest.diagnostics.get(key).and_then(Value::as_f64) {
            text.push_str(&format!("{label}: {value:.4}\n"));
        }
    }
    for line in manifest.fit.lines() {
        text.push_str(&format!("{line}\n"));
    }
    if let Some(line) = manifest.left_out.line(&manifest.skipped) {
        text.push_str(&format!("{line}\n"));
    }
    for note in &manifest.notes {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    if let Some(estimates) = &manifest.estimates {
        text.push_str(&estimates_text(estimates));
        text.push_str(&estimated_pairs(basis));
    }
    if !manifest.history.is_empty() {
        text.push_str(&history_text(&manifest.history));
    }
    text
}

/// Pairs shown in text; `--json` has all.
const PAIRS_SHOWN: usize = 8;

/// Which inner products are estimates: the least certain ones.
fn estimated_pairs(basis: &Basis) -> String {
    let (Some(errors), Some(gram)) = (&basis.coefficients.gram_errors, basis.total_gram()) else {
        return String::new();
    };
    let n = basis.n_tasks();
    let scale = |i: usize, j: usize| (gram[(i, i)] * gram[(j, j)]).sqrt().max(f64::MIN_POSITIVE);
    let mut pairs: Vec<(usize, usize)> =
        (0..n).flat_map(|i| (0..i).map(move |j| (j, i))).filter(|&(i, j)| errors.is_estimate(i, j)).collect();
    let error = |&(i, j): &(usize, usize)| errors.standard[(i, j)] / scale(i, j);
    // Where no standard error is known, the bound says how little is known.
    let uncertain = |at: &(usize, usize)| (error(at), errors.bound[*at] / scale(at.0, at.1));
    pairs.sort_by(|a, b| {
        let (a, b) = (uncertain(a), uncertain(b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    let right = |name| (name, Align::Right);
    let mut table = Table::new([
        ("estimated", Align::Left),
        ("with", Align::Left),
        right("cosine"),
        right("standard error"),
        right("bound"),
    ]);
    let names = basis.task_names();
    let name = |task: usize| names.get(task).cloned().unwrap_or_default();
    for &(i, j) in pairs.iter().take(PAIRS_SHOWN) {
        let bound = errors.bound[(i, j)] / scale(i, j);
        table.row([
            name(i),
            name(j),
            format!("{:.4}", gram[(i, j)] / scale(i, j)),
            if errors.standard[(i, j)] > 0.0 { format!("{:.1e}", error(&(i, j))) } else { "unknown".to_owned() },
            if bound.is_finite() { format!("{bound:.2}") } else { "unknown".to_owned() },
        ]);
    }
    let n_more = pairs.len().saturating_sub(PAIRS_SHOWN);
    let more = if n_more > 0 {
        format!("… and {n_more} pairs more, more certain (--json has all)\n")
    } else {
        String::new()
    };
    format!("{table}{more}")
}

/// The manifest, and the coefficients where they are small.
pub(crate) fn basis_json(basis: &Basis) -> Value {
    let mut json = serde_json::to_value(&basis.manifest).unwrap_or_else(|_| json!({}));
    let rows = |matrix: &Matrix| -> Vec<Vec<f64>> { matrix.rows().collect() };
    let coefficients = &basis.coefficients;
    let solution = json!([{
        "name": basis.manifest.stored.name,
        "encode": rows(&coefficients.encode),
        "decode": rows(&coefficients.decode),
        "eigenvalues": coefficients.eigenvalues,
    }]);
    Answer::add(&mut json, "solution", solution);
    Answer::add(&mut json, "left_out", left_out_json(&basis.manifest.left_out));
    Answer::add(&mut json, "gram", basis.total_gram().map(|gram| json!(rows(&gram))));
    if let Some(errors) = &coefficients.gram_errors {
        // JSON has no infinity: a bound that is not known is null.
        Answer::add(&mut json, "gram_error", json!(rows(&errors.standard)));
        Answer::add(&mut json, "gram_bound", json!(rows(&errors.bound)));
    }
    json
}

/// What happened to a basis, a line each.
fn history_text(history: &[Event]) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new([
        ("history", Align::Left),
        ("tasks", Align::Left),
        right("T"),
        right("atoms"),
        right("size"),
        right("cosine of the sum"),
        right("mean error"),
        right("estimated pairs"),
    ]);
    for event in history {
        let listed: Vec<&str> = event.tasks.iter().take(NAMES_SHOWN).map(String::as_str).collect();
        let more = if event.tasks.len() > listed.len() { ", …" } else { "" };
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        table.row([
            event.event.word().to_owned(),
            format!("{}{more}", listed.join(", ")),
            event.n_tasks.to_string(),
            event.n_atoms.to_string(),
            units::bytes(event.bytes),
            shown(event.addition.map(|addition| addition.projected.cosine)),
            shown(event.mean_error),
            event.n_estimated.to_string(),
        ]);
    }
    table.to_string()
}

fn gram_text(path: &Path, grams: &Grams) -> String {
    let total = grams.total();
    let mut table = Table::new([("task", Align::Left), ("norm", Align::Right), ("source", Align::Left)]);
    for (task, origin) in grams.tasks.iter().enumerate() {
        table.row([origin.name.clone(), format!("{:.4}", total[(task, task)].max(0.0).sqrt()), origin.source.clone()]);
    }
    format!(
        "{}: Gram matrices of {} tasks, {} tensors ({} frozen), per {}\nbase {}\n{table}",
        shown_path(path),
        grams.tasks.len(),
        grams.tensors.len(),
        grams.tensors.iter().filter(|tensor| tensor.frozen).count(),
        match grams.per {
            Per::Tensor => "tensor",
            Per::Whole => "model",
        },
        escaped(&grams.base.source),
    )
}

fn gram_json(grams: &Grams) -> Result<Value> {
    let gram = tvb::solve::Gram::new(grams.total())?.over(grams.n_moved_rows());
    let rows = |matrix: &Matrix| -> Vec<Vec<f64>> { matrix.rows().collect() };
    Ok(json!({
        "format": gram_file::FORMAT,
        "base": grams.base,
        "tasks": grams.tasks,
        "tensors": grams.tensors,
        "groups": [{ "name": "model", "tensors": (0..grams.tensors.len()).collect::<Vec<_>>() }],
        "per": grams.per,
        "skipped": grams.skipped,
        "carried": grams.carried,
        "left_out": left_out_json(&grams.left_out),
        "fit": grams.fit,
        "gram": rows(gram.matrix()),
        "norms": gram.norms(),
        "cosines": rows(&gram.cosines()),
        "eigenvalues": gram.spectrum().values,
        "effective_rank": crate::output::finite(gram.spectrum().effective_rank()),
        "epsilon": gram.epsilon(),
    }))
}

fn adapter_text(path: &Path, adapter: &Adapter) -> String {
    let mut table = Table::new([("module", Align::Left), ("rank", Align::Right), ("scale", Align::Right)]);
    let modules = adapter.modules();
    for module in &modules {
        table.row([module.name.clone(), module.rank.to_string(), format!("{:.4}", module.scale)]);
    }
    let writer = adapter.writer().name();
    let kind = if modules.iter().any(|module| module.is_dora) { "DoRA" } else { "LoRA" };
    let n_replaced = adapter.replacements().count();
    let mut text = format!(
        "{}: an adapter ({kind}, as {writer} writes it) of {} modules, {n_replaced} tensors replaced\n",
        shown_path(path),
        modules.len(),
    );
    if let Some(base) = adapter.base_model() {
        text.push_str(&format!("trained on {}\n", escaped(base)));
    }
    text.push_str(&table.to_string());
    for name in adapter.replacements() {
        text.push_str(&format!("replaced: {}\n", escaped(name)));
    }
    for note in adapter.notes() {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    text
}

fn adapter_json(path: &Path, adapter: &Adapter) -> Value {
    let modules: Vec<Value> = adapter
        .modules()
        .iter()
        .map(|m| json!({ "name": m.name, "rank": m.rank, "scale": m.scale, "dora": m.is_dora }))
        .collect();
    json!({
        "path": path_json(path),
        "base_model": adapter.base_model(),
        "modules": modules,
        "replaced": adapter.replacements().collect::<Vec<_>>(),
        "notes": adapter.notes(),
    })
}

fn checkpoint_text(checkpoint: &Checkpoint) -> String {
    let mut table = Table::new([("tensor", Align::Left), ("type", Align::Left), ("shape", Align::Left)]);
    for tensor in checkpoint.tensors() {
        table.row([tensor.name.clone(), tensor.dtype.to_string(), format!("{:?}", tensor.shape)]);
    }
    let bytes: u64 = checkpoint.tensors().iter().map(|tensor| tensor.n_bytes()).sum();
    format!(
        "{}: {} tensors, {} in {} files\n{table}",
        shown_path(checkpoint.path()),
        checkpoint.tensors().len(),
        units::bytes(bytes),
        checkpoint.files().len()
    )
}

fn checkpoint_json(checkpoint: &Checkpoint) -> Value {
    let tensors: Vec<Value> = checkpoint
        .tensors()
        .iter()
        .map(|tensor| json!({ "name": tensor.name, "dtype": tensor.dtype.to_string(), "shape": tensor.shape }))
        .collect();
    json!({ "path": path_json(checkpoint.path()), "tensors": tensors, "metadata": checkpoint.metadata() })
}
