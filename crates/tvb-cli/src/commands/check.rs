//! `tvb check`: do these checkpoints fit together, and what will compressing them need? Headers only.

use crate::args::Context;
use crate::inputs::{InputArgs, left_out_json};
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
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
        table.row([name, dtypes(plan, column), shown_path(plan.column_checkpoint(column).path())]);
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
        units::bytes(plan.n_bytes()),
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
        json!({ "source": path_json(plan.column_checkpoint(column).path()), "dtypes": dtypes })
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
        "read_bytes": plan.n_bytes(),
        "atom_bytes": plan.n_rows() * 4,
        "memory_bytes": memory_bytes(plan),
        "carried": plan.carried,
        "skipped": plan.skipped,
        "left_out": left_out_json(&plan.left_out),
        "notes": plan.notes,
        "warnings": plan.warnings,
    })
}
