//! Candidates: the edit formed once, as one f32 delta, and every scale one pass over the base and that delta.

use super::options::SweepOptions;
use crate::checkpoint::{Checkpoint, Existing, OpenOptions};
use crate::error::Result;
use crate::jobs::edit::{Edit, EditJob, EditOutput, Source};
use crate::jobs::evaluate::{Metrics, Session};
use crate::jobs::recover;
use crate::jobs::trying::remove;
use crate::ops::reconstruct::Edits;
use crate::pass::Runtime;
use crate::progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Forms and evaluates candidates; what it wrote for itself is removed when it is dropped.
pub(super) struct Candidates<'a> {
    pub source: Source<'a>,
    pub edit: &'a Edit,
    pub base: &'a Checkpoint,
    pub options: &'a SweepOptions,
    pub runtime: &'a Runtime,
    /// The bare edit at scale 1, once it was formed. Candidates are formed one at a time, each by all threads.
    delta: Mutex<Option<Checkpoint>>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        source: Source<'a>,
        edit: &'a Edit,
        base: &'a Checkpoint,
        options: &'a SweepOptions,
        runtime: &'a Runtime,
    ) -> Candidates<'a> {
        Candidates { source, edit, base, options, runtime, delta: Mutex::new(None) }
    }

    fn delta_path(&self) -> PathBuf {
        self.options.output.join("edit.safetensors")
    }

    fn folder(&self) -> PathBuf {
        self.options.output.join("candidates")
    }

    /// Where the best candidate is kept.
    pub(super) fn best_path(&self) -> PathBuf {
        recover::target(&self.options.output, "best", Some(self.base))
    }

    /// Writes the candidate at `scale`, evaluates it and, unless it is to be kept, removes it.
    pub(super) fn evaluate(&self, session: &mut Session<'_>, scale: f64, progress: &dyn Progress) -> Result<Metrics> {
        let path = recover::target(&self.folder(), &format!("scale-{scale}"), Some(self.base));
        self.form_as(scale, self.output(&path).scratch(!self.options.keep_all), progress)?;
        let metrics = session.run(&path, Some(scale), progress);
        if !self.options.keep_all {
            remove(&path)?;
        }
        metrics
    }

    /// Writes the candidate at `scale` to `target`, to stay.
    pub(super) fn form(&self, scale: f64, target: &Path, progress: &dyn Progress) -> Result<()> {
        self.form_as(scale, self.output(target), progress)
    }

    fn form_as(&self, scale: f64, output: EditOutput, progress: &dyn Progress) -> Result<()> {
        let mut delta = self.delta.lock().unwrap_or_else(PoisonError::into_inner);
        let formed = match &*delta {
            Some(formed) => formed.clone(),
            None => {
                let path = self.delta_path();
                let unscaled = Edit { scale: 1.0, ..self.edit.clone() };
                let output = self.output(&path).delta(true).scratch(true).dtype(Some(tvb_kernels::Dtype::F32));
                EditJob { source: self.source, edit: &unscaled, base: None, output: &output }
                    .write(self.runtime, progress)?;
                let options = OpenOptions { budget: self.runtime.budget.clone(), ..OpenOptions::default() };
                delta.insert(Checkpoint::open_with(&path, &options)?).clone()
            }
        };
        let scaled = Edit { scale, ..self.edit.clone() };
        let edits = Edits::from_delta(formed, scale, self.source.fit().clone());
        let job = EditJob { source: self.source, edit: &scaled, base: Some(self.base), output: &output };
        job.write_formed(edits, self.runtime, progress)?;
        Ok(())
    }

    fn output(&self, target: &Path) -> EditOutput {
        // What a killed run left is in the way of nothing.
        EditOutput::new(target)
            .dtype(self.options.dtype)
            .clip(self.options.clip)
            .existing(Existing::Replace)
            .force(self.options.force)
            .protect(self.options.protect.clone())
            .command(&self.options.command)
            .base_model(self.options.base_model.clone())
    }
}

impl Drop for Candidates<'_> {
    fn drop(&mut self) {
        let _ = remove(&self.delta_path());
        // Only when it is empty.
        let _ = std::fs::remove_dir(self.folder());
    }
}
