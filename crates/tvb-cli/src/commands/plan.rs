//! `tvb plan`: what each M and method would cost and lose, from a Gram file alone.

use crate::args::Context;
use crate::output::{Align, Answer, Table};
use crate::solving::TuningArgs;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::PathBuf;
use tvb::basis::gram_file;
use tvb::checkpoint::{Dtype, Existing, Inputs, StagedOutput};
use tvb::jobs::report::{Pareto, pareto_svg};
use tvb::shown::{csv_cell, escaped};
use tvb::solve::{Gram, Method, PlanRow, Rounding, SolveOptions, plan_table};
use tvb::{Result, units};

/// Show what each number of atoms and each method would cost and lose; no checkpoint is read
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A Gram file from `tvb gram`
    #[arg(long, value_name = "FILE")]
    pub gram: PathBuf,
    /// Numbers of atoms to show; a spread from 1 to T where none is given
    #[arg(short = 'm', long = "atoms", value_name = "N", value_delimiter = ',')]
    pub atoms: Vec<usize>,
    /// Methods to show: names, or `all`
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',', default_value = "anchored,exact,sample")]
    pub methods: Vec<String>,
    /// Only these tasks
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// How the table is printed
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// Write a plot of error against size here (SVG)
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

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    // Before the work, so that what is refused is refused at once.
    let inputs = Inputs::none().and(&args.gram);
    let plot = args.plot.as_deref().map(|path| StagedOutput::file(path, existing, &inputs)).transpose()?;
    let (path, budget) = (args.gram.clone(), context.budget.clone());
    let grams = context.unless_stopped(move |_| gram_file::read_within(&path, &budget))?;
    let names: Vec<String> = grams.tasks.iter().map(|task| task.name.clone()).collect();
    let mut gram = Gram::new(grams.total())?.over(grams.n_moved_rows());
    let mut tasks = names.clone();
    if !args.tasks.is_empty() {
        let chosen: Vec<usize> =
            args.tasks.iter().map(|name| tvb::arithmetic::find_task(&names, name)).collect::<Result<_>>()?;
        gram = gram.subset(&chosen)?;
        tasks = chosen.iter().filter_map(|&task| names.get(task).cloned()).collect();
    }
    let methods = methods(args, &tasks)?;
    let ms = if args.atoms.is_empty() { spread(tasks.len()) } else { args.atoms.clone() };
    ms.iter().try_for_each(|&m| tvb::solve::check_atoms(m, tasks.len()))?;
    let mut options = SolveOptions::atoms(1);
    options.balance = args.tuning.balance;
    options.coordinates = args.tuning.coordinates();
    let n_rows = grams.n_moved_rows();
    let rows = context.unless_stopped(move |go_on| plan_table(&gram, &methods, &ms, &options, Some(n_rows), go_on))?;
    let atom_bytes = grams.moved_bytes(Dtype::F32);
    if let Some(plot) = plot {
        let points: Vec<Pareto> = rows
            .iter()
            .map(|row| Pareto {
                method: row.method,
                n_stored: row.n_stored,
                mean_error: row.mean_error,
                worst_error: row.worst_error,
            })
            .collect();
        plot.commit_bytes(pareto_svg(&points, tasks.len())?.as_bytes())?;
    }
    let text = match args.format {
        Format::Table => table(&rows, &tasks, atom_bytes),
        Format::Csv => csv(&rows, &tasks, atom_bytes),
    };
    let json_rows: Vec<Value> = rows.iter().map(|row| row_json(row, &tasks, atom_bytes)).collect();
    Ok(Answer::new(text, json!({ "tasks": tasks, "atom_bytes_f32": atom_bytes, "rows": json_rows })))
}

