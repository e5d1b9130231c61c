//! A drop, from end to end.

use super::coded::drop_coded;
use super::options::{DropOptions, Dropped};
use super::plain::drop_plain;
use super::stays::Stays;
use crate::basis::Basis;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;

/// Takes the tasks of these names out of a basis. `originals` are the base and the checkpoints of the tasks that go, or of all that
/// stay: with them the shared columns of a coded basis are as exact again as those of a new one. Until the new basis is whole the old
/// one is untouched.
///
/// # Errors
/// Usage: a name that no task has, originals that a basis without shared columns needs not. Rejected: nothing would be left, originals that
/// are others than the basis was made from, a damaged basis, one that tasks cannot leave. Failed: I/O. Interrupted.
pub fn drop_tasks(
    basis: &Basis,
    names: &[String],
    originals: Option<&Plan>,
    options: &DropOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Dropped> {
    let stays = Stays::of(basis, names)?;
    match (&basis.manifest.coded, basis.manifest.method.name.as_str()) {
        (Some(_), "identity") => drop_coded(basis, &stays, originals, options, runtime, progress),
        (Some(_), _) => Err(Error::rejected(format!(
            "{}: tasks cannot leave mixtures that are coded: all atoms have something of each",
            shown_path(&basis.folder)
        ))
        .hint("make the basis again from the originals with `tvb compress`")),
        (None, _) if originals.is_some() => Err(Error::usage(
            "originals for a basis without shared columns: nothing in it would become more exact by them",
        )
        .hint("leave them out, with --base")),
        (None, _) => drop_plain(basis, &stays, options, progress),
    }
}
