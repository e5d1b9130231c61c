//! The checkpoints that jobs are measured on, made again each time in a temporary folder under `target/`.

use crate::process::{Result, root, run as run_command};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the checkpoints are like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A vision transformer's tensors in f32.
    Vit,
    /// A language model's in bf16.
    Gpt2,
}

/// Parameters of CLIP's ViT-B/32 image encoder, about.
pub(super) const FULL: usize = 86_600_000;

/// A base and fine-tunes of one size.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) folder: PathBuf,
    pub(super) n_tasks: usize,
    pub(super) n_parameters: usize,
    kind: Kind,
}

impl Inputs {
    /// Writes them; `make_inputs` is the built program of that name.
    pub(super) fn make(make_inputs: &Path, kind: Kind, n_tasks: usize, n_parameters: usize) -> Result<Inputs> {
        let folder = root().join(format!("target/bench-inputs/{n_tasks}x{n_parameters}"));
        let inputs = Inputs { folder, n_tasks, n_parameters, kind };
        inputs.remove()?;
        let mut command = Command::new(make_inputs);
        command.arg(&inputs.folder).args([n_tasks.to_string(), n_parameters.to_string()]);
        run_command(command.args(match kind {
            Kind::Vit => ["f32", "vit"],
            Kind::Gpt2 => ["bf16", "gpt2"],
        }))?;
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

    /// The base, then the tasks.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        std::iter::once(self.base()).chain(self.tasks()).collect()
    }

    /// Bytes of one checkpoint's tensors.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        let each = match self.kind {
            Kind::Vit => 4,
            Kind::Gpt2 => 2,
        };
        self.n_parameters as u64 * each
    }
}
