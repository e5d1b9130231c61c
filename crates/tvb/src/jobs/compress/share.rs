//! Adapters in shared spaces: U and V of each tensor, a core for each task, and what that loses, before anything is written.
//!
//! Every task counts alike: its squared norm over all tensors is its weight's inverse, so what is maximised is the mean of the
//! tasks' gains, and no large task takes the spaces for itself.

use super::options::CompressOptions;
use super::sharing::{self, Shareable, shareable, tensor_in_words, work_bytes};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::spectra::with_spectra;
use crate::matrix::Matrix;
use crate::ops::gram::gram;
use crate::ops::{Grams, Per};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::{Assessment, Cores, Gram, Member, Stacks, assess_recovered, shared_sides};
use crate::units;
use std::collections::HashSet;
use std::path::Path;
use tvb_kernels::Dtype;

/// What adapters keep of one tensor in shared spaces.
#[derive(Debug)]
pub(super) struct SharedTensor {
    /// Its place in the plan.
    pub number: usize,
    /// U \[n, p\] and V \[p, m\], row-major, as stored.
    pub left: Vec<f32>,
    pub right: Vec<f32>,
    /// \[p, p\] of each task, as stored; `None` where it does not move the tensor.
    pub cores: Vec<Option<Vec<f32>>>,
}

/// Everything that is to be written, and what it is worth.
#[derive(Debug)]
pub(super) struct Share {
    pub tensors: Vec<SharedTensor>,
    /// The Gram matrix of all tasks, and that of the tasks as they come back.
    pub gram: Gram,
    pub recovered: Matrix,
    pub assessment: Assessment,
}

/// What `--shared-rank` would make: said by [`foretell`] without writing anything.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foretold {
    /// Bytes of all files of the atoms, and of what they share.
    pub n_bytes: u64,
    /// Every error of every task.
    pub assessment: Assessment,
}

