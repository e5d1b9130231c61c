//! An extension, from end to end.

use super::coded::extend_coded;
use super::mixtures::extend_mixtures;
use super::newcomers::Newcomers;
use super::options::{ExtendOptions, Extended};
use crate::basis::Basis;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;

/// Takes the tasks of `plan` into a basis whose originals need not be there. `plan` is of the basis' base and the newcomers alone. Until
/// the new basis is whole the old one is untouched.
///
/// # Errors
/// Usage: options that do not fit the basis. Rejected: a base that is not the basis's, a name that is there, newcomers of other tensors or
/// shapes, a damaged basis, one that cannot be extended. Failed: I/O. Interrupted.
pub fn extend(
    basis: &Basis,
    plan: &Plan,
    options: &ExtendOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Extended> {
    if !options.weight.is_finite() {
        return Err(Error::usage(format!("a weight that is a finite number expected, {} found", options.weight)));
    }
    let manifest = &basis.manifest;
    let refused = |what: &str, hint: &str| {
        Err(Error::rejected(format!("{}: {what} cannot be extended", shown_path(&basis.folder))).hint(hint))
    };
    let again = "make the basis again from the originals with `tvb compress`";
    match (&manifest.coded, manifest.method.name.as_str()) {
        (Some(_), "identity") => {
            if options.n_atoms.is_some() {
                return Err(Error::usage("a number of atoms for a basis of tasks as they are, which has one for each")
                    .hint("leave out -m"));
            }
            let newcomers = Newcomers::of(basis, plan, progress)?;
            extend_coded(basis, plan, &newcomers, options, runtime, progress)
        }
        (Some(_), _) => refused(
            "mixtures that are coded",
            "each time their codes would lose more: keep a basis that grows in floats (--dtype f32), or code tasks as they are",
        ),
        (None, _) if manifest.generated.is_some() => refused("a basis whose atoms are made from a seed", again),
        (None, _) => {
            let newcomers = Newcomers::of(basis, plan, progress)?;
            extend_mixtures(basis, plan, &newcomers, options, runtime, progress)
        }
    }
}
