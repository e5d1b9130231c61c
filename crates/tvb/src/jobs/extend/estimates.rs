//! The Gram matrix of all tasks of an extended basis: exact among the old ones and among the newcomers, and between them as the old
//! codes have it, with how far that may be off. Or from a Gram file that has them all.

use crate::basis::Basis;
use crate::basis::coefficients::GramErrors;
use crate::basis::manifest::TaskRecord;
use crate::columns::coded::is_coded;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::code::{Grown, GrownSums};
use crate::ops::gram::PER_TENSOR_BYTES;
use crate::ops::{Grams, Per};
use crate::shown::{shown, shown_path};
use crate::solve::{BF16_NOISE, Coding, Gram};
use std::path::Path;
use tvb_kernels::triangle_len;

/// A lowest eigenvalue below this part of the trace is more than rounding.
const INDEFINITE: f64 = 1e-9;

/// The Gram matrices of all tasks, the newcomers last.
pub(super) struct AllGrams {
    /// T with the newcomers.
    pub(super) n_tasks: usize,
    /// [n_slots, T(T+1)/2].
    pub(super) triangles: Vec<f64>,
    /// How far entries may be off; `None` where all are exact.
    pub(super) errors: Option<GramErrors>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl AllGrams {
    /// The sum over some slots.
    pub(super) fn sum_of(&self, is_taken: impl Fn(usize) -> bool) -> Matrix {
        let len = triangle_len(self.n_tasks);
        let slots = self.triangles.chunks_exact(len).enumerate().filter(|(slot, _)| is_taken(*slot));
        let mut sum = vec![0.0; len];
        slots.for_each(|(_, triangle)| sum.iter_mut().zip(triangle).for_each(|(sum, value)| *sum += value));
        crate::ops::unpack_triangle(&sum, self.n_tasks)
    }

    /// With the entries between old tasks and newcomers as the old codes have them. `before` is how the old columns are coded, and what
    /// their shared ones are off by, \[K\].
    ///
    /// # Errors
    /// Rejected: a basis that does not know its Gram matrix.
    pub(super) fn estimated(basis: &Basis, before: (&Coding, &[f64]), grown: &Grown, n_new: usize) -> Result<AllGrams> {
        let n_old = basis.n_tasks();
        let n_tasks = n_old + n_new;
        let old = &basis.coefficients.grams;
        if old.is_empty() {
            return Err(Error::rejected(format!(
                "{}: a basis that knows its Gram matrix expected, one that does not found",
                shown_path(&basis.folder)
            ))
            .hint("make it again from the originals with `tvb compress`"));
        }
        let tensors = basis.manifest.coded.as_ref().map_or(&[][..], |record| &record.tensors);
        // One matrix for each tensor as long as they take little room.
        let is_small = n_tasks.saturating_mul(n_tasks).saturating_mul(8 * old.len()) <= PER_TENSOR_BYTES;
        let n_slots = if is_small { old.len() } else { 1 };
        let slot_of = |slot: usize| if n_slots == 1 { 0 } else { slot };
        let len = triangle_len(n_tasks);
        let mut triangles = vec![0.0; n_slots * len];
        for (slot, gram) in old.iter().enumerate() {
            let triangle = &mut triangles[slot_of(slot) * len..][..len];
            for i in 0..n_old {
                (0..=i).for_each(|j| triangle[triangle_len(i) + j] += gram[(i, j)]);
            }
        }
        let estimator = Estimator::new(basis, before, grown);
        let mut variance = Matrix::zeros(n_new, n_old);
        // A task that moves nothing has no product with any, whatever the shared columns give it back as.
        let moving: Vec<usize> = (0..n_old).filter(|&t| old.iter().any(|gram| gram[(t, t)] > 0.0)).collect();
        for (name, tensor) in basis.stored_tensors().iter().zip(tensors) {
            let Some(sums) = grown.sums.get(name) else { continue };
            let triangle = &mut triangles[slot_of(tensor.number as usize).min(n_slots - 1) * len..][..len];
            for new in 0..n_new {
                let row = triangle_len(n_old + new);
                for &task in &moving {
                    triangle[row + task] += estimator.product(sums, new, task);
                    variance[(new, task)] += estimator.variance(sums, new, task, tensor.coded);
                }
                (0..=new).for_each(|other| triangle[row + n_old + other] += sums.among(new, other));
            }
        }
        let mut all = AllGrams { n_tasks, triangles, errors: None, notes: Vec::new() };
        let measured = all.sum_of(|_| true);
        all.shrink(n_old);
        let total = all.sum_of(|_| true);
        let mut errors = GramErrors::none(n_tasks);
        if let Some(known) = &basis.coefficients.gram_errors {
            for (i, j) in (0..n_old).flat_map(|i| (0..n_old).map(move |j| (i, j))) {
                errors.standard[(i, j)] = known.standard[(i, j)];
                errors.bound[(i, j)] = known.bound[(i, j)];
            }
        }
        for new in 0..n_new {
            let length = total[(n_old + new, n_old + new)].max(0.0).sqrt();
            for &task in &moving {
                // Cauchy–Schwarz: ⟨x, τ⟩ − ⟨x, τ̂⟩ = ⟨x, τ − τ̂⟩, and |⟨x, τ⟩| ≤ ‖x‖·‖τ‖ where no more is known.
                let found = total[(n_old + new, task)];
                let shrunk = (measured[(n_old + new, task)] - found).abs();
                let most = found.abs() + length * total[(task, task)].max(0.0).sqrt();
                let off = basis.manifest.tasks.get(task).and_then(TaskRecord::error_length);
                let bound = off.map_or(most, |off| most.min(length * off + shrunk));
                for at in [(n_old + new, task), (task, n_old + new)] {
                    errors.standard[at] = variance[(new, task)].max(0.0).sqrt();
                    errors.bound[at] = bound;
                }
            }
        }
        all.errors = Some(errors);
        Ok(all)
    }

    /// Makes the matrix of everything one of inner products again, where noise has made it none: what is estimated is shortened, all of
    /// it by one factor, the largest that does.
    pub(super) fn shrink(&mut self, n_old: usize) {
        let is_one = |all: &AllGrams| {
            let total = all.sum_of(|_| true);
            Gram::new(total).is_ok_and(|gram| gram.spectrum().lowest >= -INDEFINITE * gram.trace())
        };
        if is_one(self) {
            return;
        }
        let whole = self.triangles.clone();
        let (mut least, mut most) = (0.0, 1.0);
        for _ in 0..20 {
            let factor = 0.5 * (least + most);
            self.scale_estimates(&whole, n_old, factor);
            if is_one(self) { least = factor } else { most = factor }
        }
        self.scale_estimates(&whole, n_old, least);
        self.notes.push(format!(
            "estimated inner products are {:.2}% shorter than estimated, so that they can be ones of vectors",
            100.0 * (1.0 - least)
        ));
    }

    fn scale_estimates(&mut self, whole: &[f64], n_old: usize, factor: f64) {
        let len = triangle_len(self.n_tasks);
        for (triangle, whole) in self.triangles.chunks_exact_mut(len).zip(whole.chunks_exact(len)) {
            for new in n_old..self.n_tasks {
                let row = triangle_len(new);
                (row..row + n_old).for_each(|at| triangle[at] = factor * whole[at]);
            }
        }
    }

    /// From a Gram file of all tasks; `newcomers` are names and fingerprints.
    ///
    /// # Errors
    /// Rejected: a file of other inputs.
    pub(super) fn of_file(
        basis: &Basis,
        path: &Path,
        newcomers: &[(String, crate::digest::Digest)],
    ) -> Result<AllGrams> {
        let grams = crate::basis::gram_file::read_within(path, basis.budget())?;
        let rejected = |what: String| {
            Error::rejected(format!("{}: {what}", shown_path(path))).hint(
                "make a Gram file of all tasks with `tvb gram`, or leave out --gram: inner products are estimated then",
            )
        };
        let old = basis.manifest.tasks.iter().map(|task| (task.name.as_str(), task.fingerprint));
        let new = newcomers.iter().map(|(name, fingerprint)| (name.as_str(), Some(*fingerprint)));
        let mut which = Vec::new();
        for (name, fingerprint) in old.chain(new) {
            let found = grams.tasks.iter().position(|task| task.name == name);
            let Some(found) = found else {
                return Err(rejected(format!("task {} expected, none found", shown(name))));
            };
            if fingerprint.is_some_and(|expected| grams.tasks[found].fingerprint != expected) {
                return Err(rejected(format!("task {}: another checkpoint of this name found", shown(name))));
            }
            which.push(found);
        }
        let names = basis.stored_tensors().iter().chain(&basis.manifest.frozen);
        let by_tensor = grams.per == Per::Tensor;
        let missing = names.clone().find(|name| !grams.tensors.iter().any(|tensor| tensor.name == **name));
        if let Some(name) = missing {
            return Err(rejected(format!("tensor {} expected, none found", shown(name))));
        }
        let n_tasks = which.len();
        let len = triangle_len(n_tasks);
        let numbers: Vec<usize> = match &basis.manifest.coded {
            Some(record) => record.tensors.iter().map(|tensor| tensor.number as usize).collect(),
            None => (0..basis.stored_tensors().len()).collect(),
        };
        let n_slots = match (&basis.manifest.coded, by_tensor) {
            (_, false) => 1,
            (Some(_), true) => basis.coefficients.grams.len().max(1),
            (None, true) => numbers.len().max(1),
        };
        let mut triangles = vec![0.0; n_slots * len];
        let mut add = |slot: usize, from: &[f64]| {
            let triangle = &mut triangles[slot.min(n_slots - 1) * len..][..len];
            for i in 0..n_tasks {
                for j in 0..=i {
                    let (a, b) = (which[i].max(which[j]), which[i].min(which[j]));
                    triangle[triangle_len(i) + j] += from[triangle_len(a) + b];
                }
            }
        };
        if by_tensor {
            for (name, number) in basis.stored_tensors().iter().zip(&numbers) {
                let found = grams.tensors.iter().position(|found| found.name == *name);
                found.iter().for_each(|found| add(*number, grams.triangle(*found)));
            }
        } else {
            add(0, grams.triangle(0));
        }
        check_others(&grams, basis, &rejected)?;
        Ok(AllGrams { n_tasks, triangles, errors: None, notes: Vec::new() })
    }
}

/// Whether a Gram file is of the basis' base and of no other tensors.
fn check_others(grams: &Grams, basis: &Basis, rejected: &dyn Fn(String) -> Error) -> Result<()> {
    let n_known = basis.stored_tensors().len() + basis.manifest.frozen.len();
    if grams.tensors.len() != n_known {
        return Err(rejected(format!("{n_known} tensors expected, {} found", grams.tensors.len())));
    }
    match (basis.manifest.base.fingerprint, grams.base_fingerprint()) {
        (Some(expected), Some(found)) if expected != found => {
            Err(rejected(format!("another base: fingerprint {expected} expected, {found} found")))
        }
        _ => Ok(()),
    }
}

/// What the codes say of inner products with old tasks.
struct Estimator {
    /// \[T\]\[M + K\]: weights of a task over the columns.
    weights: Vec<Vec<f64>>,
    /// \[T\]\[M\]: what is left of a column's own noise in each task, squared.
    own: Vec<Vec<f64>>,
    /// ‖noise‖²/‖ŷ‖² of an own column.
    own_noise: f64,
    /// The same of each shared one.
    kept_noise: Vec<f64>,
}

impl Estimator {
    fn new(basis: &Basis, (coding, kept_errors): (&Coding, &[f64]), grown: &Grown) -> Estimator {
        let n_old = basis.n_tasks();
        let unit = |task: usize| -> Vec<f64> { (0..n_old).map(|t| if t == task { 1.0 } else { 0.0 }).collect() };
        let weights: Vec<Vec<f64>> = (0..n_old).map(|task| coding.column_weights(&unit(task))).collect();
        let own = (0..n_old).map(|task| {
            let along = &weights[task][n_old..];
            let kept = |j: usize| along.iter().enumerate().map(|(k, along)| coding.kept[(j, k)] * along).sum::<f64>();
            let lacks = |j: usize| (if j == task { 1.0 } else { 0.0 }) - kept(j);
            (0..n_old).map(|j| lacks(j).powi(2)).collect()
        });
        let total = |k: usize| grown.sums.values().map(|sums| sums.decoded(n_old + k)).sum::<f64>();
        let kept_noise = kept_errors.iter().enumerate().map(|(k, error)| {
            let decoded = total(k);
            if decoded > 0.0 { error / decoded } else { 0.0 }
        });
        let noise = coding.rate.noise();
        Estimator { own: own.collect(), own_noise: noise / (1.0 + noise), kept_noise: kept_noise.collect(), weights }
    }