/// Finds the spaces and the error of every task, and writes nothing.
///
/// # Errors
/// As [`compress`](super::compress()) with a shared rank. Usage: no shared rank.
pub fn foretell(
    plan: &Plan,
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Foretold> {
    options.check(plan)?;
    let rank = options.shared_rank.ok_or_else(|| Error::usage("shared spaces: a rank expected, none found"))?;
    let n_bytes = sharing::n_bytes(plan, rank, options.dtype)?;
    let grams = gram(plan, runtime, progress)?;
    let share = share(plan, &grams, (rank, options.dtype), &options.output, runtime, progress)?;
    Ok(Foretold { n_bytes, assessment: share.assessment })
}

/// What is about to be written, in a line.
pub(super) fn in_words(share: &Share, grams: &Grams, rank: usize, n_bytes: u64) -> String {
    let Assessment { mean, worst, worst_task, .. } = share.assessment;
    let task = grams.tasks.get(worst_task).map_or("", |task| task.name.as_str());
    let n_stored = grams.tensors.iter().filter(|tensor| !tensor.frozen).count();
    format!(
        "shared spaces of rank {rank} for {} of {n_stored} tensors, {} in all; relative error {mean:.4} on average, {worst:.4} at worst (task {})",
        share.tensors.len(),
        units::bytes(n_bytes),
        crate::shown::shown(task)
    )
}

/// Shared spaces of every tensor for which they pay. `output` is for messages.
///
/// # Errors
/// Usage: too low a memory cap. Rejected: numbers beyond the type, too little memory. Interrupted.
pub(super) fn share(
    plan: &Plan,
    grams: &Grams,
    (rank, dtype): (usize, Dtype),
    output: &Path,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Share> {
    let n_tasks = plan.tasks.len();
    let gram = Gram::new(grams.total())?.over(grams.n_moved_rows());
    let gram = with_spectra(gram, Vec::new(), (false, false), &runtime.engine, progress)?;
    let weights: Vec<f64> = gram.norms().iter().map(|norm| if *norm > 0.0 { norm.powi(-2) } else { 0.0 }).collect();
    let moved = grams.tensors.iter().map(|tensor| !tensor.frozen);
    let all = plan.tensors.iter().zip(moved).enumerate().filter(|(_, (_, moved))| *moved);
    let found: Vec<(usize, Shareable<'_>)> =
        all.filter_map(|(number, (planned, _))| Some((number, shareable(plan, planned, rank, dtype)?))).collect();
    let mut recovered = exact_part(plan, grams, &found.iter().map(|(number, _)| *number).collect(), runtime, progress)?;
    let (mut lost, mut shorter) = (vec![0.0; n_tasks], vec![0.0; n_tasks]);
    let mut tensors = Vec::with_capacity(found.len());
    progress.begin("shared spaces", found.iter().map(|(_, of)| own_bytes(of)).sum());
    for (number, of) in found {
        let n_numbers = rank * (of.n + of.m + rank * of.members.len());
        let planned = plan.tensors.get(number).ok_or_else(|| Error::failed("a tensor that is not in the plan"))?;
        // What was found is held until all errors are known; it is smaller than the factors, which are in memory.
        let charge = runtime.budget.charge(output, "shared spaces", 4 * n_numbers as u64)?;
        runtime.check_memory(work_bytes(&of, rank, 1), &format!("the factors of {}", tensor_in_words(planned)))?;
        let n_threads = runtime.n_affordable(work_bytes(&of, rank, runtime.n_threads), runtime.n_threads);
        let lefts: Vec<_> = of.members.iter().map(|(_, factors)| factors.left(0..of.n)).collect();
        let members: Vec<Member<'_>> = of
            .members
            .iter()
            .zip(&lefts)
            .map(|((task, factors), left)| Member {
                left,
                right: factors.right(),
                rank: factors.rank(),
                scale: factors.scale(),
                weight: weights.get(*task).copied().unwrap_or(0.0),
            })
            .collect();
        let stacks = Stacks::new(of.n, of.m, &members, n_threads)?;
        let sides = shared_sides(&stacks, rank, &|| progress.check())?;
        let round = |value: f32| match dtype {
            Dtype::Bf16 => half::bf16::from_f32(value).to_f32(),
            Dtype::F16 => half::f16::from_f32(value).to_f32(),
            _ => value,
        };
        let left = (0..of.n * rank).map(|at| round(sides.left[(at / rank, at % rank)] as f32)).collect();
        let right = (0..of.m * rank).map(|at| round(sides.right[(at % of.m, at / of.m)] as f32)).collect();
        let mut tensor = SharedTensor { number, left, right, cores: vec![None; n_tasks] };
        let cores = Cores::new(&stacks, &tensor.left, &tensor.right, rank)?;
        let found = cores.cores(round);
        if found.iter().any(|core| core.values.iter().any(|value| !value.is_finite())) {
            let what = tensor_in_words(planned);
            return Err(Error::rejected(format!("{what}: cores that {dtype:?} can hold expected, larger ones found"))
                .hint("--dtype bf16 or f32 holds them"));
        }
        let own = cores.gram(&found);
        for (i, (task, _)) in of.members.iter().enumerate() {
            for (j, (other, _)) in of.members.iter().enumerate() {
                recovered[(*task, *other)] += own[(i, j)];
            }
        }
        for ((task, _), core) in of.members.iter().zip(found) {
            if let (Some(lost), Some(shorter), Some(place)) =
                (lost.get_mut(*task), shorter.get_mut(*task), tensor.cores.get_mut(*task))
            {
                *lost += core.norm - core.inner;
                *shorter += core.norm - core.recovered;
                *place = Some(core.values);
            }
        }
        tensors.push((tensor, charge.settled()));
        progress.advance(own_bytes(&of));
    }
    progress.finish();
    // Of the same sums as the norms, so that what is exact has no error at all.
    let mut across = recovered.clone();
    for (task, (lost, shorter)) in lost.iter().zip(&shorter).enumerate() {
        let norm = gram.matrix()[(task, task)];
        across[(task, task)] = norm - lost;
        recovered[(task, task)] = norm - shorter;
    }
    let assessment = assess_recovered(&gram, &recovered, &across)?;
    let tensors = tensors.into_iter().map(|(tensor, _)| tensor).collect();
    Ok(Share { tensors, gram, recovered, assessment })
}

fn own_bytes(of: &Shareable<'_>) -> u64 {
    4 * (of.stacked_rank() * (of.n + of.m)) as u64
}

/// The Gram matrix of the tensors that are kept as they are.
fn exact_part(
    plan: &Plan,
    grams: &Grams,
    shared: &HashSet<usize>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Matrix> {
    let n_tasks = plan.tasks.len();
    let kept = || (0..plan.tensors.len()).filter(|number| !shared.contains(number));
    let is_moved = |number: usize| grams.tensors.get(number).is_some_and(|tensor| !tensor.frozen);
    if !kept().any(is_moved) {
        return Ok(Matrix::zeros(n_tasks, n_tasks));
    }
    if grams.per == Per::Tensor {
        return Ok(grams.sum_of(kept()));
    }
    let mut rest = plan.clone();
    let mut number = 0;
    rest.tensors.retain(|_| {
        number += 1;
        !shared.contains(&(number - 1))
    });
    Ok(gram(&rest, runtime, progress)?.total())
}
