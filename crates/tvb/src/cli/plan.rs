//! `tvb plan`: what each method and each M would cost and lose, from a Gram file alone.

use super::args::Context;
use super::compress::finite;
use super::output::{Align, Answer, Table};
use serde_json::{Value, json};
use std::path::PathBuf;
use tvb::arithmetic::find_task;
use tvb::basis::gram_file;
use tvb::progress::Progress;
use tvb::solve::{Gram, Method, PlanRow, SolveOptions, plan_table};
use tvb::{Result, units};

/// Show what each method and number of atoms would cost and lose; no checkpoint is read
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A Gram file, made by `tvb gram`
    #[arg(long, value_name = "FILE")]
    gram: PathBuf,
    /// Numbers of atoms to show [default: a quarter, a half and all of the tasks]
    #[arg(long, short = 'm', value_name = "M", value_delimiter = ',')]
    atoms: Vec<usize>,
    /// Methods to show [default: anchored, exact, sample, identity]
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    method: Vec<String>,
    /// Only these tasks of the Gram file
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Solve as if every task vector had the same length
    #[arg(long)]
    balance: bool,
}

const DEFAULT_METHODS: [&str; 4] = ["anchored", "exact", "sample", "identity"];

pub(super) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let grams = gram_file::read(&args.gram)?;
    let names: Vec<String> = grams.tasks.iter().map(|task| task.name.clone()).collect();
    let mut gram = Gram::new(grams.group_gram(0))?;
    let mut chosen: Vec<usize> = (0..names.len()).collect();
    if !args.tasks.is_empty() {
        chosen = args.tasks.iter().map(|name| find_task(&names, name)).collect::<Result<_>>()?;
        gram = gram.subset(&chosen)?;
    }
    let methods = match args.method.is_empty() {
        true => DEFAULT_METHODS.iter().map(|name| Method::parse(name)).collect::<Result<Vec<_>>>()?,
        false => args.method.iter().map(|name| Method::parse(name)).collect::<Result<Vec<_>>>()?,
    };
    let n_atoms = if args.atoms.is_empty() { default_atoms(gram.n_tasks()) } else { args.atoms.clone() };
    let options = SolveOptions { balance: args.balance, ..SolveOptions::atoms(1) };
    let n_rows = grams.n_moved_rows();
    let go_on = |_: f64| !context.progress.cancelled();
    let rows = plan_table(&gram, &methods, &n_atoms, &options, Some(n_rows), &go_on)?;

    let mut table = Table::new([
        ("method", Align::Left),
        ("atoms", Align::Right),
        ("stored", Align::Right),
        ("size f32", Align::Right),
        ("loss/bound", Align::Right),
        ("mean error", Align::Right),
        ("worst error", Align::Right),
        ("worst task", Align::Left),
        ("cosine", Align::Right),
        ("norm ratio", Align::Right),
        ("sum cosine", Align::Right),
        ("condition", Align::Right),
    ]);
    for row in &rows {
        table.row([
            row.method.to_owned(),
            row.n_atoms.to_string(),
            row.n_stored.to_string(),
            units::bytes(row.n_stored as u64 * n_rows * 4),
            format!("{:.4}", row.loss_over_bound),
            format!("{:.6}", row.mean_error),
            format!("{:.6}", row.worst_error),
            names[chosen[row.worst_task]].clone(),
            format!("{:.6}", row.projected.cosine),
            format!("{:.6}", row.projected.norm_ratio),
            format!("{:.6}", row.sum.cosine),
            format!("{:.1e}", row.condition),
        ]);
    }
    let tasks: Vec<&str> = chosen.iter().map(|&task| names[task].as_str()).collect();
    let rows: Vec<Value> = rows.iter().map(|row| row_json(row, tasks[row.worst_task], n_rows)).collect();
    let json = json!({ "gram": args.gram, "tasks": tasks, "n_parameters": n_rows, "rows": rows });
    Ok(Answer::new(table.to_string(), json))
}

/// A quarter, a half and all, rounded up.
fn default_atoms(n_tasks: usize) -> Vec<usize> {
    let mut n_atoms = vec![n_tasks.div_ceil(4), n_tasks.div_ceil(2), n_tasks];
    n_atoms.dedup();
    n_atoms
}

fn row_json(row: &PlanRow, worst_task: &str, n_rows: u64) -> Value {
    let fidelity = |of: &tvb::solve::Fidelity| json!({ "cosine": of.cosine, "norm_ratio": finite(of.norm_ratio) });
    let rounding: serde_json::Map<String, Value> = row
        .rounding
        .iter()
        .map(|rounding| (format!("{:?}", rounding.dtype).to_lowercase(), finite(rounding.worst)))
        .collect();
    json!({
        "method": row.method,
        "n_atoms": row.n_atoms,
        "n_stored": row.n_stored,
        "bytes_f32": row.n_stored as u64 * n_rows * 4,
        "loss": row.loss,
        "spectral_bound": row.spectral_bound,
        "loss_over_bound": finite(row.loss_over_bound),
        "relative_loss": row.relative_loss,
        "mean_error": row.mean_error,
        "worst_error": row.worst_error,
        "worst_task": worst_task,
        "addition": { "projected": fidelity(&row.projected), "sum": fidelity(&row.sum) },
        "condition": finite(row.condition),
        "worst_rounding": rounding,
        "expected": row.expected,
        "notes": row.notes,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn default_atoms() {
        for (n_tasks, expected) in [(1, vec![1]), (2, vec![1, 2]), (8, vec![2, 4, 8]), (14, vec![4, 7, 14])] {
            assert_eq!(super::default_atoms(n_tasks), expected);
        }
    }
}
