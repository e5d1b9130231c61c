//! Tasks that arrive one at a time. A basis takes each by `tvb extend`, and the original is gone then; beside it stand the same basis made
//! in one go from all originals so far (which somebody would have to keep), and the full task vectors.
//!
//! After every arrival: how well all tasks so far do when they are recovered one by one (percent of their fine-tunes' own accuracy), and
//! what their sum reaches (the scale chosen on validation images, accuracy on test images). Orders: the zoo's, and two drawn ones.

use super::lines::{Frame, Line};
use super::shared::{Study, full_bytes, make_folder, mean};
use crate::demo::side_by_side::side_by_side;
use crate::demo::zoo::{checkpoint, said};
use crate::process::{Result, capture, root};
use crate::zoo::CHECKPOINTS;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

const N_TASKS: usize = 20;
/// Tasks that are there when the first one arrives.
const N_FIRST: usize = 5;
/// Arrivals that the tables show.
const SHOWN: [usize; 4] = [5, 10, 15, 20];

/// A way to keep tasks: name, words of `tvb compress`, and how many tasks it begins with.
struct Way {
    name: &'static str,
    words: &'static [&'static str],
    first: usize,
    color: &'static str,
}

const WAYS: [Way; 4] = [
    Way { name: "coded at 1 bit", words: &["--bits", "1"], first: N_FIRST, color: "#0969da" },
    Way { name: "coded at 2 bits", words: &["--bits", "2"], first: N_FIRST, color: "#1a7f37" },
    Way { name: "5 anchored mixtures", words: &["--method", "anchored", "-m", "5"], first: N_FIRST, color: "#bc4c00" },
    Way { name: "10 anchored mixtures", words: &["--method", "anchored", "-m", "10"], first: 10, color: "#8250df" },
];

/// Figures after one arrival, percent but for the bytes; means over the orders.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Step {
    n_tasks: usize,
    /// Of the fine-tunes' own accuracy: mean and worst of the recovered tasks.
    recovered: f64,
    worst: f64,
    /// Mean accuracy of the sum.
    added: f64,
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    color: &'static str,
    is_extended: bool,
    steps: Vec<Step>,
}

/// Estimated inner products against true ones, at the end of a chain.
#[derive(Clone, Debug, Serialize)]
struct Checked {
    name: String,
    n_pairs: usize,
    /// Root mean square of (estimate − true)/(standard error), and the largest.
    rms: f64,
    largest: f64,
    /// Root mean square of what cosines are off by, and the largest.
    cosine_rms: f64,
    cosine_largest: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Growth {
    n_orders: usize,
    rows: Vec<Row>,
    checked: Vec<Checked>,
}

/// One order's figures: \[n_rows\]\[n_steps\], and what was checked.
type OfOrder = (Vec<Vec<Step>>, Vec<Checked>);

pub(super) fn run(study: &Study) -> Result<Growth> {
    let names = study.zoo.scenario(N_TASKS)?.to_vec();
    let n_orders = if study.is_quick { 1 } else { 3 };
    let orders: Vec<(usize, Vec<String>)> = (0..n_orders).map(|order| (order, ordered(&names, order))).collect();
    let found: Vec<OfOrder> = side_by_side(&orders, |(order, names)| one_order(study, *order, names))?;
    let mut rows = Vec::new();
    for (at, (name, color, is_extended)) in row_names().into_iter().enumerate() {
        let n_steps = found.first().map_or(0, |(steps, _)| steps[at].len());
        let steps = (0..n_steps).map(|step| {
            let of = |value: &dyn Fn(&Step) -> f64| mean(found.iter().map(|(rows, _)| value(&rows[at][step])));
            Step {
                n_tasks: found[0].0[at][step].n_tasks,
                recovered: of(&|step| step.recovered),
                worst: of(&|step| step.worst),
                added: of(&|step| step.added),
                bytes: of(&|step| step.bytes as f64) as u64,
            }
        });
        rows.push(Row { name, color, is_extended, steps: steps.collect() });
    }
    let checked = WAYS.iter().enumerate().map(|(at, way)| {
        let of: Vec<&Checked> = found.iter().filter_map(|(_, checked)| checked.get(at)).collect();
        let square = |value: fn(&Checked) -> f64| mean(of.iter().map(|one| value(one).powi(2))).sqrt();
        let most = |value: fn(&Checked) -> f64| of.iter().map(|one| value(one)).fold(0.0, f64::max);
        Checked {
            name: way.name.to_owned(),
            n_pairs: of.first().map_or(0, |one| one.n_pairs),
            rms: square(|one| one.rms),
            largest: most(|one| one.largest),
            cosine_rms: square(|one| one.cosine_rms),
            cosine_largest: most(|one| one.cosine_largest),
        }
    });
    Ok(Growth { n_orders, rows, checked: checked.collect() })
}

/// The rows, in order: each way extended, then made in one go; then the full task vectors.
fn row_names() -> Vec<(String, &'static str, bool)> {
    let ways = WAYS.iter().flat_map(|way| {
        [(format!("{}, extended", way.name), way.color, true), (format!("{}, in one go", way.name), way.color, false)]
    });
    ways.chain([("full task vectors".to_owned(), "#57606a", false)]).collect()
}

/// The zoo's order, or one that is drawn.
fn ordered(names: &[String], order: usize) -> Vec<String> {
    let mut left = names.to_vec();
    if order == 0 {
        return left;
    }
    // Any fixed numbers do: a linear congruential generator with well-known constants.
    let mut state = order as u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % n as u64) as usize
    };
    (0..names.len()).map(|_| left.swap_remove(next(left.len()))).collect()
}

