//! A model in memory that is to be edited: whether the basis can edit it, asked before anything is written.

use crate::basis::Basis;
use crate::checkpoint::{Checkpoint, Lent, Place, Tensor, shown};
use crate::columns::fit::Twin;
use crate::error::{Error, Result};
use crate::ops::outputs::MemoryWriter;
use crate::ops::reconstruct::Edits;
use crate::progress::Progress;
use crate::shown::shown_path;

/// Mismatches that are listed before the rest become a count.
const N_LISTED: usize = 20;
/// Bytes that are compared at once.
const PIECE_BYTES: usize = 1 << 16;

/// A model whose tensors go by the basis' names.
pub(super) struct Model {
    pub(super) checkpoint: Checkpoint,
    /// Name and memory of every tensor that is edited; a name stands there twice where its tensor lies in two places.
    places: Vec<(String, Lent)>,
}

impl Model {
    /// Looks at every tensor that the edits are for.
    ///
    /// # Errors
    /// Rejected: every mismatch, listed.
    pub(super) fn of(basis: &Basis, edits: &Edits, model: &Checkpoint, progress: &dyn Progress) -> Result<Model> {
        let (checkpoint, note) = basis.base(model.clone())?;
        note.iter().for_each(|note| progress.note(note));
        let seen = edits.fit.seen(&checkpoint)?;
        let mut found = Model { places: Vec::new(), checkpoint };
        let mut wrong: Vec<String> = Vec::new();
        for (name, shape) in edits.shapes() {
            let place = match seen.get(&name) {
                None => Err("missing".to_owned()),
                Some(tensor) => place_of(tensor, &shape),
            };
            match place {
                Ok(place) => found.places.push((name, place)),
                Err(what) => wrong.push(format!("tensor {}: {what}", shown(&name))),
            }
        }
        for twin in &edits.fit.twins {
            match found.second_place(twin, progress) {
                Ok(place) => found.places.extend(place.map(|place| (twin.of.clone(), place))),
                Err(error) if error.kind() == crate::ErrorKind::Interrupted => return Err(error),
                Err(error) => wrong.push(format!("tensor {}: {}", shown(&twin.name), error.message())),
            }
        }
        wrong.extend(found.shared());
        if wrong.is_empty() {
            return Ok(found);
        }
        let n_more = wrong.len().saturating_sub(N_LISTED);
        let plural = if wrong.len() == 1 { "mismatch" } else { "mismatches" };
        let what = format!("{}: {} {plural} with {}", found.label(), wrong.len(), shown_path(&basis.folder));
        let listed = wrong.into_iter().take(N_LISTED);
        Err(Error::rejected(what)
            .below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more"))))
            .hint("nothing was edited; give the model that the basis was made from, or one of its fine-tunes"))
    }

    /// What messages call it.
    pub(super) fn label(&self) -> String {
        shown_path(self.checkpoint.path()).to_string()
    }

    /// What writes to every tensor that is edited.
    pub(super) fn writer(&self) -> MemoryWriter {
        let mut writer = MemoryWriter::new(self.label());
        self.places.iter().for_each(|(name, place)| writer.add(name, place.clone()));
        writer
    }

    /// Where the second name of an edited tensor has memory of its own: the same values as the first, since both become the edited
    /// first.
    fn second_place(&self, twin: &Twin, progress: &dyn Progress) -> Result<Option<Lent>> {
        let Some(second) = self.checkpoint.get(&twin.name) else { return Ok(None) };
        let Some(first) = self.checkpoint.get(&twin.of) else { return Ok(None) };
        let is_edited = |place: &Lent| self.places.iter().any(|(_, known)| known.address() == place.address());
        let expected = || format!("one tensor with {} in the basis", shown(&twin.of));
        if (first.dtype, &first.shape) != (second.dtype, &second.shape) {
            return Err(Error::rejected(format!("{}, and of another type or shape here", expected())));
        }
        let place = place_of(second, &first.shape).map_err(Error::rejected)?;
        if is_edited(&place) {
            return Ok(None);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for at in (0..first.n_bytes()).step_by(PIECE_BYTES) {
            progress.check()?;
            let n_bytes = (first.n_bytes() - at).min(PIECE_BYTES as u64) as usize;
            left.resize(n_bytes, 0);
            right.resize(n_bytes, 0);
            self.checkpoint.read(first, at, &mut left)?;
            self.checkpoint.read(second, at, &mut right)?;
            if left != right {
                return Err(Error::rejected(format!("{}, and they differ here", expected())));
            }
        }
        Ok(Some(place))
    }

    /// Tensors that have memory in common, each of which has an edit of its own: it would get both.
    fn shared(&self) -> Vec<String> {
        let mut places: Vec<&(String, Lent)> = self.places.iter().filter(|(_, place)| !place.is_empty()).collect();
        places.sort_by_key(|(_, place)| place.address());
        let mut shared = Vec::new();
        let mut before: Option<&(String, Lent)> = None;
        for own in places {
            if let Some((name, place)) = before
                && place.address() + place.len() > own.1.address()
            {
                let (name, own) = (shown(name), shown(&own.0));
                shared.push(format!("tensor {own}: has memory in common with {name}, and an edit of its own"));
            }
            let end = |(_, place): &(String, Lent)| place.address() + place.len();
            before = Some(before.filter(|before| end(before) > end(own)).unwrap_or(own));
        }
        shared
    }
}

/// The memory of a tensor that can be edited, or why it cannot.
fn place_of(tensor: &Tensor, shape: &[usize]) -> std::result::Result<Lent, String> {
    if tensor.shape != shape {
        return Err(format!("shape {shape:?} expected, {:?} found", tensor.shape));
    }
    if tensor.dtype.float().is_none() {
        return Err(format!("a float type expected, {} found", tensor.dtype));
    }
    match &tensor.place {
        Place::Lent(place) if place.is_writable() => Ok(place.clone()),
        Place::Lent(_) => Err("memory that can be written expected, other found".into()),
        _ => Err("a tensor in memory expected, another found".into()),
    }
}
