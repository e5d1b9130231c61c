//! Mergers on the zoo: from task vectors, from coded tasks and from mixtures; each with the scale that the validation split likes best.

use super::rows::{How, Row};
use super::side_by_side::side_by_side;
use super::stored::Stored;
use super::zoo::{Zoo, checkpoint};
use crate::process::{Result, capture};
use serde::Deserialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A merger, its words, and the scales that are tried.
struct Merger {
    label: &'static str,
    words: &'static [&'static str],
    scales: &'static [f64],
}

/// Scales of a sum of tasks.
const OF_SUMS: &[f64] = &[0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.4, 1.8];
/// Scales of what is about as long as one task.
const OF_MEANS: &[f64] = &[0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0];

const MERGERS: &[Merger] = &[
    Merger { label: "sum", words: &["--method", "task_arithmetic"], scales: OF_SUMS },
    Merger { label: "ties, 20 %", words: &["--method", "ties", "--density", "0.2"], scales: OF_MEANS },
    Merger { label: "dare, 50 %", words: &["--method", "dare_linear", "--density", "0.5"], scales: OF_SUMS },
    Merger {
        label: "breadcrumbs, 30 %",
        words: &["--method", "breadcrumbs", "--density", "0.3", "--gamma", "0.01"],
        scales: OF_SUMS,
    },
    Merger { label: "consensus, k = 2", words: &["--method", "consensus", "--k", "2"], scales: OF_SUMS },
    Merger { label: "LiNeS, 0.5 to 1.5", words: &["--method", "task_arithmetic", "--lines", "0.5:1"], scales: OF_SUMS },
    Merger { label: "TSV-M", words: &["--method", "tsv_m"], scales: OF_MEANS },
    Merger { label: "Iso-C", words: &["--method", "iso_c"], scales: OF_MEANS },
];

/// Labels of the rows that are merged from, beside the task vectors themselves.
const SOURCES: &[&str] = &["2 bits, sum at 3 (default)", "1 bit, sum at 3", "anchored, T/2, f32"];

/// Mean test accuracy of one merger from each source, the task vectors first.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    pub(super) label: &'static str,
    /// Accuracy and scale.
    pub(super) found: Vec<(f64, f64)>,
}

/// All mergers of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Mergers {
    /// What they were merged from.
    pub(super) sources: Vec<String>,
    pub(super) rows: Vec<Merged>,
}

#[derive(Deserialize)]
struct Evaluated {
    mean: f64,
}

/// Runs every merger from every source that was stored with the first seed.
pub(super) fn mergers(zoo: &Zoo, n_tasks: usize, stored: &[(&Row, &Stored)], folder: &Path) -> Result<Mergers> {
    let is_original = |(row, _): &&(&Row, &Stored)| row.how == How::Originals;
    let mut sources: Vec<(String, Option<PathBuf>)> =
        stored.iter().filter(is_original).take(1).map(|(row, _)| (row.label.clone(), None)).collect();
    for label in SOURCES {
        let found = stored.iter().find(|(row, _)| row.label == *label);
        sources.extend(found.map(|(row, one)| (row.label.clone(), one.basis.clone())));
    }
    let pairs: Vec<(&Merger, usize)> =
        MERGERS.iter().flat_map(|merger| (0..sources.len()).map(move |source| (merger, source))).collect();
    let found = side_by_side(&pairs, |&(merger, source)| {
        let own = folder.join(format!("{n_tasks}-tasks/merged/{source}-{}", merger.words.join("")));
        let basis = sources.get(source).and_then(|(_, basis)| basis.as_deref());
        let made = best(zoo, n_tasks, merger, basis, &own);
        let _ = std::fs::remove_dir_all(&own);
        made
    })?;
    let rows = MERGERS.iter().zip(found.chunks(sources.len().max(1)));
    Ok(Mergers {
        rows: rows.map(|(merger, found)| Merged { label: merger.label, found: found.to_vec() }).collect(),
        sources: sources.into_iter().map(|(label, _)| label).collect(),
    })
}

/// The test accuracy at the scale that is best on the validation split, and that scale.
fn best(zoo: &Zoo, n_tasks: usize, merger: &Merger, basis: Option<&Path>, folder: &Path) -> Result<(f64, f64)> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let tasks = zoo.scenario(n_tasks)?;
    let mut paths = Vec::new();
    for scale in merger.scales {
        let out = folder.join(format!("{scale}.safetensors"));
        let mut command = zoo.tvb(&["merge", "--overwrite"]);
        command.args(merger.words).args(["--lambda", &scale.to_string(), "-o"]).arg(&out);
        command.arg("--base").arg(checkpoint("base"));
        match basis {
            Some(basis) => command.arg("--basis").arg(basis),
            None => command.args(tasks.iter().map(|task| checkpoint(task))),
        };
        capture(&mut command)?;
        paths.push(out);
    }
    let on_val = evaluated(zoo, n_tasks, "val", &paths)?;
    let best = on_val.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at);
    let on_test = evaluated(zoo, n_tasks, "test", paths.get(best..=best).unwrap_or_default())?;
    match (on_test.first(), merger.scales.get(best)) {
        (Some(accuracy), Some(scale)) => Ok((*accuracy, *scale)),
        _ => Err("tvb-zoo eval said nothing".to_owned()),
    }
}

/// Mean accuracies of checkpoints, by one evaluator.
fn evaluated(zoo: &Zoo, n_tasks: usize, split: &str, paths: &[PathBuf]) -> Result<Vec<f64>> {
    let mut command = zoo.command(&["eval", "--serve", "--scenario", &n_tasks.to_string(), "--split", split]);
    let failed = |error: std::io::Error| format!("tvb-zoo eval: {error}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let asked: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    // A few lines: the pipe holds them all.
    child.stdin.take().ok_or("no stdin")?.write_all(asked.as_bytes()).map_err(failed)?;
    let said = child.wait_with_output().map_err(failed)?;
    let lines = String::from_utf8_lossy(&said.stdout).into_owned();
    let means: Vec<f64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Evaluated>(line).map(|found| found.mean))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| format!("tvb-zoo eval said {lines}: {error}"))?;
    match means.len() == paths.len() {
        true => Ok(means),
        false => Err(format!("tvb-zoo eval answered {} of {} paths", means.len(), paths.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::rows;
    use super::*;

    #[test]
    fn the_sources_are_rows_of_the_demo() {
        let all = rows(8, false);
        for label in SOURCES {
            assert!(all.iter().any(|row| row.label == *label), "{label}");
        }
        assert!(MERGERS.iter().all(|merger| !merger.scales.is_empty()));
    }
}
