//! A model in memory that is to be edited: whether it is one that the basis can edit, asked before anything is written.

use crate::basis::Basis;
use crate::checkpoint::{Checkpoint, Lent, Place, Tensor, shown};
use crate::error::{Error, Result};
use crate::ops::outputs::MemoryWriter;
use crate::ops::reconstruct::Edits;
use crate::progress::Progress;
use crate::shown::shown_path;

/// Mismatches that are listed before the rest become a count.
const N_LISTED: usize = 20;

/// A model whose tensors go by the basis' names.
pub(super) struct Model {
    pub(super) checkpoint: Checkpoint,
    /// Name and memory of every tensor that is edited.
    places: Vec<(String, Lent)>,
}

impl Model {
    pub(super) fn of(basis: &Basis, edits: &Edits, model: &Checkpoint, progress: &dyn Progress) -> Result<Model> {
        let (checkpoint, note) = basis.base(model.clone())?;
        note.iter().for_each(|note| progress.note(note));
        let seen = edits.fit.seen(&checkpoint)?;
        let mut places = Vec::new();
        let mut wrong: Vec<String> = Vec::new();
        for (name, shape) in edits.shapes() {
            match seen.get(&name) {
                None => wrong.push(format!("tensor {}: missing", shown(&name))),
                Some(tensor) => match what_is_wrong(tensor, &shape) {
                    Ok(place) => places.push((name, place.clone())),
                    Err(what) => wrong.push(format!("tensor {}: {what}", shown(&name))),
                },
            }
        }
        if wrong.is_empty() {
            return Ok(Model { checkpoint, places });
        }
        let n_more = wrong.len().saturating_sub(N_LISTED);
        let plural = if wrong.len() == 1 { "mismatch" } else { "mismatches" };
        let what = format!("{}: {} {plural} with {}", shown_path(model.path()), wrong.len(), shown_path(&basis.folder));
        let listed = wrong.into_iter().take(N_LISTED);
        Err(Error::rejected(what).below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more")))))
    }

    /// What writes to every tensor that is edited.
    pub(super) fn writer(&self) -> Result<MemoryWriter> {
        let mut writer = MemoryWriter::new(shown_path(self.checkpoint.path()).to_string());
        self.places.iter().for_each(|(name, place)| writer.add(name, place.clone()));
        Ok(writer)
    }
}

/// The memory of a tensor that can be edited, or why it cannot.
fn what_is_wrong<'a>(tensor: &'a Tensor, shape: &[usize]) -> std::result::Result<&'a Lent, String> {
    if tensor.shape != shape {
        return Err(format!("shape {shape:?} expected, {:?} found", tensor.shape));
    }
    if tensor.dtype.float().is_none() {
        return Err(format!("a float type expected, {} found", tensor.dtype));
    }
    match &tensor.place {
        Place::Lent(place) if place.is_writable() => Ok(place),
        Place::Lent(_) => Err("memory that can be written expected, other found".into()),
        _ => Err("a tensor in memory expected, one of a file found".into()),
    }
}
