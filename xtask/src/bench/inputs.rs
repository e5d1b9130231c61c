//! The checkpoints that jobs are measured on, made again each time in a temporary folder under `target/`.

use crate::process::{Result, root, run as run_command};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A base and fine-tunes of one size.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) folder: PathBuf,
    pub(super) n_tasks: usize,
    pub(super) n_parameters: usize,
}

impl Inputs {
    /// Writes them; `make_inputs` is the built program of that name.
    pub(super) fn make(make_inputs: &Path, n_tasks: usize, n_parameters: usize) -> Result<Inputs> {
        let folder = root().join(format!("target/bench-inputs/{n_tasks}x{n_parameters}"));
        let inputs = Inputs { folder, n_tasks, n_parameters };
        inputs.remove()?;
        let mut command = Command::new(make_inputs);
        run_command(command.arg(&inputs.folder).args([n_tasks.to_string(), n_parameters.to_string()]))?;
        Ok(inputs)
    }

    /// Takes the folder away.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn base(&self) -> PathBuf {
        self.folder.join("base.safetensors")
    }

    pub(super) fn tasks(&self) -> Vec<PathBuf> {
        (0..self.n_tasks).map(|task| self.folder.join(format!("task{task:03}.safetensors"))).collect()
    }

    /// Bytes of one checkpoint's tensors.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.n_parameters as u64 * 4
    }
}
