//! The table the paper is about: what a compressed basis keeps of addition and of negation, by a real evaluator.
//!
//! The paper's protocol, with `tvb sweep` and `tvb-zoo eval`: scales are chosen on the validation split and reported on
//! the test split; addition is normalised by each task's own fine-tune; negation lowers the target's accuracy as far as
//! it can while the control keeps 95 % of what the base has.

use super::compressed::Compressed;
use super::side_by_side::side_by_side;
use super::zoo::{Accuracies, CONTROL, Split, Zoo, checkpoint, mean};
use crate::process::{Result, capture, root};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Scales that addition tries.
const ADDITION_SCALES: &str = "0.4,0.6,0.75,0.9,1.1,1.4";
/// The plain sum of M atoms is up to T/M times shorter than the sum of T task vectors.
const SUM_SCALES: &str = "0.25,0.5,1,1.5,2.5,4";
/// Scales that negation tries.
const NEGATION_SCALES: &str = "0.4,0.6,0.8,1,1.3";
/// Methods of the addition table: the name, and whether the atoms are only summed.
const ADDITION: &[(&str, bool)] = &[
    ("anchored", false),
    ("exact", false),
    ("ae", false),
    ("pca", false),
    ("pca", true),
    ("cluster", false),
    ("nmf", false),
    ("sample", false),
    ("random", false),
];
const ADDITION_QUICK: &[(&str, bool)] = &[("anchored", false), ("sample", false), ("random", false)];
/// Methods of the negation table.
const NEGATION: &[&str] = &["anchored", "exact"];
const NEGATION_QUICK: &[&str] = &["anchored"];

/// Tasks that are taken out, one at a time: the same in every scenario.
const N_TARGETS: usize = 8;

/// What is measured.
pub(super) struct Study {
    /// Numbers of tasks.
    pub scenarios: Vec<usize>,
    /// Fewer methods, for a test.
    pub is_quick: bool,
    /// Where bases and sweeps are kept.
    pub folder: PathBuf,
}

/// The parts of `tvb sweep --json` that are used.
#[derive(Debug, Deserialize)]
struct Swept {
    best: Best,
}

#[derive(Debug, Deserialize)]
struct Best {
    scale: f64,
    checkpoint: PathBuf,
}

/// What an edit is formed from.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// The fine-tuned checkpoints themselves.
    Originals,
    /// A basis of M atoms.
    Basis { method: &'static str, n_atoms: usize },
}

/// One cell of the addition table.
struct Addition {
    n_tasks: usize,
    source: Source,
    is_sum: bool,
}

/// One cell's worth of negation: one target.
struct Negation {
    n_tasks: usize,
    source: Source,
    target: String,
}

/// A row's label, the scenario, and what is shown there.
type Cell = (String, usize, String);

impl Study {
    /// Measures everything and answers with the three tables as Markdown.
    pub(super) fn run(&self, zoo: &Zoo) -> Result<String> {
        let n_most = self.scenarios.iter().copied().max().unwrap_or(0);
        let tasks = zoo.scenario(n_most)?;
        let [own_val, own_test] = self.individual(zoo, tasks)?;
        let own_file = self.folder.join("fine-tuned-val.json");
        let text = serde_json::to_string(&own_val).map_err(|error| error.to_string())?;
        write(&own_file, &text)?;
        let known: Vec<String> = tasks.iter().cloned().chain([CONTROL.to_owned()]).collect();
        let zero_shot = zoo.evaluate(&checkpoint("base"), &known, Split::Test)?;
        let losses = self.compress_all(zoo)?;

        let mut cells = Vec::new();
        for &n_tasks in &self.scenarios {
            let tasks = zoo.scenario(n_tasks)?;
            cells.push(("zero-shot".to_owned(), n_tasks, shown(tasks, &zero_shot, &own_test)));
            cells.push(("individual".to_owned(), n_tasks, shown(tasks, &own_test, &own_test)));
        }
        cells.extend(side_by_side(&self.additions(), |addition| {
            let tasks = zoo.scenario(addition.n_tasks)?;
            let (found, scale) = self.add(zoo, addition, tasks, &own_file)?;
            let label = label(&addition.source, addition.n_tasks, addition.is_sum);
            Ok((label, addition.n_tasks, format!("{} at {scale}", shown(tasks, &found, &own_test))))
        })?);
        let mut text = String::from(
            "Addition: mean test accuracy at the scale that is best on the validation split. In brackets: the mean share of each fine-tune's own accuracy.\n\n",
        );
        text += &markdown(&self.scenarios, &cells);
        text += "\nNegation: mean test accuracy of the removed task, over the first 8 tasks; lower is better. In brackets: the control's accuracy.\n\n";
        text += &markdown(&self.scenarios, &self.negation_cells(zoo, &zero_shot)?);
        text += "\nLoss, divided by the least that any basis of as many vectors can have.\n\n";
        text += &markdown(&self.scenarios, &losses);
        Ok(text)
    }

