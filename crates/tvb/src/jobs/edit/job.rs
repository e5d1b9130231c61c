//! One edit written from end to end: formed, checked, with its side files and model card.

use super::combination::Combination;
use super::output::{EditOutput, writer_for};
use super::weights::{Edit, Source};
use crate::basis::check_read;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Inputs};
use crate::error::{Error, Result};
use crate::jobs::card::{combination_in_words, model_card, weights_in_words};
use crate::ops::outputs::Outputs;
use crate::ops::range::Clipped;
use crate::ops::reconstruct::{Edits, copy_tensors, reconstruct};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::{escaped, shown_path};

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
    /// What the output must leave alone.
    pub fn inputs(&self) -> Inputs {
        let head = self.output.head.iter().fold(self.source.inputs(), |inputs, head| inputs.with(&head.inputs()));
        self.base.iter().fold(head, |inputs, base| inputs.with(&base.inputs()))
    }

    /// Forms the edit and writes it: an edited copy of the base, or the bare edit. Answers what was clipped.
    ///
    /// # Errors
    /// Usage: weights beyond f32, a memory cap that is too low. Rejected: an output that exists, a damaged basis, another
    /// base, inputs that do not fit or were written to meanwhile, values that are not finite or that the format cannot
    /// hold. Failed: I/O, device. Interrupted.
    pub fn write(&self, runtime: &Runtime, progress: &dyn Progress) -> Result<Clipped> {
        let edits = self.edit.edits(self.source)?;
        self.edit.warn_if_far(self.source, progress)?;
        self.write_formed(edits, runtime, progress)
    }

    /// Writes what `edits` forms; the source and the edit say what it is, for the checks and the model card.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_formed(&self, edits: Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<Clipped> {
        self.edit.check(self.source)?;
        let made_of = weights_in_words(self.source, self.edit);
        let writing =
            Writing { source: self.source, base: self.base, output: self.output, inputs: self.inputs(), made_of };
        writing.write(edits, runtime, progress)
    }
}

/// A combination that is to be written: what, from what, onto what, and where.
#[derive(Clone, Copy, Debug)]
pub struct CombinationJob<'a> {
    /// What it is formed from.
    pub source: Source<'a>,
    /// What is combined, for the model card.
    pub combination: &'a Combination,
    /// Factor of the whole.
    pub scale: f64,
    /// The base; not needed for the bare edit.
    pub base: Option<&'a Checkpoint>,
    /// Where it goes.
    pub output: &'a EditOutput,
}

impl CombinationJob<'_> {
    /// Forms the edit and writes it: an edited copy of the base, or the bare edit. Answers what was clipped.
    ///
    /// # Errors
    /// As [`Combination::edits`] and [`EditJob::write`].
    pub fn write(&self, runtime: &Runtime, progress: &dyn Progress) -> Result<Clipped> {
        self.write_formed(self.combination.edits(self.source, self.scale)?, runtime, progress)
    }

    /// Writes what `edits` forms.
    ///
    /// # Errors
    /// As [`EditJob::write`].
    pub fn write_formed(&self, edits: Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<Clipped> {
        let CombinationJob { source, combination, scale, base, output } = *self;
        let own = output.head.iter().fold(source.inputs(), |inputs, head| inputs.with(&head.inputs()));
        let inputs = base.iter().fold(own, |inputs, base| inputs.with(&base.inputs()));
        let made_of = combination_in_words(combination, scale);
        Writing { source, base, output, inputs, made_of }.write(edits, runtime, progress)
    }
}

/// Edits that are formed to be written.
struct Writing<'a> {
    source: Source<'a>,
    base: Option<&'a Checkpoint>,
    output: &'a EditOutput,
    inputs: Inputs,
    /// For the model card.
    made_of: String,
}

impl Writing<'_> {
    fn write(&self, edits: Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<Clipped> {
        let Writing { source, output, .. } = *self;
        let base = self.base.filter(|_| !output.delta);
        if base.is_none() && !output.delta {
            return Err(Error::usage("no base given").hint("--base PATH, or --delta for the bare edit"));
        }
        let mut writers = [writer_for(&edits, base, output, &self.inputs)?];
        if output.scratch {
            writers.iter_mut().for_each(CheckpointWriter::scratch);
        }
        let outputs = Outputs::files(&writers, output.format());
        let mut read = reconstruct(base, edits, outputs, runtime, progress)?;
        if let Source::Basis(basis) = source {
            check_read(&read, basis, base.filter(|_| !output.force))?;
        }
        if let (Some(head), Some(_)) = (&output.head, base) {
            writers.iter_mut().for_each(CheckpointWriter::release);
            let outputs = Outputs::files(&writers, output.format());
            read.clipped = read.clipped.and(copy_tensors(head.checkpoint(), head.names(), outputs, progress)?);
        }
        for writer in writers {
            if let Some(base) = base {
                let id = output.base_model.as_deref();
                let mut card = model_card(base, source, &self.made_of, &output.command, id);
                if let Some(head) = &output.head {
                    card.push_str(&format!("\n{}.\n", escaped(&head.in_words())));
                }
                writer.add_card(&card)?;
            }
            writer.commit()?;
        }
        if !read.clipped.is_none() {
            progress.warn(&format!("{}: {}", shown_path(&output.target), read.clipped));
        }
        Ok(read.clipped)
    }
}
