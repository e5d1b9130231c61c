//! A task that no basis has seen, from 4, 8 and 16 examples of each class: the first fourteen tasks are known, the last six are new.
//!
//! A fit looks for the coefficients with the least mean cross-entropy on the examples: accuracy on so few has few values, and most steps
//! change none. What is reported is the accuracy on the new task's test images. How much coefficients cost (`--l2`) is chosen once, on
//! known tasks that are held out: three of the fourteen, with the other eleven known.

use super::lines::{Frame, Line};
use super::shared::{Study, full_bytes, make_folder, mean};
use crate::demo::side_by_side::side_by_side;
use crate::demo::zoo::checkpoint;
use crate::process::{Result, capture, root};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Tasks that are known; the others are new.
const N_KNOWN: usize = 14;
/// Known tasks that choose what coefficients cost: the last of them, new to the others.
const N_HELD_OUT: usize = 3;
const SHOTS: [usize; 3] = [4, 8, 16];
const N_DRAWS: u64 = 3;
/// What the sum of the coefficients' squares costs, in nats.
const L2: [f64; 5] = [0.0, 0.003, 0.01, 0.03, 0.1];
const N_EVALUATIONS: usize = 300;
/// Scales that the plain sum is tried at.
const SCALES: [f64; 8] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8];

/// What a fit's candidates are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Originals,
    Basis(&'static str),
}

/// Ways that are fitted: name, what of, over what, and the words of `tvb compress`.
const FITS: [(&str, From, &str, &[&str]); 4] = [
    ("fit over 14 tasks, full task vectors", From::Originals, "tasks", &[]),
    ("fit over 14 tasks, coded at 1 bit", From::Basis("coded"), "tasks", &["--bits", "1"]),
    ("fit over 7 anchored atoms", From::Basis("anchored-7"), "atoms", &["--method", "anchored", "-m", "7"]),
    ("fit over 4 anchored atoms", From::Basis("anchored-4"), "atoms", &["--method", "anchored", "-m", "4"]),
];

/// Accuracy in percent, for each number of examples: mean over tasks and draws; and for each new task.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: String,
    /// For each of `FewShot::shots`.
    accuracy: Vec<f64>,
    /// \[n_shots\]\[n_tasks\].
    by_task: Vec<Vec<f64>>,
    /// Bytes that are kept.
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct FewShot {
    shots: Vec<usize>,
    tasks: Vec<String>,
    n_draws: u64,
    l2: f64,
    /// Mean accuracy on the held-out tasks, for each l2 that was tried.
    tried: Vec<(f64, f64)>,
    rows: Vec<Row>,
}

/// One question: a new task, so many examples, this draw.
#[derive(Clone, Debug)]
struct Case {
    task: String,
    shots: usize,
    draw: u64,
}

pub(super) fn run(study: &Study) -> Result<FewShot> {
    let names = study.zoo.scenario(20)?.to_vec();
    let (known, new) = names.split_at(N_KNOWN);
    let (shots, n_draws): (&[usize], u64) = if study.is_quick { (&[4], 1) } else { (&SHOTS, N_DRAWS) };
    let new = if study.is_quick { &new[1..2] } else { new };
    let (l2, tried) = choose_l2(study, known, shots)?;
    let folder = study.folder.join("few-shot");
    let mut bytes = vec![f32_bytes(&folder, study, known)?];
    for (_, from, _, words) in &FITS {
        if let From::Basis(name) = from {
            bytes.push(compress(study, &folder, name, known, words)?);
        }
    }
    let cases: Vec<Case> = (shots.iter())
        .flat_map(|&shots| new.iter().map(move |task| (shots, task)))
        .flat_map(|(shots, task)| (0..n_draws).map(move |draw| Case { task: task.clone(), shots, draw }))
        .collect();
    let answers = side_by_side(&cases, |case| case_answers(study, &folder, known, case, l2))?;
    let mut names = vec!["zero-shot".to_owned(), "best single task".to_owned(), "sum, best scale".to_owned()];
    names.extend(FITS.iter().map(|(name, ..)| (*name).to_owned()));
    names.push("fine-tune on all of its data (ceiling)".to_owned());
    let bytes_of = |row: usize| match row {
        0 => 0,
        1 | 2 => bytes[0],
        row => bytes.get(row - 3).copied().unwrap_or(0),
    };
    let rows = names.iter().enumerate().map(|(row, name)| {
        let of = |shots: usize, task: &str| {
            let answers = cases.iter().zip(&answers).filter(|(case, _)| case.shots == shots && case.task == task);
            100.0 * mean(answers.map(|(_, answers)| answers[row]))
        };
        let by_task: Vec<Vec<f64>> =
            shots.iter().map(|&shots| new.iter().map(|task| of(shots, task)).collect()).collect();
        let accuracy = by_task.iter().map(|tasks| mean(tasks.iter().copied())).collect();
        Row { name: name.clone(), accuracy, by_task, bytes: bytes_of(row) }
    });
    Ok(FewShot { shots: shots.to_vec(), tasks: new.to_vec(), n_draws, l2, tried, rows: rows.collect() })
}

