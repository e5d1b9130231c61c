//! The zoo as the demo sees it: its tasks, its checkpoints, its evaluator, and the bytes of its task vectors.

use crate::process::{Result, capture, root};
use crate::zoo::CHECKPOINTS;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The two binaries and the tasks.
pub(crate) struct Zoo {
    /// The folder of the binaries.
    binaries: PathBuf,
    /// Every task, in the order of the scenarios.
    names: Vec<String>,
}

impl Zoo {
    /// Asks the zoo for its tasks.
    pub(crate) fn open(binaries: PathBuf) -> Result<Zoo> {
        let names = capture(Command::new(binaries.join("tvb-zoo")).arg("tasks").current_dir(root()))?;
        let names = names.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
        Ok(Zoo { binaries, names })
    }

    /// The first `n_tasks` tasks.
    pub(crate) fn scenario(&self, n_tasks: usize) -> Result<&[String]> {
        self.names.get(..n_tasks).ok_or_else(|| format!("the zoo has {} tasks, not {n_tasks}", self.names.len()))
    }

    /// `tvb`, quiet and at home in the repository's root, on the CPU: the same bits on every machine, several side by side.
    pub(crate) fn tvb(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.join("tvb"));
        // Twice quiet: that controls come out far from the originals is what the tables show.
        command.current_dir(root()).args(words).args(["-qq", "--json", "--device", "cpu", "-j", "1"]);
        command
    }

    /// `tvb-zoo` in the repository's root.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.join("tvb-zoo"));
        command.current_dir(root()).args(words);
        command
    }
}

/// A task's checkpoint, or `base`.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    Path::new(CHECKPOINTS).join(format!("{name}.safetensors"))
}

/// What a command of the zoo says: one JSON object a line.
pub(crate) fn said<T: DeserializeOwned>(command: &mut Command) -> Result<Vec<T>> {
    let text = capture(command)?;
    let parsed = |line: &str| serde_json::from_str(line).map_err(|error| format!("tvb-zoo said {line}: {error}"));
    text.lines().map(parsed).collect()
}
