//! One edit from end to end: weights over tasks, what they become over atoms, how true the result will be, and the
//! edited checkpoint itself.

use crate::basis::{self, Basis, check_read};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Dtype, Existing, TensorSpec};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::card::model_card;
use crate::ops::reconstruct::{Edits, Source as Formed, reconstruct};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::{Fidelity, Gram, Rule, edit_fidelity};
use std::path::PathBuf;

/// What an edit is formed from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A basis: weights over tasks become weights over atoms.
    Basis(&'a Basis),
    /// The original checkpoints: plain task arithmetic.
    Checkpoints(&'a Plan),
}

/// λ·Σ αt·τ̂t, or λ times the plain sum of the atoms.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// α over the tasks, without λ.
    pub alpha: Vec<f64>,
    /// λ.
    pub scale: f64,
    /// How atoms are combined.
    pub rule: Rule,
}

impl Edit {
    /// Weights over the columns of `source`, λ included.
    ///
    /// # Errors
    /// Rejected: a basis whose coefficients do not fit together.
    pub fn weights(&self, source: Source<'_>) -> Result<Vec<f64>> {
        let weights = match source {
            Source::Basis(basis) => basis.solved()?.weights(&self.alpha, self.rule),
            Source::Checkpoints(_) => self.alpha.clone(),
        };
        Ok(weights.into_iter().map(|weight| weight * self.scale).collect())
    }

    /// What has to be streamed for it.
    ///
    /// # Errors
    /// Rejected: a basis that is damaged or whose parts do not fit together. Failed: I/O.
    pub fn edits(&self, source: Source<'_>) -> Result<Edits> {
        let weights = self.weights(source)?;
        match source {
            Source::Basis(basis) => basis::edits(basis, &[weights]),
            Source::Checkpoints(plan) => Ok(Edits::from_checkpoints(plan, &[weights])),
        }
    }

    /// How true the edit from a basis is to the same edit from the originals; `None` where the basis does not know its Gram
    /// matrix (an imported one).
    ///
    /// # Errors
    /// Rejected: a basis whose coefficients do not fit together.
    pub fn predict(&self, basis: &Basis) -> Result<Option<Fidelity>> {
        let Some(gram) = basis.total_gram() else { return Ok(None) };
        let coefficients = basis.solved()?;
        if coefficients.encode.n_columns() == 0 && coefficients.generated.is_none() {
            return Ok(None);
        }
        edit_fidelity(&Gram::new(gram)?, &coefficients, &self.alpha, self.rule).map(Some)
    }
}

/// What is written, and where.
#[derive(Clone, Debug)]
pub struct EditOutput {
    /// A `.safetensors` file, or a folder.
    pub target: PathBuf,
    /// Format of the float tensors; `None` keeps each tensor's.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// What to do with an output that is there already.
    pub existing: Existing,
    /// Write the bare edit, without the base.
    pub delta: bool,
    /// Use a base that is not the one the basis was made from.
    pub force: bool,
    /// The command line, for the model card.
    pub command: String,
}

/// An edit that is to be written: what, from what, onto what, and where.
#[derive(Clone, Copy, Debug)]
pub struct EditJob<'a> {
    /// What it is formed from.
    pub source: Source<'a>,
    /// The edit.
    pub edit: &'a Edit,
    /// The base; not needed for the bare edit.
    pub base: Option<&'a Checkpoint>,
    /// Where it goes.
    pub output: &'a EditOutput,
}

impl EditJob<'_> {
    /// Forms the edit and writes it: an edited copy of the base, or the bare edit.
    ///
    /// # Errors
    /// Rejected: an output that exists, a damaged basis, another base, inputs that do not fit. Failed: I/O, device.
    /// Interrupted.
    pub fn write(&self, runtime: &Runtime, progress: &dyn Progress) -> Result<()> {
        self.write_formed(self.edit.edits(self.source)?, runtime, progress)
    }

    /// Writes what `edits` forms; the source and the edit say what it is, for the checks and the model card.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_formed(&self, edits: Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<()> {
        let EditJob { source, edit, output, .. } = *self;
        let base = self.base.filter(|_| !output.delta);
        if base.is_none() && !output.delta {
            return Err(Error::usage("no base given").hint("--base PATH, or --delta for the bare edit"));
        }
        let writers = [writer_for(&edits, base, output)?];
        let read = reconstruct(base, edits, output.dtype, &writers, runtime, progress)?;
        if let Source::Basis(basis) = source {
            check_read(&read, basis, base.filter(|_| !output.force))?;
        }
        for writer in writers {
            if let Some(base) = base {
                let card = model_card(base, source, edit, &output.command);
                writer.add_side_files(base, output.dtype.map(Dtype::from), &card)?;
            }
            writer.commit()?;
        }
        Ok(())
    }
}

/// A writer for the tensors that come out of `edits`: all of the base's, or the edited ones alone.
///
/// # Errors
/// As [`CheckpointWriter::create`].
pub fn writer_for(edits: &Edits, base: Option<&Checkpoint>, output: &EditOutput) -> Result<CheckpointWriter> {
    let stored = |dtype: Dtype| match (dtype.float(), output.dtype) {
        (Some(_), Some(asked)) => Dtype::from(asked),
        _ => dtype,
    };
    let spec = |tensor: &crate::checkpoint::Tensor| TensorSpec {
        name: tensor.name.clone(),
        dtype: stored(tensor.dtype),
        shape: tensor.shape.clone(),
    };
    match base {
        Some(base) => {
            let specs: Vec<TensorSpec> = base.tensors().iter().map(spec).collect();
            CheckpointWriter::create(&output.target, output.existing, &specs, base.metadata(), Some(base))
        }
        None => {
            let dtype = |own: Dtype| output.dtype.map_or(own, Dtype::from);
            let specs: Vec<TensorSpec> = match &edits.source {
                Formed::Generated(raw) => {
                    let spec = |(name, shape): &(String, Vec<usize>)| TensorSpec {
                        name: name.clone(),
                        dtype: dtype(Dtype::F32),
                        shape: shape.clone(),
                    };
                    raw.tensors.iter().map(spec).collect()
                }
                Formed::Checkpoints { origin: like, .. } => {
                    edits.tensors.iter().filter_map(|name| like.get(name)).map(spec).collect()
                }
                Formed::Deltas(columns) => {
                    let like = columns.first().ok_or_else(|| Error::usage("an edit of nothing"))?;
                    edits.tensors.iter().filter_map(|name| like.checkpoint.get(name)).map(spec).collect()
                }
            };
            CheckpointWriter::create(&output.target, output.existing, &specs, &Default::default(), None)
        }
    }
}