/// Lets the tasks arrive in one order.
fn one_order(study: &Study, order: usize, names: &[String]) -> Result<OfOrder> {
    let folder = study.folder.join(format!("arrivals-{order}"));
    make_folder(&folder)?;
    let mut rows: Vec<Vec<Step>> = vec![Vec::new(); row_names().len()];
    let last = if study.is_quick { N_FIRST + 2 } else { names.len() };
    for n_tasks in N_FIRST..=last {
        let so_far = &names[..n_tasks];
        // Which row, where its tasks are recovered, bytes.
        let mut recovered: Vec<(usize, PathBuf, u64)> = Vec::new();
        for (at, way) in WAYS.iter().enumerate().filter(|(_, way)| n_tasks >= way.first) {
            let extended = folder.join(format!("{at}-extended"));
            if n_tasks == way.first {
                compress(study, &extended, way, so_far)?;
            } else {
                let newest = &names[n_tasks - 1..n_tasks];
                let mut command = study.zoo.tvb(&["extend"]);
                command.arg(&extended).arg("--base").arg(checkpoint("base"));
                capture(command.args(newest.iter().map(|name| checkpoint(name))))?;
            }
            let at_once = folder.join(format!("{at}-at-once"));
            compress(study, &at_once, way, so_far)?;
            for (row, basis) in [(2 * at, extended), (2 * at + 1, at_once)] {
                let out = folder.join(format!("{row}-recovered"));
                let mut command = study.zoo.tvb(&["recover", "--overwrite"]);
                capture(command.arg(&basis).arg("--base").arg(checkpoint("base")).arg("-o").arg(&out))?;
                recovered.push((row, out, bytes_of(study, &basis)?));
            }
        }
        recovered.push((2 * WAYS.len(), root().join(CHECKPOINTS), full_bytes(so_far.len())?));
        let mut command =
            study.zoo.command(&["measure", "--brief", "--zoo", CHECKPOINTS, "--tasks", &so_far.join(",")]);
        let measured = said::<Value>(command.args(recovered.iter().map(|(_, folder, _)| folder)))?;
        let own = measured.last().map(individual).unwrap_or_default();
        for ((row, _, bytes), measured) in recovered.iter().zip(&measured) {
            let kept: Vec<f64> =
                individual(measured).iter().zip(&own).map(|(value, own)| 100.0 * value / own).collect();
            let added = measured.pointer("/addition/mean").and_then(Value::as_f64).unwrap_or(f64::NAN);
            rows[*row].push(Step {
                n_tasks,
                recovered: mean(kept.iter().copied()),
                worst: kept.iter().copied().fold(f64::INFINITY, f64::min),
                added: 100.0 * added,
                bytes: *bytes,
            });
        }
    }
    let mut checked = Vec::new();
    for (at, way) in WAYS.iter().enumerate().filter(|(_, way)| last > way.first) {
        checked.push(check(study, way.name, &folder.join(format!("{at}-extended")), &names[..last], &folder)?);
    }
    Ok((rows, checked))
}