/// What coefficients cost: the one that is best on held-out known tasks.
fn choose_l2(study: &Study, known: &[String], shots: &[usize]) -> Result<(f64, Vec<(f64, f64)>)> {
    let (rest, held_out) = known.split_at(known.len() - N_HELD_OUT);
    let held_out = if study.is_quick { &held_out[..1] } else { held_out };
    let costs: &[f64] = if study.is_quick { &L2[..2] } else { &L2 };
    let folder = study.folder.join("few-shot-l2");
    make_folder(&folder)?;
    let wanted: Vec<(f64, Case)> = (costs.iter())
        .flat_map(|&l2| shots.iter().map(move |&shots| (l2, shots)))
        .flat_map(|(l2, shots)| held_out.iter().map(move |task| (l2, Case { task: task.clone(), shots, draw: 0 })))
        .collect();
    let found = side_by_side(&wanted, |(l2, case)| {
        let best = fit(study, &folder, &FITS[0], rest, case, *l2)?;
        Ok(asked(study, &["--tasks", &case.task, "--split", "test"], &[best], &case.task)?[0])
    })?;
    let of = |l2: f64| mean(wanted.iter().zip(&found).filter(|((own, _), _)| *own == l2).map(|(_, found)| *found));
    let tried: Vec<(f64, f64)> = costs.iter().map(|&l2| (l2, 100.0 * of(l2))).collect();
    let best = tried.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.0, |(l2, _)| l2);
    Ok((best, tried))
}

/// Accuracies on the test images of the new task, in the order of the rows.
fn case_answers(study: &Study, folder: &Path, known: &[String], case: &Case, l2: f64) -> Result<Vec<f64>> {
    let (shots, draw) = (case.shots.to_string(), case.draw.to_string());
    let few = ["--tasks", &case.task, "--shots", &shots, "--draw", &draw, "--loss"];
    let best_of = |paths: &[PathBuf]| -> Result<PathBuf> {
        let losses = asked(study, &few, paths, "loss")?;
        let best = losses.iter().zip(paths).min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, path)| path.clone());
        best.ok_or_else(|| "nothing to choose from".to_owned())
    };
    let singles: Vec<PathBuf> = known.iter().map(|name| root().join(checkpoint(name))).collect();
    let sums: Vec<PathBuf> = SCALES.iter().map(|scale| sum_path(folder, *scale)).collect();
    let mut models = vec![root().join(checkpoint("base")), best_of(&singles)?, best_of(&sums)?];
    for way in &FITS {
        models.push(fit(study, folder, way, known, case, l2)?);
    }
    models.push(root().join(checkpoint(&case.task)));
    asked(study, &["--tasks", &case.task, "--split", "test"], &models, &case.task)
}

/// The best candidate of a fit.
fn fit(
    study: &Study,
    folder: &Path,
    (_, from, over, _): &(&str, From, &str, &[&str]),
    known: &[String],
    case: &Case,
    l2: f64,
) -> Result<PathBuf> {
    let name = match from {
        From::Originals => "full",
        From::Basis(name) => name,
    };
    let out = folder.join(format!("{name}-{}-{}-{}-{l2}", case.task, case.shots, case.draw));
    let mut command = study.zoo.tvb(&["fit"]);
    match from {
        From::Basis(name) => drop(command.arg(folder.join(name))),
        From::Originals => drop(command.arg("--from-checkpoints").args(known.iter().map(|name| checkpoint(name)))),
    }
    let n_evaluations = if study.is_quick { 60 } else { N_EVALUATIONS };
    command.arg("--base").arg(checkpoint("base")).arg("-o").arg(&out);
    command.args(["--metric", "loss", "--minimize", "--over", over, "--serve", "--overwrite"]);
    command.args(["--evaluations", &n_evaluations.to_string(), "--l2", &l2.to_string()]);
    let zoo = study.zoo.command(&[]);
    command.arg("--").arg(zoo.get_program()).args(["eval", "--serve", "--loss", "--tasks", &case.task]);
    command.args(["--shots", &case.shots.to_string(), "--draw", &case.draw.to_string()]);
    capture(&mut command)?;
    Ok(out.join("best.safetensors"))
}