    fn product(&self, sums: &GrownSums, new: usize, task: usize) -> f64 {
        self.weights[task].iter().enumerate().map(|(column, weight)| weight * sums.product(new, column)).sum()
    }

    fn variance(&self, sums: &GrownSums, new: usize, task: usize, is_coded: bool) -> f64 {
        let n_old = self.own.len();
        if !is_coded {
            return BF16_NOISE * sums.spread(new, task);
        }
        let own = self.own[task].iter().enumerate().map(|(j, lacks)| lacks * self.own_noise * sums.spread(new, j));
        let kept = self
            .kept_noise
            .iter()
            .enumerate()
            .map(|(k, noise)| self.weights[task][n_old + k].powi(2) * noise * sums.spread(new, n_old + k));
        own.sum::<f64>() + kept.sum::<f64>()
    }
}

/// Whether a tensor of a basis is coded, by its slot.
pub(super) fn is_raw_slot(basis: &Basis, n_slots: usize) -> impl Fn(usize) -> bool {
    let tensors = basis.manifest.coded.iter().flat_map(|record| &record.tensors);
    let raw: Vec<usize> =
        tensors.filter(|tensor| !is_coded(&tensor.shape)).map(|tensor| tensor.number as usize).collect();
    move |slot| n_slots > 1 && raw.contains(&slot)
}
