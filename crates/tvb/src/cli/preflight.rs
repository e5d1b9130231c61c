//! What a run will read, write and need, from headers alone: the answer of `check` and of every `--dry-run`.

use super::args::Context;
use super::output::{Align, Table};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tvb::checkpoint::{Checkpoint, Dtype, free_bytes};
use tvb::plan::Plan;
use tvb::{Result, units};

/// Bytes read to guess how fast the inputs can be read.
const SAMPLE_BYTES: u64 = 64 << 20;
/// Names listed in text before they become a count.
const NAMES_LISTED: usize = 5;

/// What will be written.
pub(super) struct Output<'a> {
    /// Where.
    pub path: &'a Path,
    /// Bytes, where they are known before the data is read.
    pub n_bytes: Option<u64>,
}

/// Base, tasks, tensors and needs, as text and as JSON. `n_passes` reads of the inputs are planned.
pub(super) fn describe(plan: &Plan, n_passes: u64, output: Option<&Output<'_>>, context: &Context) -> Result<(String, Value)> {
    let (inputs, inputs_json) = inputs_table(plan);
    let one_read_bytes = plan.n_bytes();
    let atom_bytes = plan.n_rows() * 4;
    let mut text = format!("{inputs}\n");
    text += &format!(
        "tensors  {} take part: {} parameters\n",
        units::count(plan.tensors.len() as u64),
        units::count(plan.n_rows())
    );
    if !plan.carried.is_empty() {
        text += &format!("         carried over from the base: {}\n", listed(&plan.carried));
    }
    if !plan.skipped.is_empty() {
        let names: Vec<String> = plan.skipped.iter().map(|skipped| skipped.name.clone()).collect();
        text += &format!("         left out: {}\n", listed(&names));
    }
    text += &format!("read     {} a pass, {n_passes} at most\n", units::bytes(one_read_bytes));
    text += &format!("memory   up to {} of buffers (--memory)\n", units::bytes(context.memory_bytes));
    text += &format!("disk     {} an atom in f32, half of that in bf16 or f16\n", units::bytes(atom_bytes));
    let mut json = json!({
        "base": inputs_json[0],
        "tasks": inputs_json[1..],
        "tensors": {
            "n_taking_part": plan.tensors.len(),
            "n_parameters": plan.n_rows(),
            "carried": plan.carried,
            "skipped": plan.skipped,
        },
        "bytes": { "one_read": one_read_bytes, "n_reads_at_most": n_passes, "atom_f32": atom_bytes },
        "memory_bytes": context.memory_bytes,
    });
    if let Some(output) = output {
        let free = free_bytes(output.path);
        let written = output.n_bytes.map_or("depends on the data".into(), units::bytes);
        let free_text = free.map_or("unknown".into(), units::bytes);
        text += &format!("output   {}: {written}; free there: {free_text}\n", output.path.display());
        json["output"] = json!({ "path": output.path, "bytes": output.n_bytes, "free_bytes": free });
        let guess = time_guess(plan, one_read_bytes * n_passes + output.n_bytes.unwrap_or(0))?;
        text += &format!("time     about {} at the speed these files are read now\n", units::duration(guess));
        json["seconds_guess"] = json!(guess.as_secs_f64());
    }
    Ok((text, json))
}

/// One line and one object for the base, then for each task.
fn inputs_table(plan: &Plan) -> (Table, Vec<Value>) {
    let mut table =
        Table::new([("input", Align::Left), ("tensors", Align::Right), ("types", Align::Left), ("path", Align::Left)]);
    let mut objects = Vec::with_capacity(plan.n_columns());
    for column in 0..plan.n_columns() {
        let name = if column == 0 { "base" } else { &plan.tasks[column - 1].name };
        let checkpoint: &Checkpoint = plan.column_checkpoint(column);
        let dtypes = plan.column_dtypes(column);
        let path = checkpoint.path().display().to_string();
        table.row([name.to_owned(), checkpoint.tensors().len().to_string(), shown_dtypes(&dtypes), path.clone()]);
        let dtypes: serde_json::Map<String, Value> =
            dtypes.iter().map(|(dtype, n_tensors)| (dtype.to_string(), json!(n_tensors))).collect();
        let n_files = checkpoint.files().len();
        objects.push(json!({
            "name": name, "path": path, "n_files": n_files, "n_tensors": checkpoint.tensors().len(), "dtypes": dtypes,
        }));
    }
    (table, objects)
}

/// `F32` or `BF16 140, F32 2`.
fn shown_dtypes(dtypes: &[(Dtype, usize)]) -> String {
    match dtypes {
        [(dtype, _)] => dtype.to_string(),
        _ => dtypes.iter().map(|(dtype, n)| format!("{dtype} {n}")).collect::<Vec<_>>().join(", "),
    }
}

/// The first few names and how many there are.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(NAMES_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => first,
        n_more => format!("{first} and {} more", units::count(n_more as u64)),
    }
}

/// How long moving that many bytes takes, from a sample of the base's first file.
fn time_guess(plan: &Plan, n_bytes: u64) -> Result<Duration> {
    let Some(file) = plan.base.files().first() else { return Ok(Duration::ZERO) };
    let sample_bytes = file.len.min(SAMPLE_BYTES);
    let mut buffer = vec![0; (sample_bytes as usize).clamp(1, 1 << 20)];
    let started = Instant::now();
    let mut at = 0;
    while at < sample_bytes {
        let n = buffer.len().min((sample_bytes - at) as usize);
        file.read_at(at, &mut buffer[..n])?;
        at += n as u64;
    }
    let seconds_per_byte = started.elapsed().as_secs_f64() / sample_bytes.max(1) as f64;
    Ok(Duration::try_from_secs_f64(seconds_per_byte * n_bytes as f64).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_become_a_count() {
        let names: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
        assert_eq!(listed(&names[..2]), "t0, t1");
        assert_eq!(listed(&names), "t0, t1, t2, t3, t4 and 2 more");
        assert_eq!(shown_dtypes(&[(Dtype::Bf16, 3)]), "BF16");
        assert_eq!(shown_dtypes(&[(Dtype::Bf16, 3), (Dtype::F32, 1)]), "BF16 3, F32 1");
    }
}
