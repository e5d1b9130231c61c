//! Whether the inputs of a pass are those that Gram matrices were formed from: by headers before, by digests after.

use super::grams::Grams;
use crate::checkpoint::Dtype;
use crate::columns::plan::Plan;
use crate::digest::{TableOfDigests, of_unread};
use crate::error::{Error, Result};

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
            return Err(changed(plan, column, &plan.tensors[index].name));
        }
    }
    Ok(())
}

fn changed(plan: &Plan, column: usize, tensor: &str) -> Error {
    Error::rejected(format!(
        "{}, tensor {tensor}: its data is not what it was when the Gram matrix was formed",
        plan.column_name(column)
    ))
    .hint("form the Gram matrix again: run without --gram, and do not change inputs meanwhile")
}

/// Whether Gram matrices are about these inputs, as far as headers tell.
///
/// # Errors
/// Rejected: other tasks or tensors, named.
pub fn check_same_inputs(plan: &Plan, grams: &Grams) -> Result<()> {
    let rejected = |what: String| {
        Err(Error::rejected(format!("the Gram matrix is of other inputs: {what}"))
            .hint("name the same base and tasks, in the same order, with the same --include and --exclude"))
    };
    if grams.tasks.len() != plan.tasks.len() {
        return rejected(format!("{} tasks expected, {} found", grams.tasks.len(), plan.tasks.len()));
    }
    for (origin, task) in grams.tasks.iter().zip(&plan.tasks) {
        if origin.name != task.name {
            return rejected(format!("task {} expected, task {} found", origin.name, task.name));
        }
    }
    if grams.fit != plan.fit {
        return rejected("other tied tensors, or other rows of an embedding".into());
    }
    if grams.tensors.len() != plan.tensors.len() {
        return rejected(format!("{} tensors expected, {} found", grams.tensors.len(), plan.tensors.len()));
    }
    for (tensor, planned) in grams.tensors.iter().zip(&plan.tensors) {
        let dtype: Dtype = plan.column_tensor(planned, 0).dtype;
        if (&tensor.name, &tensor.shape, tensor.dtype) != (&planned.name, &planned.shape, dtype) {
            return rejected(format!(
                "tensor {} {} {:?} expected, {} {dtype} {:?} found",
                tensor.name, tensor.dtype, tensor.shape, planned.name, planned.shape
            ));
        }
    }
    Ok(())
}
