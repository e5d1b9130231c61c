//! Adapters in shared spaces, from headers and factors alone: which tensors are shared, and what that takes.

use super::of_adapter::{first_without_factors, parts_of};
use crate::basis::atoms::factors::{self, Part, Parts};
use crate::basis::atoms::shared;
use crate::checkpoint::{LowRank, Place, shown};
use crate::columns::plan::{Plan, PlannedTensor};
use crate::error::{Error, Result};
use crate::solve::Stacks;
use tvb_kernels::Dtype;

/// Whether adapters can be kept so.
///
/// # Errors
/// Usage: a task that is no adapter, or a rank of 0.
pub(super) fn check(plan: &Plan, rank: usize) -> Result<()> {
    if rank == 0 {
        return Err(Error::usage("shared spaces: a rank from 1 on expected, 0 found"));
    }
    match first_without_factors(plan) {
        None => Ok(()),
        Some(column) => Err(Error::usage(format!(
            "shared spaces of rank {rank}: all tasks must be LoRA adapters, and {} is none",
            plan.column_name(column)
        ))
        .hint("leave out --shared-rank, and tasks are coded as they are (--bits); or name adapters alone")),
    }
}

/// What the adapters have of one tensor that is shared.
#[derive(Debug)]
pub(super) struct Shareable<'a> {
    /// Rows and columns of the matrix.
    pub n: usize,
    pub m: usize,
    /// The tasks that move it, with their factors.
    pub members: Vec<(usize, &'a LowRank)>,
}

impl Shareable<'_> {
    pub(super) fn stacked_rank(&self) -> usize {
        self.members.iter().map(|(_, factors)| factors.rank()).sum()
    }

    pub(super) fn widest(&self) -> usize {
        self.members.iter().map(|(_, factors)| factors.rank()).max().unwrap_or(0)
    }
}

/// A tensor that every task moves by factors of one size or not at all, where the spaces are smaller than the matrix and than
/// the factors side by side, and take less than the factors as they are: otherwise these are kept, which loses nothing.
pub(super) fn shareable<'a>(
    plan: &'a Plan,
    planned: &'a PlannedTensor,
    rank: usize,
    dtype: Dtype,
) -> Option<Shareable<'a>> {
    let mut members = Vec::new();
    for task in 0..plan.tasks.len() {
        match &plan.column_tensor(planned, task + 1).place {
            Place::LowRank(factors) => members.push((task, factors)),
            Place::Unmoved => {}
            _ => return None,
        }
    }
    let (_, first) = members.first()?;
    let (n, m) = (first.n_rows(), first.n_columns());
    let is_alike = members.iter().all(|(_, factors)| (factors.n_rows(), factors.n_columns()) == (n, m));
    let found = Shareable { n, m, members };
    if !is_alike || rank >= n.min(m) || rank >= found.stacked_rank() {
        return None;
    }
    let own: u64 = found.members.iter().map(|(_, factors)| factors::n_factor_bytes(factors)).sum();
    let numbers = rank as u64 * (n as u64 + m as u64 + rank as u64 * found.members.len() as u64);
    (numbers * dtype.size() as u64).lt(&own).then_some(found)
}

/// What one task has of each of these tensors, those that are shared as cores: `core_of` answers their numbers.
pub(super) fn shared_parts<'a>(
    plan: &'a Plan,
    tensors: &[&'a PlannedTensor],
    column: usize,
    (rank, dtype): (usize, Dtype),
    core_of: impl Fn(usize) -> Option<&'a [f32]>,
) -> Parts<'a> {
    let mut parts = parts_of(plan, tensors.iter().copied(), column);
    for (place, (.., part)) in parts.iter_mut().enumerate() {
        if let (Part::Factors(_), Some(core)) = (&part, core_of(place)) {
            *part = Part::Core(core, rank, dtype);
        }
    }
    parts
}

/// Bytes of all files, where every tensor moves.
pub(crate) fn n_bytes(plan: &Plan, rank: usize, dtype: Dtype) -> Result<u64> {
    let tensors: Vec<&PlannedTensor> = plan.tensors.iter().collect();
    let found: Vec<_> = tensors.iter().map(|planned| shareable(plan, planned, rank, dtype)).collect();
    let names = tensors.iter().map(|planned| planned.name.as_str());
    let sizes: Vec<_> =
        names.zip(&found).filter_map(|(name, found)| found.as_ref().map(|found| (name, found.n, found.m))).collect();
    let mut n_bytes = shared::n_bytes(&sizes, rank, dtype)?;
    for column in 1..plan.n_columns() {
        let core_of = |place: usize| found.get(place)?.as_ref().map(|_| &[][..]);
        let parts = shared_parts(plan, &tensors, column, (rank, dtype), core_of);
        n_bytes = n_bytes.saturating_add(factors::n_bytes(&parts)?);
    }
    Ok(n_bytes)
}

/// The least that the search for the spaces takes, with one thread.
pub(super) fn memory_bytes(plan: &Plan, rank: usize, dtype: Dtype) -> Result<u64> {
    let found = plan.tensors.iter().filter_map(|planned| shareable(plan, planned, rank, dtype));
    Ok(found.map(|found| work_bytes(&found, rank, 1)).max().unwrap_or(0))
}

/// The same for one tensor and some threads.
pub(super) fn work_bytes(of: &Shareable<'_>, rank: usize, n_threads: usize) -> u64 {
    Stacks::bytes(of.n, of.m, of.stacked_rank(), of.widest(), rank, n_threads)
}

/// For messages.
pub(super) fn tensor_in_words(planned: &PlannedTensor) -> String {
    format!("tensor {}", shown(&planned.name))
}
