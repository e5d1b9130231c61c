//! Candidates of a fit: formed one at a time, each in one pass over columns that are open, and evaluated.

use super::options::FitOptions;
use crate::checkpoint::{Checkpoint, Existing};
use crate::error::Result;
use crate::jobs::edit::{Combination, CombinationJob, EditOutput, Mixer, Source};
use crate::jobs::evaluate::{Metrics, Session};
use crate::jobs::recover;
use crate::jobs::trying::remove;
use crate::pass::Runtime;
use crate::progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Forms and evaluates candidates.
pub(super) struct Candidates<'a> {
    pub source: Source<'a>,
    pub mixer: Mixer<'a>,
    pub base: &'a Checkpoint,
    pub options: &'a FitOptions,
    pub runtime: &'a Runtime,
    /// Names and blocks.
    pub shape: &'a Combination,
    /// One at a time, each by all threads.
    pub forming: Mutex<()>,
}

impl Candidates<'_> {
    fn folder(&self) -> PathBuf {
        self.options.output.join("candidates")
    }

    /// Where the best candidate is kept.
    pub(super) fn best_path(&self) -> PathBuf {
        recover::target(&self.options.output, "best", Some(self.base))
    }

    /// Coefficients from a row of numbers, block after block.
    pub(super) fn rows(&self, values: &[f64]) -> Vec<Vec<f64>> {
        values.chunks(self.shape.names.len().max(1)).map(<[f64]>::to_vec).collect()
    }

    /// Writes the candidate, evaluates it and removes it.
    pub(super) fn evaluate(
        &self,
        session: &mut Session<'_>,
        name: &str,
        values: &[Vec<f64>],
        progress: &dyn Progress,
    ) -> Result<Metrics> {
        let path = recover::target(&self.folder(), name, Some(self.base));
        self.form_as(values, self.output(&path).scratch(true), progress)?;
        let metrics = session.run(&path, None, progress);
        remove(&path)?;
        metrics
    }

    /// Writes the candidate to `target`, to stay.
    pub(super) fn form(&self, values: &[Vec<f64>], target: &Path, progress: &dyn Progress) -> Result<()> {
        self.form_as(values, self.output(target), progress)
    }

    fn form_as(&self, values: &[Vec<f64>], output: EditOutput, progress: &dyn Progress) -> Result<()> {
        let _one = self.forming.lock().unwrap_or_else(PoisonError::into_inner);
        let combination = Combination { values: values.to_vec(), ..self.shape.clone() };
        let (source, base) = (self.source, Some(self.base));
        let job = CombinationJob { source, combination: &combination, scale: 1.0, base, output: &output };
        job.write_formed(self.mixer.edits(values)?, self.runtime, progress)?;
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
        // Only when it is empty.
        let _ = std::fs::remove_dir(self.folder());
    }
}
