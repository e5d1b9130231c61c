//! `tvb inspect`: what a basis, a Gram file or a checkpoint holds.

use super::compress::summary;
use super::output::{Align, Answer, Table};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tvb::basis::{Basis, gram_file};
use tvb::checkpoint::Checkpoint;
use tvb::gram::Grams;
use tvb::solve::Gram;
use tvb::{Error, Result, units};

/// Tensors listed in text before they become a count; `--json` lists all.
const TENSORS_LISTED: usize = 40;

/// Show what a basis, a Gram file or a checkpoint holds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A basis folder, a Gram file, or a checkpoint's file or folder
    path: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Answer> {
    let path = &args.path;
    if Basis::is_at(path) {
        return basis(&Basis::open(path)?);
    }
    let checkpoint = Checkpoint::open(path)?;
    if checkpoint.metadata().get("format").is_some_and(|format| format == gram_file::FORMAT) {
        return gram(path, &gram_file::read(path)?);
    }
    Ok(show_checkpoint(&checkpoint))
}

fn basis(basis: &Basis) -> Result<Answer> {
    let mut json = serde_json::to_value(&basis.manifest)
        .map_err(|error| Error::failed(format!("the manifest cannot be shown as JSON: {error}")))?;
    let groups = basis.coefficients.groups.iter().map(|group| {
        json!({
            "name": group.name,
            "encode": rows(group.encode.as_ref()),
            "decode": rows(group.decode.as_ref()),
            "eigenvalues": group.eigenvalues,
        })
    });
    json["coefficients"]["groups"] = groups.collect();
    let notes: String = basis.manifest.notes.iter().map(|note| format!("note     {note}\n")).collect();
    Ok(Answer::new(format!("{}{notes}", summary(basis)), json))
}

fn gram(path: &Path, grams: &Grams) -> Result<Answer> {
    let gram = Gram::new(grams.group_gram(0))?;
    let (norms, spectrum) = (gram.norms(), gram.spectrum());
    let mut table = Table::new([("task", Align::Left), ("norm", Align::Right), ("source", Align::Left)]);
    for (task, norm) in grams.tasks.iter().zip(&norms) {
        table.row([task.name.clone(), format!("{norm:.6}"), task.source.clone()]);
    }
    let frozen: Vec<&str> =
        grams.tensors.iter().filter(|tensor| tensor.frozen).map(|tensor| tensor.name.as_str()).collect();
    let text = format!(
        "Gram file {}\n\n{table}\ntensors  {}, {} of them frozen; {} parameters moved\nlargest cosine {:.4}, effective rank {:.2}\n",
        path.display(),
        grams.tensors.len(),
        frozen.len(),
        units::count(grams.n_moved_rows()),
        gram.epsilon(),
        spectrum.effective_rank(),
    );
    let json = json!({
        "format": gram_file::FORMAT,
        "base": grams.base,
        "tasks": grams.tasks,
        "tensors": grams.tensors,
        "carried": grams.carried,
        "skipped": grams.skipped,
        "norms": norms,
        "gram": rows(gram.matrix()),
        "cosines": rows(gram.cosines().as_ref()),
        "eigenvalues": spectrum.values,
        "epsilon": gram.epsilon(),
        "effective_rank": spectrum.effective_rank(),
    });
    Ok(Answer::new(text, json))
}

fn show_checkpoint(checkpoint: &Checkpoint) -> Answer {
    let tensors = checkpoint.tensors();
    let mut table = Table::new([("tensor", Align::Left), ("type", Align::Left), ("shape", Align::Left)]);
    for tensor in tensors.iter().take(TENSORS_LISTED) {
        table.row([tensor.name.clone(), tensor.dtype.to_string(), format!("{:?}", tensor.shape)]);
    }
    let n_bytes: u64 = tensors.iter().map(|tensor| tensor.n_bytes()).sum();
    let n_elements: u64 = tensors.iter().map(|tensor| tensor.n_elements() as u64).sum();
    let mut text = table.to_string();
    if let Some(n_more) = tensors.len().checked_sub(TENSORS_LISTED).filter(|&n_more| n_more > 0) {
        text += &format!("and {n_more} more; --json lists all\n");
    }
    text += &format!(
        "\n{}: {} tensors, {} elements, {} in {} files\n",
        checkpoint.path().display(),
        units::count(tensors.len() as u64),
        units::count(n_elements),
        units::bytes(n_bytes),
        checkpoint.files().len()
    );
    let files: Vec<Value> =
        checkpoint.files().iter().map(|file| json!({ "path": file.path, "bytes": file.len })).collect();
    let tensors: Vec<Value> = tensors
        .iter()
        .map(|tensor| json!({ "name": tensor.name, "dtype": tensor.dtype.to_string(), "shape": tensor.shape }))
        .collect();
    let json = json!({
        "format": "checkpoint",
        "path": checkpoint.path(),
        "files": files,
        "metadata": checkpoint.metadata(),
        "n_elements": n_elements,
        "bytes": n_bytes,
        "tensors": tensors,
    });
    Answer::new(text, json)
}

/// A small matrix, row by row.
fn rows(matrix: faer::MatRef<'_, f64>) -> Vec<Vec<f64>> {
    (0..matrix.nrows()).map(|i| (0..matrix.ncols()).map(|j| matrix[(i, j)]).collect()).collect()
}