fn individual(measured: &Value) -> Vec<f64> {
    let values = measured.get("individual").and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn compress(study: &Study, basis: &Path, way: &Way, names: &[String]) -> Result<()> {
    let mut command = study.zoo.tvb(&["compress", "--overwrite"]);
    command.args(way.words).arg("-o").arg(basis).arg("--base").arg(checkpoint("base"));
    capture(command.args(names.iter().map(|name| checkpoint(name)))).map(drop)
}

fn inspected(study: &Study, path: &Path) -> Result<Value> {
    let text = capture(study.zoo.tvb(&["inspect"]).arg(path))?;
    serde_json::from_str(&text).map_err(|error| format!("tvb inspect --json: {error}"))
}

/// Bytes of a basis' atoms.
fn bytes_of(study: &Study, basis: &Path) -> Result<u64> {
    let atoms = inspected(study, basis)?;
    let atoms = atoms.get("atoms").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(atoms.iter().filter_map(|atom| atom.get("bytes").and_then(Value::as_u64)).sum())
}

/// Sets the estimated inner products of a basis against those of the originals.
fn check(study: &Study, name: &str, basis: &Path, names: &[String], folder: &Path) -> Result<Checked> {
    let file = folder.join("gram.safetensors");
    let mut command = study.zoo.tvb(&["gram", "--overwrite"]);
    command.arg("-o").arg(&file).arg("--base").arg(checkpoint("base"));
    capture(command.args(names.iter().map(|name| checkpoint(name))))?;
    let (estimated, exact) = (inspected(study, basis)?, inspected(study, &file)?);
    let matrix = |value: &Value, key: &str| -> Vec<Vec<f64>> {
        let rows = value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let numbers = |row: &Value| row.as_array().into_iter().flatten().map(|x| x.as_f64().unwrap_or(0.0)).collect();
        rows.iter().map(numbers).collect()
    };
    let (gram, errors, truth) = (matrix(&estimated, "gram"), matrix(&estimated, "gram_error"), matrix(&exact, "gram"));
    let bounds = matrix(&estimated, "gram_bound");
    let at = |matrix: &[Vec<f64>], i: usize, j: usize| matrix.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0.0);
    if gram.len() != truth.len() || gram.len() != names.len() {
        return Err(format!("{}: a Gram matrix of {} tasks expected", basis.display(), names.len()));
    }
    let (mut by_error, mut by_cosine) = (Vec::new(), Vec::new());
    for i in 0..gram.len() {
        for j in 0..i {
            let error = at(&errors, i, j);
            if error == 0.0 && at(&bounds, i, j) == 0.0 {
                continue;
            }
            let off = (gram[i][j] - truth[i][j]).abs();
            if error > 0.0 {
                by_error.push(off / error);
            }
            by_cosine.push(off / (truth[i][i] * truth[j][j]).sqrt());
        }
    }
    let square = |values: &[f64]| mean(values.iter().map(|value| value * value)).sqrt();
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Ok(Checked {
        name: name.to_owned(),
        n_pairs: by_cosine.len(),
        rms: square(&by_error),
        largest: most(&by_error),
        cosine_rms: square(&by_cosine),
        cosine_largest: most(&by_cosine),
    })
}

