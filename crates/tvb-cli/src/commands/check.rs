//! `tvb check`: do these checkpoints fit together, and what will compressing them need? Headers only.

use crate::args::Context;
use crate::inputs::{InputArgs, left_out_json};
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
use tvb::checkpoint::OfAdapter;
use tvb::columns::plan::Plan;
use tvb::pass::{Runtime, least_bytes};
use tvb::shown::{escaped, path_json, shown, shown_path};
use tvb::{Result, units};

/// Read headers only: keys, shapes, types, mismatches, and what compressing needs
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    Ok(run_on(&args.inputs.plan(context)?))
}

/// The answer for inputs that are matched already: what `--dry-run` shows too.
pub(crate) fn run_on(plan: &Plan) -> Answer {
    Answer::new(text(plan), json(plan))
}

/// What a plan holds, for people.
fn text(plan: &Plan) -> String {
    let mut table = Table::new([("column", Align::Left), ("types", Align::Left), ("source", Align::Left)]);
    for column in 0..plan.n_columns() {
        let task = column.checked_sub(1).and_then(|task| plan.tasks.get(task));
        let name = task.map_or_else(|| "base".to_owned(), |task| task.name.clone());
        let checkpoint = plan.column_checkpoint(column);
        let types = checkpoint.of_adapter().map_or_else(|| dtypes(plan, column), adapter);
        table.row([name, types, shown_path(checkpoint.path())]);
    }
    let mut text = format!(
        "{table}\n{} tensors, {} parameters, {} tasks\n",
        plan.tensors.len(),
        units::count(plan.n_rows()),
        plan.tasks.len()
    );
    for (what, n) in [("carried over from the base", plan.carried.len()), ("left out", plan.skipped.len())] {
        if n > 0 {
            text.push_str(&format!("{n} tensors {what}\n"));
        }
    }
    for skipped in plan.skipped.iter().take(20) {
        text.push_str(&format!("  {}: {}\n", shown(&skipped.name), escaped(&skipped.reason)));
    }
    text.push_str(&format!(
        "one read of all inputs: {}; each f32 atom: {}\n",
        units::bytes(plan.read_bytes()),
        units::bytes(plan.n_rows() * 4)
    ));
    text.push_str(&format!(
        "memory on the CPU, with one thread and as many atoms as tasks: at least {} (--memory)\n",
        units::bytes(memory_bytes(plan))
    ));
    text
}

/// The least memory cap that does for one thread of the CPU, whatever the number of atoms.
fn memory_bytes(plan: &Plan) -> u64 {
    least_bytes(plan, plan.tasks.len(), &Runtime::on_cpu(1, u64::MAX))
}

/// `LoRA (PEFT), 24 modules of rank 8`.
fn adapter(of: &OfAdapter) -> String {
    let kind = if of.n_dora == of.n_modules { "DoRA" } else { "LoRA" };
    let plural = if of.n_modules == 1 { "" } else { "s" };
    let ranks = match of.ranks.as_slice() {
        [] => String::new(),
        [rank] => format!(" of rank {rank}"),
        [least, .., most] => format!(" of ranks {least} to {most}"),
    };
    let mut text = format!("{kind} ({}), {} module{plural}{ranks}", of.writer, of.n_modules);
    if of.n_dora > 0 && of.n_dora < of.n_modules {
        text.push_str(&format!(", {} of them DoRA", of.n_dora));
    }
    if of.n_replaced > 0 {
        text.push_str(&format!(", {} whole tensor{}", of.n_replaced, if of.n_replaced == 1 { "" } else { "s" }));
    }
    text
}

fn dtypes(plan: &Plan, column: usize) -> String {
    let counts = plan.column_dtypes(column);
    match counts.as_slice() {
        [(dtype, _)] => dtype.to_string(),
        _ => counts.iter().map(|(dtype, n)| format!("{dtype} ×{n}")).collect::<Vec<_>>().join(", "),
    }
}

/// What a plan holds, for programs.
fn json(plan: &Plan) -> Value {
    let column = |column: usize| {
        let dtypes: serde_json::Map<String, Value> =
            plan.column_dtypes(column).into_iter().map(|(dtype, n)| (dtype.to_string(), n.into())).collect();
        let checkpoint = plan.column_checkpoint(column);
        let mut object = json!({ "source": path_json(checkpoint.path()), "dtypes": dtypes });
        if let Some(key) = checkpoint.key() {
            Answer::add(&mut object, "key", key);
        }
        if let Some(of) = checkpoint.of_adapter() {
            let adapter = json!({
                "writer": of.writer, "modules": of.n_modules, "ranks": of.ranks, "dora": of.n_dora, "replaced": of.n_replaced,
            });
            Answer::add(&mut object, "adapter", adapter);
        }
        object
    };
    let tasks: Vec<Value> = (plan.tasks.iter().enumerate())
        .map(|(index, task)| {
            let mut object = column(index + 1);
            Answer::add(&mut object, "name", task.name.as_str());
            object
        })
        .collect();
    json!({
        "base": column(0),
        "tasks": tasks,
        "n_tensors": plan.tensors.len(),
        "n_parameters": plan.n_rows(),
        "read_bytes": plan.read_bytes(),
        "atom_bytes": plan.n_rows() * 4,
        "memory_bytes": memory_bytes(plan),
        "carried": plan.carried,
        "skipped": plan.skipped,
        "left_out": left_out_json(&plan.left_out),
        "notes": plan.notes,
        "warnings": plan.warnings,
    })
}
