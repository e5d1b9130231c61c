//! The rates that `auto` believes, as tables, and what it would take by them.

use crate::output::{Align, Table};
use serde_json::{Value, json};
use std::fmt::Write;
use tvb::cost::{Believed, Choice, Rates, Stage, Step, Width, Work, choose};

/// Numbers of tasks that are shown.
const SHOWN: [usize; 3] = [8, 64, 256];

/// One device's rates as a table.
pub(crate) fn table(rates: &Rates) -> Table {
    let right = |name| (name, Align::Right);
    let mut table = Table::new([
        ("GB/s", Align::Left),
        ("dtype", Align::Left),
        right("T = 8"),
        right("T = 64"),
        right("T = 256"),
        right("kept, T = 64"),
        right("written, T = 64"),
        right("begins in"),
    ]);
    for (stage, width) in rows() {
        let at = |n_columns| rates.at(stage, width, n_columns);
        let [eight, middle, most] = SHOWN.map(|n| at(n).map_or("-".to_owned(), |rate| figure(rate.from_files)));
        let writes = !matches!(stage, Stage::Gram | Stage::Code);
        let of_middle = at(64);
        table.row([
            stage.name().into(),
            width.name().into(),
            eight,
            middle,
            most,
            of_middle.and_then(|rate| rate.kept).map_or("-".into(), figure),
            of_middle.filter(|_| writes).map_or("-".into(), |rate| figure(rate.out)),
            of_middle.map_or("-".into(), |rate| format!("{:.1} ms", 1e3 * rate.begin_s)),
        ]);
    }
    table
}

fn rows() -> impl Iterator<Item = (Stage, Width)> {
    Stage::ALL.into_iter().flat_map(|stage| [(stage, Width::Four), (stage, Width::Two)])
}

fn figure(rate: f64) -> String {
    match rate {
        rate if rate < 1.0 => format!("{rate:.3}"),
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate => format!("{rate:.1}"),
    }
}

/// What the columns mean, under the tables.
pub(crate) const LEGEND: &str =
    "GB/s are of whole passes, from files in the page cache; `kept`: from the device's own memory. Codes count as f32.";

/// For programs.
pub(crate) fn json(believed: &Believed) -> Value {
    let rates: Vec<Value> = rows()
        .flat_map(|(stage, width)| SHOWN.map(|n| (stage, width, n)))
        .filter_map(|(stage, width, n_columns)| {
            let rate = believed.rates.at(stage, width, n_columns)?;
            Some(json!({
                "stage": stage.name(), "dtype": width.name(), "n_columns": n_columns, "begin_s": rate.begin_s,
                "gb_per_s": rate.from_files, "kept_gb_per_s": rate.kept, "written_gb_per_s": rate.out,
            }))
        })
        .collect();
    json!({ "from": believed.origin.to_string(), "open_s": believed.rates.open_s, "rates": rates })
}

/// A job to show a choice by: its words, and what it is.
struct Example(&'static str, Work);

/// Jobs of usual sizes: little, much, and much arithmetic.
fn examples() -> [Example; 4] {
    const GB: u64 = 1_000_000_000;
    let step = |stage, n_columns, width, n_bytes: u64, out_bytes, again| Step {
        stage,
        n_columns,
        in_bytes: vec![(width, n_bytes)],
        out_bytes,
        again,
        n_times: 1,
    };
    let gram = |n, width, n_bytes| Work::default().step(step(Stage::Gram, n, width, n_bytes, 0, false));
    [
        Example("gram, 8 f32 checkpoints of 100 M parameters", gram(8, Width::Four, 36 * GB / 10)),
        Example(
            "compress -m 4, the same",
            gram(8, Width::Four, 36 * GB / 10).step(step(
                Stage::Project,
                8,
                Width::Four,
                36 * GB / 10,
                16 * GB / 10,
                true,
            )),
        ),
        Example("gram, 20 bf16 checkpoints of 7 G parameters", gram(20, Width::Two, 294 * GB)),
        Example("gram, 256 bf16 checkpoints of 1 G parameters", gram(256, Width::Two, 514 * GB)),
    ]
}

/// What `auto` would take for some jobs, a line each.
pub(crate) fn choices(cpu: &Believed, adapters: &[(usize, Believed)], device_bytes: u64) -> (String, Value) {
    let (mut text, mut all) = (String::new(), Vec::new());
    for Example(what, work) in examples() {
        let choice: Choice = choose(&work, cpu, adapters, device_bytes);
        let _ = writeln!(text, "{what}\n  {choice}");
        all.push(json!({ "job": what, "choice": choice.to_json() }));
    }
    (text, all.into())
}
