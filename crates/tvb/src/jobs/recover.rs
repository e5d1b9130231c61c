//! Recovered task vectors, or with a base recovered checkpoints: several at once in each pass over the atoms.

use crate::basis::{Basis, check_read, edits};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Existing, Layout};
use crate::error::Result;
use crate::jobs::edit::{Edit, EditOutput, Source, writer_for};
use crate::ops::outputs::{Format, Outputs};
use crate::ops::range::Clipped;
use crate::ops::reconstruct::reconstruct;
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;
use crate::solve::Rule;
use std::path::{Path, PathBuf};

/// Outputs formed in one pass over the atoms.
const OUTPUTS_PER_PASS: usize = 8;

/// What is recovered, and how it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoverOptions {
    /// Positions of the tasks.
    pub tasks: Vec<usize>,
    /// The folder for the outputs, one for each task, named after it.
    pub folder: PathBuf,
    /// Format of the float tensors; `None` keeps each tensor's.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// Write the largest finite value of the format in place of one beyond it; otherwise that is an error.
    pub clip: bool,
    /// What to do with an output that is there already.
    pub existing: Existing,
    /// Use a base that is not the one the basis was made from.
    pub force: bool,
    /// The command line, for model cards.
    pub command: String,
}

impl RecoverOptions {
    /// The tasks at these positions, each in the types they are stored in, into `folder`.
    pub fn new(tasks: Vec<usize>, folder: impl Into<PathBuf>) -> RecoverOptions {
        let (folder, existing) = (folder.into(), Existing::Refuse);
        RecoverOptions { tasks, folder, dtype: None, clip: false, existing, force: false, command: String::new() }
    }

    /// Sets the format of the float tensors; `None` keeps each tensor's.
    #[must_use]
    pub fn dtype(self, dtype: Option<tvb_kernels::Dtype>) -> RecoverOptions {
        RecoverOptions { dtype, ..self }
    }

    /// Sets whether values beyond the format are written as its largest finite one.
    #[must_use]
    pub fn clip(self, clip: bool) -> RecoverOptions {
        RecoverOptions { clip, ..self }
    }

    /// Sets what to do with an output that is there already.
    #[must_use]
    pub fn existing(self, existing: Existing) -> RecoverOptions {
        RecoverOptions { existing, ..self }
    }

    /// Sets whether a base may be used that is not the one the basis was made from.
    #[must_use]
    pub fn force(self, force: bool) -> RecoverOptions {
        RecoverOptions { force, ..self }
    }

    /// Sets the command line, for model cards.
    #[must_use]
    pub fn command(self, command: impl Into<String>) -> RecoverOptions {
        RecoverOptions { command: command.into(), ..self }
    }
}

/// What was recovered.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// Where each task was written, in the order asked for.
    pub written: Vec<PathBuf>,
    /// What was clipped, all outputs together.
    pub clipped: Clipped,
}

/// Recovers the chosen tasks; answers where each was written.
///
/// # Errors
/// Rejected: an output that exists, a damaged basis, another base. Failed: I/O, device. Interrupted.
pub fn recover(
    basis: &Basis,
    base: Option<&Checkpoint>,
    options: &RecoverOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let names = basis.task_names();
    let mut recovered = Recovered::default();
    for tasks in options.tasks.chunks(OUTPUTS_PER_PASS) {
        let single = |task: usize| {
            let mut alpha = vec![0.0; names.len()];
            alpha[task] = 1.0;
            Edit { alpha, scale: 1.0, rule: Rule::Projected }
        };
        let weights: Vec<Vec<f64>> =
            tasks.iter().map(|&task| single(task).weights(Source::Basis(basis))).collect::<Result<_>>()?;
        let edits = edits(basis, &weights)?;
        let output = |task: usize| {
            EditOutput::new(target(&options.folder, &names[task], base))
                .dtype(options.dtype)
                .clip(options.clip)
                .existing(options.existing)
                .delta(base.is_none())
                .force(options.force)
                .command(&options.command)
        };
        let writers: Vec<CheckpointWriter> =
            tasks.iter().map(|&task| writer_for(&edits, base, &output(task))).collect::<Result<_>>()?;
        let format = Format { dtype: options.dtype, clip: options.clip };
        let read = reconstruct(base, edits, Outputs { writers: &writers, format }, runtime, progress)?;
        check_read(&read, basis, base.filter(|_| !options.force))?;
        for (writer, &task) in writers.into_iter().zip(tasks) {
            if let Some(base) = base {
                let card = crate::jobs::card::model_card(base, Source::Basis(basis), &single(task), &options.command);
                writer.add_side_files(base, options.dtype.map(Into::into), &card)?;
            }
            recovered.written.push(writer.target().to_owned());
            writer.commit()?;
        }
        recovered.clipped = recovered.clipped.and(read.clipped);
    }
    if !recovered.clipped.is_none() {
        progress.warn(&format!("{}: {}", shown_path(&options.folder), recovered.clipped));
    }
    Ok(recovered)
}

/// `FOLDER/NAME.safetensors`, or a folder of that name where the base is one.
pub(crate) fn target(folder: &Path, name: &str, base: Option<&Checkpoint>) -> PathBuf {
    let is_folder =
        base.is_some_and(|base| matches!(base.layout(), Layout::SafetensorsFolder { .. } | Layout::TorchFolder { .. }));
    if is_folder { folder.join(name) } else { folder.join(format!("{name}.safetensors")) }
}