/// What the zoo's evaluator answers under `key` for each of these checkpoints.
fn asked(study: &Study, words: &[&str], paths: &[PathBuf], key: &str) -> Result<Vec<f64>> {
    let mut command = study.zoo.command(&["eval", "--serve"]);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    let failed = |error: std::io::Error| format!("tvb-zoo eval --serve: {error}");
    let mut child = command.spawn().map_err(failed)?;
    let lines: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |line: &str| -> Result<f64> {
        let answer: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("tvb-zoo said {line}: {error}"))?;
        answer.get(key).and_then(Value::as_f64).ok_or_else(|| format!("tvb-zoo said nothing of {key}: {line}"))
    };
    let values = text.lines().map(value).collect::<Result<Vec<f64>>>()?;
    match values.len() == paths.len() && output.status.success() {
        true => Ok(values),
        false => Err(format!("tvb-zoo answered {} of {} checkpoints", values.len(), paths.len())),
    }
}

fn sum_path(folder: &Path, scale: f64) -> PathBuf {
    folder.join(format!("sum-{scale}.safetensors"))
}

/// Writes the sums at their scales; bytes of the full task vectors.
fn f32_bytes(folder: &Path, study: &Study, known: &[String]) -> Result<u64> {
    make_folder(folder)?;
    for scale in SCALES {
        let mut command = study.zoo.tvb(&["add", "--overwrite", "--scale", &scale.to_string()]);
        command.arg("--base").arg(checkpoint("base")).arg("-o").arg(sum_path(folder, scale));
        capture(command.arg("--from-checkpoints").args(known.iter().map(|name| checkpoint(name))))?;
    }
    full_bytes(known.len())
}

fn compress(study: &Study, folder: &Path, name: &str, known: &[String], words: &[&str]) -> Result<u64> {
    let mut command = study.zoo.tvb(&["compress", "--overwrite"]);
    command.args(words).arg("-o").arg(folder.join(name)).arg("--base").arg(checkpoint("base"));
    command.args(known.iter().map(|name| checkpoint(name)));
    let made: Vec<Value> = said_json(&capture(&mut command)?)?;
    let bytes = made.first().and_then(|made| made.get("stored_bytes")).and_then(Value::as_u64);
    bytes.ok_or_else(|| "tvb compress --json said no stored_bytes".to_owned())
}

fn said_json(text: &str) -> Result<Vec<Value>> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .map(|value| value.map_err(|error| format!("tvb said something that is no JSON: {error}")))
        .collect()
}

/// The tables.
pub(super) fn markdown(found: &FewShot) -> String {
    let mut text = format!(
        "## A task that no basis has seen\n\nMean accuracy (%) on the test images of {} ({}), {} draw{} of the examples. `--l2 {}` was chosen on known tasks: {}.\n\n",
        match found.tasks.len() {
            1 => "one new task".to_owned(),
            n => format!("{n} new tasks"),
        },
        found.tasks.join(", "),
        found.n_draws,
        if found.n_draws == 1 { "" } else { "s" },
        found.l2,
        found.tried.iter().map(|(l2, accuracy)| format!("{l2}: {accuracy:.1}")).collect::<Vec<_>>().join(", "),
    );
    text.push_str("![Accuracy on new tasks from a few examples](few-shot.svg)\n\n| | kept |");
    found.shots.iter().for_each(|shots| text.push_str(&format!(" {shots} a class |")));
    text.push_str("\n|---|--:|");
    found.shots.iter().for_each(|_| text.push_str("--:|"));
    for row in &found.rows {
        let kept = if row.bytes > 0 { format!("{:.0} kB", row.bytes as f64 / 1000.0) } else { "–".to_owned() };
        text.push_str(&format!("\n| {} | {kept} |", row.name));
        row.accuracy.iter().for_each(|accuracy| text.push_str(&format!(" {accuracy:.1} |")));
    }
    if let Some(most) = found.shots.last() {
        text.push_str(&format!("\n\nTask by task, with {most} examples of each class:\n\n| |"));
        found.tasks.iter().for_each(|task| text.push_str(&format!(" {task} |")));
        text.push_str("\n|---|");
        found.tasks.iter().for_each(|_| text.push_str("--:|"));
        for row in &found.rows {
            text.push_str(&format!("\n| {} |", row.name));
            row.by_task.last().into_iter().flatten().for_each(|value| text.push_str(&format!(" {value:.1} |")));
        }
    }
    text + "\n"
}

/// The picture.
pub(super) fn chart(found: &FewShot) -> String {
    const COLORS: [&str; 8] = ["#57606a", "#8c959f", "#bc4c00", "#0969da", "#1a7f37", "#8250df", "#bf3989", "#24292f"];
    let ticks: Vec<f64> = found.shots.iter().map(|shots| *shots as f64).collect();
    let lines: Vec<Line> = (found.rows.iter().zip(COLORS))
        .map(|(row, color)| Line {
            name: row.name.clone(),
            color,
            is_dashed: !row.name.starts_with("fit"),
            points: ticks.iter().copied().zip(row.accuracy.iter().copied()).collect(),
        })
        .collect();
    let title = "New tasks from a few examples of each class";
    Frame { title, x_label: "examples of each class", ticks: &ticks, range: (30.0, 100.0) }.svg(&lines)
}