fn methods(args: &Args, tasks: &[String]) -> Result<Vec<Method>> {
    if args.methods.iter().any(|name| name == "all") {
        return Method::all().iter().map(|method| args.tuning.method(method.name(), tasks)).collect();
    }
    args.methods.iter().map(|name| args.tuning.method(name.trim(), tasks)).collect()
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

const HEADINGS: [&str; 13] = [
    "method",
    "M",
    "stored",
    "bytes",
    "loss/bound",
    "mean",
    "worst",
    "worst task",
    "add cos",
    "add ratio",
    "sum cos",
    "cond",
    "bf16 worst",
];

fn cells(row: &PlanRow, tasks: &[String], atom_bytes: u64, bytes: impl Fn(u64) -> String) -> [String; 13] {
    let bf16 = row.rounding.iter().find(|rounding| rounding.dtype == tvb_kernels::Dtype::Bf16);
    [
        row.method.to_owned(),
        row.n_atoms.to_string(),
        row.n_stored.to_string(),
        bytes(row.n_stored as u64 * atom_bytes),
        number(row.loss_over_bound),
        number(row.mean_error),
        number(row.worst_error),
        tasks.get(row.worst_task).cloned().unwrap_or_default(),
        number(row.projected.cosine),
        number(row.projected.norm_ratio),
        number(row.sum.cosine),
        if row.condition >= 1e4 { format!("{:.1e}", row.condition) } else { number(row.condition) },
        bf16.map_or_else(|| "-".to_owned(), |rounding| format!("{:.1e}", rounding.worst)),
    ]
}

fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "-".to_owned() }
}

fn table(rows: &[PlanRow], tasks: &[String], atom_bytes: u64) -> String {
    let align = |heading: &'static str| {
        (heading, if matches!(heading, "method" | "worst task") { Align::Left } else { Align::Right })
    };
    let mut table = Table::new(HEADINGS.map(align));
    for row in rows {
        table.row(cells(row, tasks, atom_bytes, units::bytes));
    }
    let mut text = table.to_string();
    text.push_str(
        "mean, worst: relative squared errors of the recovered tasks; add: all tasks, rule projected; sum: the plain sum of atoms;\n\
         bytes in f32; bf16 worst: what 16-bit storage would add to the worst error\n",
    );
    for row in rows {
        for note in &row.notes {
            let line = format!("note: {}: {}\n", row.method, escaped(note));
            if !text.contains(&line) {
                text.push_str(&line);
            }
        }
    }
    text
}

fn csv(rows: &[PlanRow], tasks: &[String], atom_bytes: u64) -> String {
    let mut text = HEADINGS.join(",").replace(' ', "_") + "\n";
    for row in rows {
        let cells = cells(row, tasks, atom_bytes, |bytes| bytes.to_string());
        text.push_str(&cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    text
}

fn row_json(row: &PlanRow, tasks: &[String], atom_bytes: u64) -> Value {
    let finite = crate::output::finite;
    let rounding: serde_json::Map<String, Value> = row
        .rounding
        .iter()
        .map(|Rounding { dtype, worst, .. }| (tvb::Dtype::from(*dtype).to_string(), finite(*worst)))
        .collect();
    json!({
        "method": row.method,
        "n_atoms": row.n_atoms,
        "n_stored": row.n_stored,
        "bytes_f32": row.n_stored as u64 * atom_bytes,
        "loss": row.loss,
        "spectral_bound": row.spectral_bound,
        "loss_over_bound": finite(row.loss_over_bound),
        "relative_loss": row.relative_loss,
        "relative_bound": row.relative_bound,
        "mean_error": row.mean_error,
        "worst_error": row.worst_error,
        "worst_task": tasks.get(row.worst_task),
        "addition": {
            "projected": { "cosine": row.projected.cosine, "norm_ratio": finite(row.projected.norm_ratio) },
            "sum": { "cosine": row.sum.cosine, "norm_ratio": finite(row.sum.norm_ratio) },
        },
        "condition": finite(row.condition),
        "rounding_worst": rounding,
        "expected": row.expected,
        "notes": row.notes,
    })
}