/// The tables.
pub(super) fn markdown(found: &Growth) -> String {
    let shown: Vec<usize> = match found.rows.iter().map(|row| row.steps.len()).max() {
        Some(n) if n + N_FIRST > 20 => SHOWN.to_vec(),
        Some(n) => (N_FIRST..N_FIRST + n).collect(),
        None => Vec::new(),
    };
    let mut text = format!(
        "## Tasks that arrive one at a time\n\nMeans over {} order{}. *Extended*: every task after the first ones arrived by `tvb extend`, without the originals of the others. *In one go*: `tvb compress` of all so far.\n\n![Accuracy of recovered tasks as tasks arrive](arrivals-recovered.svg)\n\n![Accuracy of the sum as tasks arrive](arrivals-added.svg)\n",
        found.n_orders,
        if found.n_orders == 1 { "" } else { "s" }
    );
    let tables: [(&str, fn(&Step) -> String); 3] = [
        ("Recovered one by one: percent of the fine-tunes' own accuracy, mean (worst task)", |step| {
            format!("{:.1} ({:.1})", step.recovered, step.worst)
        }),
        ("All added, at the scale that is best on validation images: mean accuracy (%)", |step| {
            format!("{:.1}", step.added)
        }),
        ("Bytes held", |step| format!("{:.0} kB", step.bytes as f64 / 1000.0)),
    ];
    for (title, value) in tables {
        text.push_str(&format!("\n{title}:\n\n| tasks so far |"));
        shown.iter().for_each(|n| text.push_str(&format!(" {n} |")));
        text.push_str("\n|---|");
        shown.iter().for_each(|_| text.push_str("--:|"));
        for row in &found.rows {
            text.push_str(&format!("\n| {} |", row.name));
            for n in &shown {
                let step = row.steps.iter().find(|step| step.n_tasks == *n);
                text.push_str(&format!(" {} |", step.map_or("–".to_owned(), value)));
            }
        }
        text.push('\n');
    }
    text.push_str("\nEstimated inner products at the end of the chains, against those of the originals (the study prints where it leaves the figures of every step):\n\n| | pairs | error over its standard error: rms | largest | error of a cosine: rms | largest |\n|---|--:|--:|--:|--:|--:|");
    for one in &found.checked {
        // Mixtures are off to one side, by what their atoms do not span: there is no standard error.
        let shown = |value: f64| if value > 0.0 { format!("{value:.2}") } else { "–".to_owned() };
        text.push_str(&format!(
            "\n| {} | {} | {} | {} | {:.4} | {:.4} |",
            one.name,
            one.n_pairs,
            shown(one.rms),
            shown(one.largest),
            one.cosine_rms,
            one.cosine_largest
        ));
    }
    text + "\n"
}

/// Accuracy of recovered tasks over arrivals.
pub(super) fn chart_recovered(found: &Growth) -> String {
    chart(found, "Recovered tasks as tasks arrive, of the fine-tunes' own accuracy", |step| step.recovered, 40.0)
}

/// Accuracy of the sum over arrivals.
pub(super) fn chart_added(found: &Growth) -> String {
    chart(found, "The sum of all tasks as tasks arrive: accuracy", |step| step.added, 40.0)
}

fn chart(found: &Growth, title: &str, value: fn(&Step) -> f64, least: f64) -> String {
    let lines: Vec<Line> = (found.rows.iter())
        .map(|row| Line {
            name: row.name.clone(),
            color: row.color,
            is_dashed: !row.is_extended,
            points: row.steps.iter().map(|step| (step.n_tasks as f64, value(step))).collect(),
        })
        .collect();
    let ticks = [5.0, 8.0, 11.0, 14.0, 17.0, 20.0];
    Frame { title, x_label: "tasks so far", ticks: &ticks, range: (least, 100.0) }.svg(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_hold_every_task_once_and_differ() {
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let orders: Vec<Vec<String>> = (0..3).map(|order| ordered(&names, order)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_by_key(|name| name.parse::<usize>().unwrap());
            assert_eq!(sorted, names);
        }
        assert!(orders[0] == names && orders[1] != orders[2] && orders[1] != names);
    }
}
