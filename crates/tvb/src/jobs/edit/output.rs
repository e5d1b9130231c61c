//! Where an edit goes, and in which form.

use super::head::OwnHead;
use crate::checkpoint::names::DIFFERENCE;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Dtype, Existing, Inputs, TensorSpec};
use crate::error::Result;
use crate::ops::outputs::Format;
use crate::ops::reconstruct::{Edits, Source as Formed};
use std::path::PathBuf;

/// What is written, and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EditOutput {
    /// A `.safetensors` file, or a folder.
    pub target: PathBuf,
    /// Format of the float tensors; `None` keeps each tensor's.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// Write the largest finite value of the format in place of one beyond it; otherwise that is an error.
    pub clip: bool,
    /// What to do with an output that is there already.
    pub existing: Existing,
    /// Write the bare edit, without the base.
    pub delta: bool,
    /// Use a base that is not the one the basis was made from.
    pub force: bool,
    /// The command line, for the model card.
    pub command: String,
    /// The base's name on the Hugging Face hub, for model cards; `None` takes what its files say.
    pub base_model: Option<String>,
    /// What the output must leave alone beside the files it is made from.
    pub protect: Inputs,
    /// Tensors that the output takes from a task as they are.
    pub head: Option<OwnHead>,
    /// Nobody needs it after a crash: it appears whole, but is not waited for until it is on the disk.
    pub scratch: bool,
}

impl EditOutput {
    /// An edited copy of the base in the base's own types, to a place where nothing is yet.
    pub fn new(target: impl Into<PathBuf>) -> EditOutput {
        EditOutput {
            target: target.into(),
            dtype: None,
            clip: false,
            existing: Existing::Refuse,
            delta: false,
            force: false,
            command: String::new(),
            base_model: None,
            protect: Inputs::none(),
            head: None,
            scratch: false,
        }
    }

    /// Sets the format of the float tensors; `None` keeps each tensor's.
    #[must_use]
    pub fn dtype(self, dtype: Option<tvb_kernels::Dtype>) -> EditOutput {
        EditOutput { dtype, ..self }
    }

    /// Sets whether values beyond the format are written as its largest finite one.
    #[must_use]
    pub fn clip(self, clip: bool) -> EditOutput {
        EditOutput { clip, ..self }
    }

    /// How the float tensors are stored.
    pub(crate) fn format(&self) -> Format {
        Format { dtype: self.dtype, clip: self.clip }
    }

    /// Sets what to do with an output that is there already.
    #[must_use]
    pub fn existing(self, existing: Existing) -> EditOutput {
        EditOutput { existing, ..self }
    }

    /// Sets whether the bare edit is written, without the base.
    #[must_use]
    pub fn delta(self, delta: bool) -> EditOutput {
        EditOutput { delta, ..self }
    }

    /// Sets whether a base may be used that is not the one the basis was made from.
    #[must_use]
    pub fn force(self, force: bool) -> EditOutput {
        EditOutput { force, ..self }
    }

    /// Sets what the output must leave alone beside the files it is made from.
    #[must_use]
    pub fn protect(self, protect: Inputs) -> EditOutput {
        EditOutput { protect, ..self }
    }

    /// Sets whether it is an output that nobody needs after a crash, and that need not be waited for on its way to the disk.
    #[must_use]
    pub fn scratch(self, scratch: bool) -> EditOutput {
        EditOutput { scratch, ..self }
    }

    /// Sets the tensors that the output takes from a task as they are.
    #[must_use]
    pub fn head(self, head: Option<OwnHead>) -> EditOutput {
        EditOutput { head, ..self }
    }

    /// Sets the base's name on the Hugging Face hub, which [`check_model_id`](crate::jobs::card::check_model_id) takes.
    #[must_use]
    pub fn base_model(self, id: Option<String>) -> EditOutput {
        EditOutput { base_model: id, ..self }
    }

    /// Sets the command line, for the model card.
    #[must_use]
    pub fn command(self, command: impl Into<String>) -> EditOutput {
        EditOutput { command: command.into(), ..self }
    }
}

/// A writer for the tensors that come out of `edits`, which were formed from `inputs`: all of the base's, with what lies beside
/// them, or the edited ones alone.
///
/// # Errors
/// As [`CheckpointWriter::create`] and [`CheckpointWriter::copy_side_files`]. Rejected: one of two tied tensors as a task's own.
pub fn writer_for(
    edits: &Edits,
    base: Option<&Checkpoint>,
    output: &EditOutput,
    inputs: &Inputs,
) -> Result<CheckpointWriter> {
    let inputs = &output.protect.clone().with(inputs);
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
            let mut specs: Vec<TensorSpec> = base.tensors().iter().map(spec).collect();
            if let Some(head) = &output.head {
                head.check(&edits.fit.twins)?;
                specs = head.over(specs, stored);
            }
            // The output keeps the base's own names; it is written under those that the columns know.
            specs.iter_mut().for_each(|spec| spec.name = base.own_name(&spec.name).to_owned());
            let (target, existing) = (&output.target, output.existing);
            let mut writer = CheckpointWriter::create(target, existing, &specs, base.metadata(), Some(base), inputs)?;
            let is_own = |name: &String| output.head.as_ref().is_some_and(|head| head.names().contains(name));
            for twin in edits.fit.twins.iter().filter(|twin| !is_own(&twin.name)) {
                writer.tie(base.own_name(&twin.of), base.own_name(&twin.name))?;
            }
            for tensor in base.tensors() {
                writer.call(base.own_name(&tensor.name), &tensor.name);
            }
            // Before the work, so that what is refused is refused at once.
            writer.copy_side_files(base, output.dtype.map(Dtype::from))?;
            if let Some(head) = &output.head {
                writer.set_config(head.config())?;
                writer.withhold(head.names());
            }
            Ok(writer)
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
                Formed::Coded(atoms) => {
                    let spec = |tensor: &crate::ops::decode::AtomTensor| TensorSpec {
                        name: tensor.name.clone(),
                        dtype: dtype(Dtype::F32),
                        shape: tensor.shape.clone(),
                    };
                    atoms.tensors.iter().map(spec).collect()
                }
                Formed::Checkpoints { origin: like, .. } => {
                    edits.tensors.iter().filter_map(|name| like.get(name)).map(spec).collect()
                }
                Formed::Deltas(columns) => {
                    let like = columns.first().map(|column| &column.checkpoint);
                    edits.tensors.iter().filter_map(|name| like?.get(name)).map(spec).collect()
                }
            };
            // So that it is never taken for a model.
            let (key, value) = DIFFERENCE;
            let metadata = [(key.to_owned(), value.to_owned())].into();
            CheckpointWriter::create(&output.target, output.existing, &specs, &metadata, None, inputs)
        }
    }
}
