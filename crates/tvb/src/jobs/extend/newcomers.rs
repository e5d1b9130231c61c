//! Base and newcomers under the names that a basis knows, and whether they fit it.

use crate::basis::Basis;
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, fingerprint};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::shown::{shown, shown_path};

/// What joins a basis, opened.
pub(crate) struct Newcomers {
    /// The base as the columns see it.
    pub(crate) base: Checkpoint,
    /// The newcomers, in the order given.
    pub(crate) tasks: Vec<Task>,
}

impl Newcomers {
    /// Matches a base and newcomers against a basis.
    ///
    /// # Errors
    /// Rejected: a name that is there already, other tensors or shapes (all are listed).
    pub(super) fn of(basis: &Basis, plan: &Plan, progress: &dyn Progress) -> Result<Newcomers> {
        let known = basis.task_names();
        if let Some(task) = plan.tasks.iter().find(|task| known.contains(&task.name)) {
            return Err(Error::rejected(format!(
                "{}: a task of the name {} is there already",
                shown_path(&basis.folder),
                shown(&task.name)
            ))
            .hint("give the newcomer another name: NAME=CHECKPOINT; or `tvb drop` the one that is there first"));
        }
        let most = tvb_kernels::MAX_TASKS;
        if known.len() + plan.tasks.len() > most {
            let found = known.len() + plan.tasks.len();
            return Err(Error::rejected(format!("at most {most} tasks in a basis expected, {found} found")));
        }
        let (found, note) = Newcomers::told(basis, plan)?;
        note.iter().for_each(|note| progress.note(note));
        Ok(found)
    }

    /// The same for tasks that are there already.
    ///
    /// # Errors
    /// Rejected: other tensors or shapes.
    pub(crate) fn matched(basis: &Basis, plan: &Plan) -> Result<Newcomers> {
        Ok(Newcomers::told(basis, plan)?.0)
    }

    fn told(basis: &Basis, plan: &Plan) -> Result<(Newcomers, Option<String>)> {
        let fit = &basis.manifest.fit;
        let (base, tasks, note) = basis.columns(plan)?;
        let base = fit.seen(&base)?;
        let seen = |task: &Task| Ok(Task { checkpoint: fit.seen(&task.checkpoint)?, ..task.clone() });
        let tasks = tasks.iter().map(seen).collect::<Result<Vec<Task>>>()?;
        let names: Vec<String> = basis.stored_tensors().iter().chain(&basis.manifest.frozen).cloned().collect();
        let other = |error: Error| {
            error.hint(
                "the tensors are those of the basis: give its base, and fine-tunes of it; --rename matches other names",
            )
        };
        let all = Plan::of_columns(base.clone(), tasks.clone(), &names).map_err(other)?;
        check_shapes(basis, &all)?;
        Ok((Newcomers { base, tasks }, note))
    }
}

/// The fingerprint of a checkpoint, from digests of all tensors that the basis has or knows to be still.
pub(super) fn fingerprint_of<'a>(task: &Task, digests: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    fingerprint(digests.filter_map(|(name, digest)| {
        let tensor = task.checkpoint.get(name)?;
        Some((name, tensor.dtype, tensor.shape.as_slice(), digest))
    }))
}

/// Whether the base's tensors are as large as the basis has them.
fn check_shapes(basis: &Basis, plan: &Plan) -> Result<()> {
    let Some(coded) = &basis.manifest.coded else { return Ok(()) };
    for (name, tensor) in basis.stored_tensors().iter().zip(&coded.tensors) {
        let Some(found) = plan.tensors.iter().find(|planned| planned.name == *name) else { continue };
        if found.shape != tensor.shape {
            return Err(Error::rejected(format!(
                "{}: tensor {}: shape {:?} expected, as the basis has it, {:?} found",
                shown_path(plan.base.path()),
                shown(name),
                tensor.shape,
                found.shape
            ))
            .hint("give the base that the basis was made from"));
        }
    }
    Ok(())
}
