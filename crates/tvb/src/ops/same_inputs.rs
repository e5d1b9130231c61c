//! Whether the inputs of a pass are those that Gram matrices were formed from: by headers before, by digests after.

use super::grams::Grams;
use crate::checkpoint::Dtype;
use crate::columns::plan::Plan;
use crate::digest::{TableOfDigests, of_unread};
use crate::error::{Error, Result};
use crate::shown::shown;

/// Compares digests of the moved tensors, \[n_moved, n_columns\], with those of pass 1. A base that was not read then has nothing
/// to be compared with.
///
/// # Errors
/// Rejected: an input that is not what it was then.
pub(crate) fn check_digests(plan: &Plan, grams: &Grams, inputs: &TableOfDigests) -> Result<()> {
    let unread = of_unread();
    let originals = grams.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.frozen);
    for (row, (index, _)) in originals.enumerate() {
        let differing = inputs
            .tensor(row)
            .iter()
            .zip(grams.digests.tensor(index))
            .position(|(now, then)| now != then && *then != unread);
        if let Some(column) = differing {
            return Err(changed(plan, column, &plan.tensors[index].name)
                .hint("form the Gram matrix again: run without --gram, and do not change inputs meanwhile"));
        }
    }
    Ok(())
}

/// The same for `found`, which are of the tasks of `grams` and of more, of every tensor: no entry among the first is formed again.
///
/// # Errors
/// Rejected: an input that is not what it was then.
pub(super) fn check_first_digests(plan: &Plan, grams: &Grams, found: &TableOfDigests) -> Result<()> {
    let unread = of_unread();
    for (index, planned) in plan.tensors.iter().enumerate() {
        let pairs = found.tensor(index).iter().zip(grams.digests.tensor(index));
        let mut pairs = pairs.map(|(now, then)| now != then && *now != unread && *then != unread);
        if let Some(column) = pairs.position(|differs| differs) {
            return Err(changed(plan, column, &planned.name).hint("form the Gram matrix again: run without --extend"));
        }
    }
    Ok(())
}

fn changed(plan: &Plan, column: usize, tensor: &str) -> Error {
    Error::rejected(format!(
        "{}, tensor {tensor}: its data is not what it was when the Gram matrix was formed",
        plan.column_name(column)
    ))
}

/// Whether Gram matrices are about these inputs, as far as headers tell.
///
/// # Errors
/// Rejected: other tasks or tensors, named.
pub fn check_same_inputs(plan: &Plan, grams: &Grams) -> Result<()> {
    let hint = "name the same base and tasks, in the same order, with the same --include and --exclude";
    let (expected, found) = (grams.tasks.len(), plan.tasks.len());
    if expected != found {
        let is_more = expected < found && check_tasks(plan, grams).is_ok();
        let hint = if is_more { "`tvb gram --extend` adds tasks to a Gram file" } else { hint };
        return Err(of_other_inputs(&format!("{expected} tasks expected, {found} found")).hint(hint));
    }
    check_tasks(plan, grams).and_then(|()| check_tensors(plan, grams)).map_err(|error| error.hint(hint))
}

/// Whether Gram matrices are about the first tasks of a plan, and the plan has more, as far as headers tell.
///
/// # Errors
/// Usage: no more tasks. Rejected: other tasks or tensors, named.
pub fn check_extends(plan: &Plan, grams: &Grams) -> Result<()> {
    let of_file = grams.tasks.iter().map(|task| shown(&task.name)).collect::<Vec<_>>().join(", ");
    let hint = format!("name the tasks of the Gram file first, in its order ({of_file}), then the new ones");
    let known = plan.tasks.iter().filter(|task| grams.tasks.iter().any(|known| known.name == task.name)).count();
    if plan.tasks.len() == known && known == grams.tasks.len() {
        let what = format!("no new task: {} tasks and more expected, these {known} found", grams.tasks.len());
        return Err(Error::usage(what).hint(hint));
    }
    check_tasks(plan, grams).map_err(|error| error.hint(hint))?;
    check_tensors(plan, grams).map_err(|error| {
        error.hint(
            "give the same options and a task that moves tensors of the same names and shapes, or form the Gram matrix of all \
             without --extend",
        )
    })
}

fn of_other_inputs(what: &str) -> Error {
    Error::rejected(format!("the Gram matrix is of other inputs: {what}"))
}

/// The tasks of Gram matrices are the first ones of a plan.
fn check_tasks(plan: &Plan, grams: &Grams) -> Result<()> {
    for (index, origin) in grams.tasks.iter().enumerate() {
        let expected = shown(&origin.name);
        match plan.tasks.get(index) {
            Some(task) if task.name == origin.name => {}
            Some(task) => {
                let found = shown(&task.name);
                return Err(of_other_inputs(&format!("task {expected} expected, task {found} found")));
            }
            None => return Err(of_other_inputs(&format!("task {expected} expected, none found"))),
        }
    }
    Ok(())
}

fn check_tensors(plan: &Plan, grams: &Grams) -> Result<()> {
    if grams.fit != plan.fit {
        return Err(of_other_inputs("other tied tensors, or other rows of an embedding"));
    }
    let is_there = |name: &str| plan.tensors.iter().any(|planned| planned.name == name);
    if grams.tensors.len() != plan.tensors.len() {
        let missing = match grams.tensors.iter().find(|tensor| !is_there(&tensor.name)) {
            Some(tensor) => format!(", without {}", shown(&tensor.name)),
            None => String::new(),
        };
        let (expected, found) = (grams.tensors.len(), plan.tensors.len());
        return Err(of_other_inputs(&format!("{expected} tensors expected, {found} found{missing}")));
    }
    for (tensor, planned) in grams.tensors.iter().zip(&plan.tensors) {
        let dtype: Dtype = plan.column_tensor(planned, 0).dtype;
        if (&tensor.name, &tensor.shape, tensor.dtype) != (&planned.name, &planned.shape, dtype) {
            return Err(of_other_inputs(&format!(
                "tensor {} {} {:?} expected, {} {dtype} {:?} found",
                shown(&tensor.name),
                tensor.dtype,
                tensor.shape,
                shown(&planned.name),
                planned.shape
            )));
        }
    }
    Ok(())
}
