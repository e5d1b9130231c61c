//! `--vocab common`: of embeddings and heads of other sizes the first rows take part that all columns have.

use super::fit::{CommonRows, Fit};
use super::tasks::Task;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::shown::shown;
use std::collections::HashSet;

/// Tensors that a note names.
const TENSORS_TOLD: usize = 3;

/// Tensors that differ in the number of rows alone, with the rows that the base and every task have. Only those of one
/// vocabulary: what has as many rows, in every column, as the largest of them. A class head of other classes has no common rows.
pub(super) fn common_rows(base: &Checkpoint, tasks: &[Task], seconds: &HashSet<&str>) -> Vec<CommonRows> {
    let floats = base.tensors().iter().filter(|tensor| tensor.dtype.float().is_some());
    let differing = floats.filter(|tensor| !seconds.contains(tensor.name.as_str()));
    let differing: Vec<(&Tensor, Vec<usize>)> =
        differing.filter_map(|tensor| Some((tensor, rows_of(tensor, tasks)?))).collect();
    let Some(vocabulary) = differing.iter().map(|(_, rows)| rows).max().cloned() else { return Vec::new() };
    let of_it = differing.into_iter().filter(|(_, rows)| *rows == vocabulary);
    let least = vocabulary.iter().copied().min().unwrap_or(0);
    of_it.map(|(tensor, _)| CommonRows { name: tensor.name.clone(), n_rows: least }).collect()
}

/// The number of rows in the base and in each task, where they are not all the same and nothing else differs.
fn rows_of(tensor: &Tensor, tasks: &[Task]) -> Option<Vec<usize>> {
    let (first, rest) = tensor.shape.split_first()?;
    let mut rows = vec![*first];
    for task in tasks {
        let found = task.checkpoint.get(&tensor.name).filter(|found| found.dtype.float().is_some())?;
        let (first, others) = found.shape.split_first()?;
        (others == rest).then(|| rows.push(*first))?;
    }
    let differ = rows.iter().any(|n| n != first);
    (differ && rows.iter().all(|n| *n > 0)).then_some(rows)
}

/// Whether two shapes differ in the number of rows alone.
pub(super) fn is_other_vocabulary(one: &[usize], other: &[usize]) -> bool {
    match (one.split_first(), other.split_first()) {
        (Some((n, rest)), Some((m, others))) => n != m && rest == others,
        _ => false,
    }
}

/// What is done, in a line.
pub(super) fn note(fit: &Fit, base: &Checkpoint) -> Option<String> {
    let first = fit.common_rows.first()?;
    let names: Vec<String> =
        fit.common_rows.iter().take(TENSORS_TOLD).map(|rows| shown(&rows.name).to_string()).collect();
    let more = match fit.common_rows.len().saturating_sub(names.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let all = base.get(&first.name).and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    let rest = match all.saturating_sub(first.n_rows) {
        0 => "all that the base has".to_owned(),
        n => format!("the base keeps its other {n}"),
    };
    Some(format!("the first {} rows of {}{more} take part, as all have them; {rest}", first.n_rows, names.join(", ")))
}
