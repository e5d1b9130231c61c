//! Recovered task vectors, or with a base recovered checkpoints: several at once in each pass over the atoms.

use crate::basis::{Basis, check_read, edits};
use crate::checkpoint::{
    Checkpoint, CheckpointWriter, Existing, Inputs, Layout, Leftover, StagedOutput, check_output, commit_all,
    remove_stale_lock, shown,
};
use crate::columns::tasks::check_name;
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::jobs::card::{model_card, weights_in_words};
use crate::jobs::edit::{COSINE_MIN, Edit, EditOutput, Source, edit_work, writer_for};
use crate::ops::outputs::{Format, Outputs};
use crate::ops::range::Clipped;
use crate::ops::reconstruct::reconstruct;
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;
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
    /// The base's name on the Hugging Face hub, for model cards; `None` takes what its files say.
    pub base_model: Option<String>,
    /// Scale every task so that its gain is 1: for mixtures, which shrink tasks. It makes their noise larger.
    pub unbiased: bool,
}

impl RecoverOptions {
    /// The tasks at these positions, each in the types they are stored in, into `folder`.
    pub fn new(tasks: Vec<usize>, folder: impl Into<PathBuf>) -> RecoverOptions {
        let (folder, existing) = (folder.into(), Existing::Refuse);
        RecoverOptions {
            tasks,
            folder,
            dtype: None,
            clip: false,
            existing,
            force: false,
            command: String::new(),
            base_model: None,
            unbiased: false,
        }
    }

    /// Sets the format of the float tensors; `None` keeps each tensor's.
    #[must_use]
    pub fn dtype(self, dtype: Option<tvb_kernels::Dtype>) -> RecoverOptions {
        RecoverOptions { dtype, ..self }
    }

