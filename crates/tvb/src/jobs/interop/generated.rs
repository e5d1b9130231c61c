//! Atoms that are made from a seed or decoded, written as files for formats that know plain atoms only.

use crate::basis::atoms::plain;
use crate::basis::{Basis, check_read, edits};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Inputs, OpenOptions};
use crate::error::{Error, Result};
use crate::jobs::edit::{EditOutput, writer_for};
use crate::ops::outputs::{Format, Outputs};
use crate::ops::reconstruct::reconstruct;
use crate::pass::Runtime;
use crate::progress::Progress;
use std::path::Path;

/// Writes the atoms into a new folder: they are the edits with weight 1 on one atom each.
pub(super) fn make_atoms(
    basis: &Basis,
    folder: &Path,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<Checkpoint>> {
    let n_atoms = basis.manifest.n_vectors();
    let alone = |atom: usize| (0..n_atoms).map(|m| if m == atom { 1.0 } else { 0.0 }).collect();
    let edits = edits(basis, &(0..n_atoms).map(alone).collect::<Vec<Vec<f64>>>())?;
    std::fs::create_dir(folder).map_err(|error| Error::io("making", folder, &error))?;
    let output = |index: usize| {
        EditOutput::new(folder.join(plain::stem(index, n_atoms)).with_extension("safetensors")).delta(true)
    };
    let writers: Vec<CheckpointWriter> =
        (0..n_atoms).map(|index| writer_for(&edits, None, &output(index), &Inputs::none())).collect::<Result<_>>()?;
    let outputs = Outputs::files(&writers, Format::default());
    let read = reconstruct(None, edits, outputs, runtime, progress)?;
    check_read(&read, basis, None)?;
    for writer in writers {
        writer.commit()?;
    }
    let options = OpenOptions { budget: runtime.budget.clone(), ..OpenOptions::default() };
    (0..n_atoms).map(|index| Checkpoint::open_with(&output(index).target, &options)).collect()
}
