//! An edit added to a model in memory: θ += Σ αt·τ̂t, chunk by chunk, each tensor in its own type.
//!
//! What was added cannot be taken off again, so everything that can be known is asked before the first value is written: the
//! names, types and shapes of the model, the checksums of the basis, whether every sum fits its type.

use super::InMemoryOptions;
use super::model::Model;
use crate::basis::{Basis, check_read};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::jobs::edit::{Edit, Source};
use crate::ops::outputs::{Destination, Format, MemoryWriter, Outputs};
use crate::ops::range::Clipped;
use crate::ops::reconstruct::{Edits, Read, reconstruct};
use crate::ops::survey::survey;
use crate::pass::Runtime;
use crate::progress::Progress;

/// What was edited.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Applied {
    /// Tensors that were edited, each counted once where two names are one tensor.
    pub n_tensors: usize,
    /// What was clipped.
    pub clipped: Clipped,
}

/// Adds λ·Σ αt·τ̂t to a model in memory (see [`Checkpoint::in_memory`]), each tensor in the type that it has. Beyond the model this
/// takes a chunk for each thread. The bits are those that `tvb apply` writes to a file on a CPU: the CPU does it here in any case,
/// since what has been edited must not be edited again when a device fails.
///
/// The model is not compared with the base that the basis was made from, since it may have been edited before: names, shapes and
/// types tell whether it is the right one.
///
/// Everything that can be known is asked before the first value is written, and whoever wants to stop is heard until then. So an
/// error leaves the model as it was, but for one that says that it is edited in part: the basis' files could not be read a second
/// time.
///
/// # Errors
/// Usage: weights beyond f32, a memory cap that is too low. Rejected: a model that is not in memory that can be written, lacks
/// tensors or has others, two tensors that share memory and have an edit each, a damaged basis, values that a type cannot hold.
/// Failed: I/O. Interrupted.
pub fn apply_in_place(
    basis: &Basis,
    edit: &Edit,
    model: &Checkpoint,
    options: &InMemoryOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Applied> {
    let edits = edit.edits(Source::Basis(basis))?;
    let model = Model::of(basis, &edits, model, progress)?;
    edit.warn_if_far(Source::Basis(basis), progress)?;
    let (label, format) = (model.label(), Format { dtype: None, clip: options.clip });
    let runtime = Runtime::on_cpu(runtime.n_threads, runtime.memory_bytes).with_budget(runtime.budget.clone());
    let job = Job { basis, model: &model, format, runtime: &runtime };
    job.look_first(&edits, progress)?;
    progress.check()?;
    let writer = model.writer();
    let n_tensors = edits.tensors.len();
    let read = job.write(&writer, edits, progress).map_err(|error| match writer.has_begun() {
        true => error.context(format!("{label}: edited in part")).hint(
            "load the model again: what was added cannot be taken off; `tvb verify` says whether the basis is whole",
        ),
        false => error,
    })?;
    if !read.clipped.is_none() {
        progress.warn(&format!("{label}: {}", read.clipped));
    }
    Ok(Applied { n_tensors, clipped: read.clipped })
}

/// Everything that is given.
struct Job<'a> {
    basis: &'a Basis,
    model: &'a Model,
    format: Format,
    runtime: &'a Runtime,
}

impl Job<'_> {
    /// Whether the edit can be written, with nothing written yet.
    fn look_first(&self, edits: &Edits, progress: &dyn Progress) -> Result<()> {
        let seen = edits.fit.seen(&self.model.checkpoint)?;
        let found = survey(&seen, edits, self.runtime, progress)?;
        check_read(&found.read, self.basis, None)?;
        let is_sure = if self.format.clip { found.largest_edit().is_finite() } else { found.fits() };
        if is_sure {
            return Ok(());
        }
        // Then all of it is formed, and dropped.
        let label = self.model.label();
        let outputs = Outputs { to: Destination::Nowhere(&label), format: self.format };
        let read = reconstruct(Some(&self.model.checkpoint), edits.clone(), outputs, self.runtime, progress)?;
        check_read(&read, self.basis, None)
    }

    fn write(&self, writer: &MemoryWriter, edits: Edits, progress: &dyn Progress) -> Result<Read> {
        let outputs = Outputs { to: Destination::Base(writer), format: self.format };
        let whole = ToItsEnd(progress);
        let read = reconstruct(Some(&self.model.checkpoint), edits, outputs, self.runtime, &whole)?;
        // It was whole when it was looked at.
        check_read(&read, self.basis, None)?;
        Ok(read)
    }
}

/// Shows what another shows, and is never cancelled: half an edit is of no use.
struct ToItsEnd<'a>(&'a dyn Progress);

impl Progress for ToItsEnd<'_> {
    fn begin(&self, stage: &'static str, total_bytes: u64) {
        self.0.begin(stage, total_bytes);
    }

    fn advance(&self, n_bytes: u64) {
        self.0.advance(n_bytes);
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn note(&self, line: &str) {
        self.0.note(line);
    }

    fn warn(&self, line: &str) {
        self.0.warn(line);
    }
}