    /// Accuracy of every task's own fine-tune on both splits.
    fn individual(&self, zoo: &Zoo, tasks: &[String]) -> Result<[Accuracies; 2]> {
        let of = |split: Split| -> Result<Accuracies> {
            let found = side_by_side(tasks, |task| zoo.evaluate(&checkpoint(task), std::slice::from_ref(task), split))?;
            Ok(found.into_iter().flatten().collect())
        };
        Ok([of(Split::Val)?, of(Split::Test)?])
    }

    fn n_atoms(&self, n_tasks: usize) -> [usize; 2] {
        [n_tasks / 2, n_tasks.div_ceil(4)]
    }

    fn additions(&self) -> Vec<Addition> {
        let mut all = Vec::new();
        for &n_tasks in &self.scenarios {
            all.push(Addition { n_tasks, source: Source::Originals, is_sum: false });
            for n_atoms in self.n_atoms(n_tasks) {
                for &(method, is_sum) in if self.is_quick { ADDITION_QUICK } else { ADDITION } {
                    all.push(Addition { n_tasks, source: Source::Basis { method, n_atoms }, is_sum });
                }
            }
        }
        all
    }

    /// Makes the bases, each once; answers their losses over the bound.
    fn compress_all(&self, zoo: &Zoo) -> Result<Vec<Cell>> {
        let mut wanted: Vec<(usize, &'static str, usize)> = Vec::new();
        for addition in self.additions() {
            if let Source::Basis { method, n_atoms } = addition.source
                && !wanted.contains(&(addition.n_tasks, method, n_atoms))
            {
                wanted.push((addition.n_tasks, method, n_atoms));
            }
        }
        side_by_side(&wanted, |&(n_tasks, method, n_atoms)| {
            let mut command = zoo.tvb(&["compress", "--json", "-q", "--overwrite", "-j", "1", "--method", method]);
            command.args(["-m", &n_atoms.to_string()]).arg("-o").arg(self.basis(n_tasks, method, n_atoms));
            command.arg("--base").arg(checkpoint("base"));
            command.args(zoo.scenario(n_tasks)?.iter().map(|task| checkpoint(task)));
            let compressed = Compressed::parse(&capture(&mut command)?)?;
            let source = Source::Basis { method, n_atoms };
            let over = format!("{:.3}", compressed.loss / compressed.spectral_bound);
            Ok((label(&source, n_tasks, false), n_tasks, over))
        })
    }

    fn basis(&self, n_tasks: usize, method: &str, n_atoms: usize) -> PathBuf {
        self.folder.join(format!("{n_tasks}-tasks-{n_atoms}-atoms-{method}"))
    }

    /// Test accuracies of the sum at the scale that is best on the validation split.
    fn add(&self, zoo: &Zoo, addition: &Addition, tasks: &[String], own: &Path) -> Result<(Accuracies, f64)> {
        let mut words =
            vec!["--metric".into(), "normalized".into(), "--normalize-by".into(), own.display().to_string()];
        words.extend(["--scales".into(), if addition.is_sum { SUM_SCALES } else { ADDITION_SCALES }.into()]);
        if addition.is_sum {
            words.extend(["--rule".into(), "sum".into()]);
        }
        let name = label(&addition.source, addition.n_tasks, addition.is_sum);
        let out = self.folder.join(format!("sweeps/add-{}-{}", addition.n_tasks, file_name(&name)));
        let swept = self.sweep(zoo, "add", &addition.source, addition.n_tasks, None, words, &out, tasks)?;
        Ok((zoo.evaluate(&swept.checkpoint, tasks, Split::Test)?, swept.scale))
    }

    fn negation_cells(&self, zoo: &Zoo, zero_shot: &Accuracies) -> Result<Vec<Cell>> {
        // What the originals say does not depend on the other tasks: it is measured once, in the first scenario.
        let mut sources: Vec<(usize, Source)> =
            self.scenarios.first().map(|n| (*n, Source::Originals)).into_iter().collect();
        for &n_tasks in &self.scenarios {
            for n_atoms in self.n_atoms(n_tasks) {
                let methods = if self.is_quick { NEGATION_QUICK } else { NEGATION };
                sources.extend(methods.iter().map(|method| (n_tasks, Source::Basis { method, n_atoms })));
            }
        }
        let mut wanted = Vec::new();
        for (n_tasks, source) in &sources {
            let targets = targets(zoo)?.iter().cloned();
            wanted.extend(targets.map(|target| Negation { n_tasks: *n_tasks, source: source.clone(), target }));
        }
        let found = side_by_side(&wanted, |negation| self.negate(zoo, negation))?;
        let both = |target: f64, control: f64| format!("{:.1} % (control {:.1} %)", 100.0 * target, 100.0 * control);
        let mut cells = Vec::new();
        let before = mean(targets(zoo)?, |task| at(zero_shot, task));
        for &n_tasks in &self.scenarios {
            cells.push(("zero-shot".to_owned(), n_tasks, both(before, at(zero_shot, CONTROL))));
        }
        for (n_tasks, source) in sources {
            let of_source: Vec<&(f64, f64)> = wanted
                .iter()
                .zip(&found)
                .filter(|(negation, _)| negation.n_tasks == n_tasks && negation.source == source)
                .map(|(_, found)| found)
                .collect();
            let mean_of = |value: fn(&(f64, f64)) -> f64| {
                of_source.iter().map(|found| value(found)).sum::<f64>() / of_source.len().max(1) as f64
            };
            cells.push((
                label(&source, n_tasks, false),
                n_tasks,
                both(mean_of(|found| found.0), mean_of(|found| found.1)),
            ));
        }
        Ok(cells)
    }

    /// Test accuracies of the target and of the control.
    fn negate(&self, zoo: &Zoo, negation: &Negation) -> Result<(f64, f64)> {
        let Negation { n_tasks, source, target } = negation;
        let asked = [target.clone(), CONTROL.to_owned()];
        let words =
            ["--metric", target, "--minimize", "--control", CONTROL, "--keep", "0.95", "--scales", NEGATION_SCALES];
        let name = label(source, *n_tasks, false);
        let out = self.folder.join(format!("sweeps/negate-{n_tasks}-{target}-{}", file_name(&name)));
        let words = words.map(String::from).to_vec();
        let swept = self.sweep(zoo, "negate", source, *n_tasks, Some(target), words, &out, &asked)?;
        let found = zoo.evaluate(&swept.checkpoint, &asked, Split::Test)?;
        Ok((at(&found, target), at(&found, CONTROL)))
    }

    /// Runs one `tvb sweep` on the validation split.
    #[expect(clippy::too_many_arguments, reason = "the words of one command line")]
    fn sweep(
        &self,
        zoo: &Zoo,
        kind: &str,
        source: &Source,
        n_tasks: usize,
        target: Option<&String>,
        words: Vec<String>,
        out: &Path,
        asked: &[String],
    ) -> Result<Best> {
        let mut command = zoo.tvb(&["sweep", kind, "--json", "-q", "--overwrite", "-j", "1"]);
        match source {
            Source::Basis { method, n_atoms } => {
                command.arg(self.basis(n_tasks, method, *n_atoms)).args(target);
            }
            Source::Originals => {
                command.args(target).arg("--from-checkpoints");
                command.args(zoo.scenario(n_tasks)?.iter().map(|task| checkpoint(task)));
            }
        }
        command.arg("--base").arg(checkpoint("base")).arg("-o").arg(out).args(words);
        command.arg("--").args(zoo.evaluator(asked, Split::Val)).arg("{checkpoint}");
        let text = capture(&mut command)?;
        let swept: Swept = serde_json::from_str(&text).map_err(|error| format!("tvb sweep --json: {error}"))?;
        Ok(swept.best)
    }
}

/// The tasks that are taken out.
fn targets(zoo: &Zoo) -> Result<&[String]> {
    zoo.scenario(N_TARGETS)
}

/// A task's accuracy, not a number where it was not asked for.
fn at(found: &Accuracies, task: &str) -> f64 {
    found.get(task).copied().unwrap_or(f64::NAN)
}

/// `71.3 % (0.86)`: the mean accuracy, and as a part of each task's own.
fn shown(tasks: &[String], found: &Accuracies, own: &Accuracies) -> String {
    let accuracy = mean(tasks, |task| at(found, task));
    let normalised = mean(tasks, |task| at(found, task) / at(own, task));
    format!("{:.1} % ({normalised:.3})", 100.0 * accuracy)
}

/// What a row is called: the same in every scenario.
fn label(source: &Source, n_tasks: usize, is_sum: bool) -> String {
    match source {
        Source::Originals => "all T task vectors".to_owned(),
        Source::Basis { method, n_atoms } => {
            let part = if *n_atoms * 2 == n_tasks { "T/2" } else { "T/4" };
            let rule = if is_sum { ", plain sum of atoms" } else { "" };
            format!("{method}, M = {part}{rule}")
        }
    }
}

/// A label as a part of a file's name.
fn file_name(label: &str) -> String {
    let words = label.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Rows in order of first appearance, one column for each scenario.
fn markdown(scenarios: &[usize], cells: &[Cell]) -> String {
    let mut labels: Vec<&str> = Vec::new();
    for (label, _, _) in cells {
        if !labels.contains(&label.as_str()) {
            labels.push(label);
        }
    }
    let mut out = String::from("| |");
    for n_tasks in scenarios {
        out += &format!(" {n_tasks} tasks |");
    }
    out += "\n|---|";
    out += &"---|".repeat(scenarios.len());
    out.push('\n');
    for label in labels {
        out += &format!("| {label} |");
        for n_tasks in scenarios {
            let cell = cells.iter().find(|(of, n, _)| of == label && n == n_tasks);
            out += &format!(" {} |", cell.map_or("-", |(_, _, shown)| shown));
        }
        out.push('\n');
    }
    out
}

/// Writes a file under the target folder.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let path = root().join(path);
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(&path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_find_their_rows_and_columns() {
        let cell = |label: &str, n_tasks, shown: &str| (label.to_owned(), n_tasks, shown.to_owned());
        let cells = [cell("zero-shot", 8, "a"), cell("exact, M = T/2", 14, "b"), cell("zero-shot", 14, "c")];
        let expected = "| | 8 tasks | 14 tasks |\n|---|---|---|\n| zero-shot | a | c |\n| exact, M = T/2 | - | b |\n";
        assert_eq!(markdown(&[8, 14], &cells), expected);
    }

    #[test]
    fn accuracies_are_normalised_task_by_task() {
        let of = |a: f64, b: f64| Accuracies::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let tasks = ["a".to_owned(), "b".to_owned()];
        assert_eq!(shown(&tasks, &of(0.4, 0.5), &of(0.8, 1.0)), "45.0 % (0.500)");
    }

    #[test]
    fn labels_are_the_same_in_every_scenario_and_fit_in_file_names() {
        for n_tasks in [8, 14, 20] {
            let source = |n_atoms| Source::Basis { method: "pca", n_atoms };
            assert_eq!(label(&source(n_tasks / 2), n_tasks, false), "pca, M = T/2");
            let quarter = label(&source(n_tasks.div_ceil(4)), n_tasks, true);
            assert_eq!(file_name(&quarter), "pca-M-T-4-plain-sum-of-atoms");
        }
    }
}
