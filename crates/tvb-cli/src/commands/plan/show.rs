//! The rows of `tvb plan` as a table, as comma-separated values and as JSON. The table has what a choice is made by, in the
//! width of a terminal; the others have everything.

use crate::output::{Align, Table, finite};
use serde_json::{Value, json};
use tvb::shown::{csv_cell, escaped};
use tvb::solve::{PlanRow, Rounding, Storage};
use tvb::units;

/// Characters of a task's name in the table.
const NAME_CHARS: usize = 16;

/// What is shown.
pub(super) struct Shown<'a> {
    pub(super) rows: &'a [PlanRow],
    pub(super) tasks: &'a [String],
    /// As typed.
    pub(super) expressions: &'a [String],
    /// Of the stored tensors.
    pub(super) shapes: &'a [Vec<usize>],
    /// Of the float32 task vectors.
    pub(super) full_bytes: u64,
}

/// A part of a whole, with two digits.
pub(super) fn percent(bytes: u64, full_bytes: u64) -> String {
    let percent = 100.0 * bytes as f64 / full_bytes.max(1) as f64;
    if percent < 9.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

/// A number near one or zero, in at most seven characters.
fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        x if x < 1e-9 => "0".to_owned(),
        x if x < 1e-3 => format!("{value:.1e}"),
        x if x < 1e4 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A gain or a cosine.
fn near_one(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "-".to_owned() }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        Some(_) => name.chars().take(NAME_CHARS - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}

impl Shown<'_> {
    fn bytes(&self, row: &PlanRow) -> u64 {
        row.storage.bytes(row.n_stored, self.shapes)
    }

    fn worst_task(&self, row: &PlanRow) -> &str {
        self.tasks.get(row.worst_task).map_or("", String::as_str)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let right = |heading| (heading, Align::Right);
        let mut table = Table::new([
            ("method", Align::Left),
            right("M"),
            right("bits"),
            right("bytes"),
            right("of f32"),
            right("gain"),
            right("worst"),
            right("noise"),
            right("worst"),
            right("error"),
            ("worst task", Align::Left),
            right("add cos"),
        ]);
        for row in self.rows {
            let bytes = self.bytes(row);
            table.row([
                row.method.to_owned(),
                row.n_atoms.to_string(),
                row.storage.to_string(),
                units::bytes(bytes),
                percent(bytes, self.full_bytes),
                near_one(row.mean_gain()),
                near_one(row.worst_gain()),
                number(row.mean_noise()),
                number(row.worst_noise()),
                number(row.worst_error),
                shortened(self.worst_task(row)),
                near_one(row.projected.cosine),
            ]);
        }
        let mut text = table.to_string();
        text.push_str(
            "bits: of a task's own column + of the shared one that keeps the sum; of f32: share of the float32 task vectors;\n\
             gain: 1 is right, less is shrunk; noise beside it; both mean over tasks, then worst task;\n\
             error: (1 - gain)² + noise of the worst task; add cos: all tasks added. --json and --format csv have more\n",
        );
        for (index, expression) in self.expressions.iter().enumerate() {
            text.push_str(&format!("\n{}\n", escaped(expression)));
            text.push_str(&self.expression(index).to_string());
        }
        for row in self.rows {
            for note in &row.notes {
                let line = format!("note: {}: {}\n", row.method, escaped(note));
                if !text.contains(&line) {
                    text.push_str(&line);
                }
            }
        }
        text
    }

    fn expression(&self, index: usize) -> Table {
        let right = |heading| (heading, Align::Right);
        let mut table = Table::new([
            ("method", Align::Left),
            right("M"),
            right("bits"),
            right("gain"),
            right("noise"),
            right("cos"),
        ]);
        for (row, found) in self.rows.iter().filter_map(|row| Some((row, row.expressions.get(index)?))) {
            table.row([
                row.method.to_owned(),
                row.n_atoms.to_string(),
                row.storage.to_string(),
                near_one(found.gain()),
                number(found.noise()),
                near_one(found.cosine),
            ]);
        }
        table
    }

    /// For spreadsheets.
    pub(super) fn csv(&self) -> String {
        let headings = "method,M,bits,stored,bytes,share,mean_gain,worst_gain,mean_noise,worst_noise,mean,worst,worst_task,\
                        add_cos,add_ratio,sum_cos,loss/bound,cond,bf16_worst";
        let mut text = headings.to_owned();
        for expression in self.expressions {
            for what in ["gain", "noise", "cos"] {
                text.push(',');
                text.push_str(&csv_cell(&format!("{what} {expression}")));
            }
        }
        text.push('\n');
        for row in self.rows {
            let bytes = self.bytes(row);
            let bf16 = row.rounding.iter().find(|rounding| rounding.dtype == tvb::FloatDtype::Bf16);
            let plain = |value: f64| if value.is_finite() { value.to_string() } else { "-".to_owned() };
            let mut cells = vec![
                row.method.to_owned(),
                row.n_atoms.to_string(),
                row.storage.to_string(),
                row.n_stored.to_string(),
                bytes.to_string(),
                plain(bytes as f64 / self.full_bytes.max(1) as f64),
            ];
            let numbers = [row.mean_gain(), row.worst_gain(), row.mean_noise(), row.worst_noise()];
            cells.extend(numbers.into_iter().chain([row.mean_error, row.worst_error]).map(plain));
            cells.push(self.worst_task(row).to_owned());
            let numbers = [row.projected.cosine, row.projected.norm_ratio, row.sum.cosine, row.loss_over_bound];
            cells.extend(numbers.into_iter().chain([row.condition]).map(plain));
            cells.push(bf16.map_or_else(|| "-".to_owned(), |rounding| plain(rounding.worst)));
            cells.extend(row.expressions.iter().flat_map(|of| [of.gain(), of.noise(), of.cosine].map(plain)));
            text.push_str(&cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","));
            text.push('\n');
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Vec<Value> {
        self.rows.iter().map(|row| self.row_json(row)).collect()
    }

    fn row_json(&self, row: &PlanRow) -> Value {
        let rounding: serde_json::Map<String, Value> = row
            .rounding
            .iter()
            .map(|Rounding { dtype, worst, .. }| (tvb::Dtype::from(*dtype).to_string(), finite(*worst)))
            .collect();
        let bits = match row.storage {
            Storage::Plain(_) => Value::Null,
            Storage::Coded(rung) => json!({ "own": rung.rate.name(), "kept": rung.kept_rate.map(tvb::Rate::name) }),
        };
        let bytes = self.bytes(row);
        let of_expression = |(text, found): (&String, &tvb::Fidelity)| {
            json!({
                "expression": text,
                "gain": finite(found.gain()),
                "noise": finite(found.noise()),
                "cosine": finite(found.cosine),
                "norm_ratio": finite(found.norm_ratio),
            })
        };
        json!({
            "method": row.method,
            "n_atoms": row.n_atoms,
            "n_stored": row.n_stored,
            "storage": row.storage.to_string(),
            "bits": bits,
            "bytes": bytes,
            "share": bytes as f64 / self.full_bytes.max(1) as f64,
            "bytes_f32": Storage::Plain(tvb::FloatDtype::F32).bytes(row.n_stored, self.shapes),
            "gain": { "mean": finite(row.mean_gain()), "worst": finite(row.worst_gain()) },
            "noise": { "mean": finite(row.mean_noise()), "worst": finite(row.worst_noise()) },
            "gains": row.gains,
            "noises": row.noises,
            "expressions": self.expressions.iter().zip(&row.expressions).map(of_expression).collect::<Vec<_>>(),
            "loss": row.loss,
            "spectral_bound": row.spectral_bound,
            "loss_over_bound": finite(row.loss_over_bound),
            "relative_loss": row.relative_loss,
            "relative_bound": row.relative_bound,
            "mean_error": row.mean_error,
            "worst_error": row.worst_error,
            "worst_task": self.worst_task(row),
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
}
