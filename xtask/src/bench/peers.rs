//! Other people's ways to do the same, where they are installed: a PyTorch script of our own and mergekit.

use super::inputs::Inputs;
use crate::process::{Result, root, succeeds};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = "benches/peers/stream_torch.py";

/// A Python with PyTorch and safetensors: the one named, the one that `cargo xtask interop` has made, or the system's.
pub(super) fn find_python(named: Option<&Path>) -> Option<PathBuf> {
    let own = root().join("target/interop-venv/bin/python");
    let candidates = [named.map(Path::to_path_buf), Some(own), Some("python3".into()), Some("python".into())];
    candidates.into_iter().flatten().find(|python| can_import(python, "torch, safetensors.torch"))
}

/// Whether this Python has these modules.
pub(super) fn can_import(python: &Path, modules: &str) -> bool {
    python.to_str().is_some_and(|python| succeeds(python, &["-c", &format!("import {modules}")]))
}

/// The script doing nothing: its start, which the others' times contain.
pub(super) fn torch_start(python: &Path, inputs: &Inputs, out: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join(SCRIPT)).arg("start").arg(inputs.base()).arg(out);
    command
}

/// The script's `compress`.
pub(super) fn torch_compress(python: &Path, inputs: &Inputs, n_atoms: usize, out: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join(SCRIPT)).arg("compress").arg(inputs.base()).arg(out);
    command.arg(n_atoms.to_string()).args(inputs.tasks());
    command
}

/// The script's `add`.
pub(super) fn torch_add(python: &Path, inputs: &Inputs, out: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join(SCRIPT)).arg("add").arg(inputs.base()).arg(out).args(inputs.tasks());
    command
}

/// mergekit's task arithmetic over plain tensor files.
pub(super) fn mergekit_add(python: &Path, inputs: &Inputs, out: &Path) -> Result<Command> {
    let mut config = format!("merge_method: task_arithmetic\nbase_model: {}\nmodels:\n", inputs.base().display());
    for task in inputs.tasks() {
        config += &format!("  - model: {}\n    parameters:\n      weight: 0.3\n", task.display());
    }
    let path = out.join("mergekit.yaml");
    std::fs::write(&path, config).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(mergekit(python, &path, out))
}

/// mergekit's merge of plain tensor files by a recipe, with the flags that spare memory.
pub(super) fn mergekit(python: &Path, recipe: &Path, out: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", "from mergekit.scripts.merge_raw_pytorch import main; main()"]).arg(recipe);
    command.arg(out.join("merged")).args(["--lazy-unpickle", "--low-cpu-memory", "--quiet", "--random-seed", "0"]);
    command
}
