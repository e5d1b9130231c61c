//! An edit added to a model in memory: θ += Σ αt·τ̂t, chunk by chunk, each tensor in its own type.

use super::InMemoryOptions;
use super::model::Model;
use crate::basis::{Basis, check_read};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::jobs::edit::{Edit, Source};
use crate::ops::outputs::{Destination, Format, Outputs};
use crate::ops::range::Clipped;
use crate::ops::reconstruct::reconstruct;
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

/// Adds λ·Σ αt·τ̂t to a model in memory (see [`Checkpoint::in_memory`]), in the types that its tensors have. Beyond the model it takes
/// a chunk for each thread.
///
/// The model is not compared with the base that the basis was made from, as it may have been edited before: only names and shapes
/// tell whether it is the right one.
///
/// # Errors
/// Usage: weights beyond f32, a memory cap that is too low. Rejected: a model that is not in memory, lacks tensors or has others, a
/// damaged basis, values that a type cannot hold. Failed: I/O. Interrupted.
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
    let writer = model.writer()?;
    let n_tensors = edits.tensors.len();
    let outputs = Outputs { to: Destination::Base(&writer), format: Format { dtype: None, clip: options.clip } };
    let read = reconstruct(Some(&model.checkpoint), edits, outputs, runtime, progress)?;
    check_read(&read, basis, None).map_err(|error: Error| error)?;
    Ok(Applied { n_tensors, clipped: read.clipped })
}
