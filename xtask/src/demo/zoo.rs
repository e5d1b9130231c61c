//! The zoo as the demo sees it: its tasks, its checkpoints and its evaluator.

use crate::process::{Result, capture, root};
use crate::zoo::CHECKPOINTS;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The evaluator's name for what every model of the zoo should still know.
pub(super) const CONTROL: &str = "control";

/// Accuracies by task.
pub(super) type Accuracies = BTreeMap<String, f64>;

/// The part of a task's images that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// Scales are chosen on it.
    Val,
    /// Results are reported on it.
    Test,
}

impl Split {
    pub(super) fn name(self) -> &'static str {
        match self {
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// The two binaries and the tasks.
pub(super) struct Zoo {
    /// The folder of the binaries.
    pub binaries: PathBuf,
    /// Every task, in the order of the scenarios.
    pub names: Vec<String>,
}

impl Zoo {
    /// Asks the zoo for its tasks.
    pub(super) fn open(binaries: PathBuf) -> Result<Zoo> {
        let names = capture(Command::new(binaries.join("tvb-zoo")).arg("tasks").current_dir(root()))?;
        let names = names.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
        Ok(Zoo { binaries, names })
    }

    /// The first `n_tasks` tasks.
    pub(super) fn scenario(&self, n_tasks: usize) -> Result<&[String]> {
        self.names.get(..n_tasks).ok_or_else(|| format!("the zoo has {} tasks, not {n_tasks}", self.names.len()))
    }

    /// `tvb`, quiet and at home in the repository's root.
    pub(super) fn tvb(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.join("tvb"));
        command.current_dir(root()).args(words);
        // Several run side by side.
        command.env("RAYON_NUM_THREADS", "1");
        command
    }

    /// The evaluator's command line, without the checkpoint.
    pub(super) fn evaluator(&self, tasks: &[String], split: Split) -> Vec<String> {
        let program = self.binaries.join("tvb-zoo").display().to_string();
        [program, "eval".into(), "--tasks".into(), tasks.join(","), "--split".into(), split.name().into()].into()
    }

    /// Accuracies of one checkpoint.
    pub(super) fn evaluate(&self, checkpoint: &Path, tasks: &[String], split: Split) -> Result<Accuracies> {
        let words = self.evaluator(tasks, split);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(checkpoint).current_dir(root()).env("RAYON_NUM_THREADS", "1");
        let text = capture(&mut command)?;
        let line = text.lines().last().unwrap_or_default();
        let mut found: Accuracies =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", words.join(" ")))?;
        found.retain(|name, _| tasks.contains(name));
        Ok(found)
    }
}

/// A task's checkpoint, or `base`.
pub(super) fn checkpoint(name: &str) -> PathBuf {
    Path::new(CHECKPOINTS).join(format!("{name}.safetensors"))
}

/// The mean over these tasks of `value(task)`.
pub(super) fn mean(tasks: &[String], value: impl Fn(&str) -> f64) -> f64 {
    tasks.iter().map(|task| value(task)).sum::<f64>() / tasks.len().max(1) as f64
}