    /// Sets whether every task is scaled so that its gain is 1.
    #[must_use]
    pub fn unbiased(self, unbiased: bool) -> RecoverOptions {
        RecoverOptions { unbiased, ..self }
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

    /// Sets the base's name on the Hugging Face hub, which [`check_model_id`](crate::jobs::card::check_model_id) takes.
    #[must_use]
    pub fn base_model(self, id: Option<String>) -> RecoverOptions {
        RecoverOptions { base_model: id, ..self }
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

/// Recovers the chosen tasks; answers where each was written. All of them appear, or none.
///
/// A folder that is not there yet appears with everything in it. In one that is there the outputs appear when the last one is
/// complete.
///
/// # Errors
/// Usage: no task, or one that is named twice. Rejected: an output that exists or is an input, a damaged basis, another base.
/// Failed: I/O, device. Interrupted.
pub fn recover(
    basis: &Basis,
    base: Option<&Checkpoint>,
    options: &RecoverOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let job = Recovery { basis, base, options, names: basis.task_names(), inputs: inputs(basis, base) };
    let targets = job.targets()?;
    job.warn_of_far(progress);
    let folder = &options.folder;
    let clipped;
    if folder.exists() || folder.is_symlink() {
        for target in &targets {
            check_output(CheckpointWriter::kind(target)?, target, options.existing, &job.inputs)?;
        }
        let (staged, of_all) = job.form(folder, runtime, progress)?;
        commit_all(staged)?;
        clipped = of_all;
        // Of a run that was killed just after the whole folder had appeared.
        remove_stale_lock(folder);
    } else {
        let whole = StagedOutput::folder(folder, Existing::Refuse, Leftover::Clear, &job.inputs)?;
        let (staged, of_all) = job.form(whole.path(), runtime, progress)?;
        commit_all(staged)?;
        clipped = of_all;
        whole.commit()?;
    }
    if !clipped.is_none() {
        progress.warn(&format!("{}: {clipped}", shown_path(folder)));
    }
    // Absolute, so that they stay true when the current folder changes.
    let written = targets.into_iter().map(|target| std::path::absolute(&target).unwrap_or(target)).collect();
    Ok(Recovered { written, clipped })
}

/// The passes that [`recover`] makes, for the choice of a device.
pub fn recover_work(basis: &Basis, base: Option<&Checkpoint>, options: &RecoverOptions) -> Work {
    let passes = options.tasks.chunks(OUTPUTS_PER_PASS);
    let works = passes.map(|tasks| edit_work(Source::Basis(basis), base, tasks.len(), tasks.len(), options.dtype));
    works.fold(Work::default(), Work::and)
}

fn inputs(basis: &Basis, base: Option<&Checkpoint>) -> Inputs {
    base.iter().fold(basis.inputs(), |inputs, base| inputs.with(&base.inputs()))
}

/// Everything that is given.
struct Recovery<'a> {
    basis: &'a Basis,
    base: Option<&'a Checkpoint>,
    options: &'a RecoverOptions,
    names: Vec<String>,
    inputs: Inputs,
}

impl Recovery<'_> {
    fn name(&self, task: usize) -> Result<&String> {
        let n_tasks = self.names.len();
        self.names.get(task).ok_or_else(|| Error::usage(format!("task number {task}: one of {n_tasks} expected")))
    }

    /// Where each task goes.
    fn targets(&self) -> Result<Vec<PathBuf>> {
        let mut seen: Vec<String> = Vec::with_capacity(self.options.tasks.len());
        let targets = self.options.tasks.iter().map(|&task| {
            let name = self.name(task)?;
            // Where the file system knows no case, these are one file.
            let one = if cfg!(any(windows, target_vendor = "apple")) { name.to_lowercase() } else { name.clone() };
            if seen.contains(&one) {
                return Err(Error::usage(format!("task {}: asked for twice", shown(name))));
            }
            seen.push(one);
            self.target(&self.options.folder, task)
        });
        let targets: Vec<PathBuf> = targets.collect::<Result<_>>()?;
        if targets.is_empty() { Err(Error::usage("no task to recover")) } else { Ok(targets) }
    }

    /// Where a task goes in `folder`: right in it, whatever its name is.
    fn target(&self, folder: &Path, task: usize) -> Result<PathBuf> {
        let name = self.name(task)?;
        let target = target(folder, name, self.base);
        let end = Path::new(target.file_name().unwrap_or_default());
        let is_inside = check_name(name).is_ok() && target == folder.join(end) && target.parent() == Some(folder);
        if is_inside {
            return Ok(target);
        }
        Err(Error::rejected(format!(
            "{}: task {}: a name that can be a file's expected",
            shown_path(&self.basis.folder),
            shown(name)
        )))
    }

    /// Warns of tasks of which the basis gives something else, by what its manifest says of them.
    fn warn_of_far(&self, progress: &dyn Progress) {
        let cosine = |&task: &usize| {
            let record = self.basis.manifest.tasks.get(task)?;
            let (gain, noise) = (record.gain?, record.noise?);
            let cosine = gain / (gain * gain + noise.max(0.0)).sqrt();
            (cosine < COSINE_MIN).then_some((cosine, &record.name))
        };
        let far: Vec<(f64, &String)> = self.options.tasks.iter().filter_map(cosine).collect();
        if let Some((cosine, name)) = far.iter().min_by(|a, b| a.0.total_cmp(&b.0)) {
            progress.warn(&format!(
                "{}: {} of {} tasks come out with a cosine below {COSINE_MIN} to the originals, the worst is {} with {cosine:.4}",
                shown_path(&self.basis.folder),
                far.len(),
                self.options.tasks.len(),
                shown(name)
            ));
        }
    }

    fn single(&self, task: usize) -> Result<Edit> {
        let mut alpha = vec![0.0; self.names.len()];
        if let Some(weight) = alpha.get_mut(task) {
            *weight = 1.0;
        }
        let edit = Edit::new(alpha, 1.0);
        if !self.options.unbiased {
            return Ok(edit);
        }
        let folder = shown_path(&self.basis.folder);
        let Some(fidelity) = edit.predict(self.basis)? else {
            return Err(Error::rejected(format!("{folder}: a Gram matrix expected, without it no gain is known"))
                .hint("leave out --gain"));
        };
        let scale = 1.0 / fidelity.gain();
        if !(scale.is_finite() && scale > 0.0) {
            let name = shown(self.name(task)?).to_string();
            return Err(Error::rejected(format!(
                "{folder}, task {name}: a gain above 0 expected, {:.4} found: nothing of it is left to scale",
                fidelity.gain()
            ))
            .hint("recover it with --gain none, or leave it out"));
        }
        Ok(Edit { scale, ..edit })
    }

    /// Forms every output in `folder`, several in each pass; none has appeared yet.
    fn form(&self, folder: &Path, runtime: &Runtime, progress: &dyn Progress) -> Result<(Vec<StagedOutput>, Clipped)> {
        let Recovery { basis, base, options, .. } = *self;
        let mut staged = Vec::with_capacity(options.tasks.len());
        let mut clipped = Clipped::default();
        for tasks in options.tasks.chunks(OUTPUTS_PER_PASS) {
            let weights: Vec<Vec<f64>> =
                tasks.iter().map(|&task| self.single(task)?.weights(Source::Basis(basis))).collect::<Result<_>>()?;
            let edits = edits(basis, &weights)?;
            let writer = |&task: &usize| {
                let output = EditOutput::new(self.target(folder, task)?)
                    .dtype(options.dtype)
                    .clip(options.clip)
                    .existing(options.existing)
                    .delta(base.is_none())
                    .force(options.force)
                    .command(&options.command);
                writer_for(&edits, base, &output, &self.inputs)
            };
            let writers: Vec<CheckpointWriter> = tasks.iter().map(writer).collect::<Result<_>>()?;
            let format = Format { dtype: options.dtype, clip: options.clip };
            let read = reconstruct(base, edits, Outputs::files(&writers, format), runtime, progress)?;
            check_read(&read, basis, base.filter(|_| !options.force))?;
            for (writer, &task) in writers.into_iter().zip(tasks) {
                if let Some(base) = base {
                    let (edit, id) = (self.single(task)?, options.base_model.as_deref());
                    let source = Source::Basis(basis);
                    let made_of = weights_in_words(source, &edit);
                    writer.add_card(&model_card(base, source, &made_of, &options.command, id))?;
                }
                // Its files are closed; only its lock stays open.
                staged.push(writer.finish()?);
            }
            clipped = clipped.and(read.clipped);
        }
        Ok((staged, clipped))
    }
}

/// `FOLDER/NAME.safetensors`, or a folder of that name where the base is one.
pub(crate) fn target(folder: &Path, name: &str, base: Option<&Checkpoint>) -> PathBuf {
    let is_file =
        |base: &Checkpoint| matches!(base.layout(), Layout::SafetensorsFile | Layout::TorchFile | Layout::InMemory);
    let is_folder = base.is_some_and(|base| !is_file(base));
    if is_folder { folder.join(name) } else { folder.join(format!("{name}.safetensors")) }
}
