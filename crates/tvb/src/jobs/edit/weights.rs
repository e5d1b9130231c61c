//! What an edit is: weights over tasks, what they become over atoms, and how true the result will be.

use super::predicted::{WeightedTensors, predict_in_blocks};
use super::tensor_weights::{TensorNames, TensorWeights, WeightWords};
use crate::basis::{self, Basis};
use crate::checkpoint::{Checkpoint, Inputs};
use crate::columns::fit::Fit;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::ops::reconstruct::Edits;
use crate::progress::Progress;
use crate::shown::{shown, shown_path};
use crate::solve::{Fidelity, Gram, Rule, coded_edit_fidelity, edit_fidelity, recovered_edit_fidelity};
use std::collections::HashMap;
use std::path::Path;

/// An edit from a basis whose predicted cosine with the same edit from the originals is below this is worth a warning.
pub const COSINE_MIN: f64 = 0.9;

/// What an edit is formed from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A basis: weights over tasks become weights over atoms.
    Basis(&'a Basis),
    /// The original checkpoints: plain task arithmetic.
    Checkpoints(&'a Plan),
}

impl Source<'_> {
    /// How its columns fit the base.
    pub fn fit(&self) -> &Fit {
        match self {
            Source::Basis(basis) => &basis.manifest.fit,
            Source::Checkpoints(plan) => &plan.fit,
        }
    }

    /// What an output must leave alone.
    pub fn inputs(&self) -> Inputs {
        match self {
            Source::Basis(basis) => basis.inputs(),
            Source::Checkpoints(plan) => plan.inputs(),
        }
    }

    /// Names of the tasks, in column order.
    pub fn task_names(&self) -> Vec<String> {
        match self {
            Source::Basis(basis) => basis.task_names(),
            Source::Checkpoints(plan) => plan.tasks.iter().map(|task| task.name.clone()).collect(),
        }
    }

    /// Names of the tensors that an edit moves, in order.
    pub fn tensors(&self) -> Vec<String> {
        match self {
            Source::Basis(basis) => basis.stored_tensors().to_vec(),
            Source::Checkpoints(plan) => plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
        }
    }

    /// The factors of its tasks in its tensors; `None` where nothing was said of any. Tensors that no task has moved may be named too.
    ///
    /// # Errors
    /// As [`TensorWeights::new`].
    pub fn tensor_weights(&self, words: &WeightWords) -> Result<Option<TensorWeights>> {
        if words.is_empty() {
            return Ok(None);
        }
        let (own, frozen, skipped, carried) = match self {
            Source::Basis(basis) => {
                let manifest = &basis.manifest;
                (self.tensors(), manifest.frozen.as_slice(), manifest.skipped.as_slice(), manifest.carried.as_slice())
            }
            Source::Checkpoints(plan) => (self.tensors(), &[][..], plan.skipped.as_slice(), plan.carried.as_slice()),
        };
        let tensors: Vec<&str> = own.iter().chain(frozen).map(String::as_str).collect();
        let skipped = skipped.iter().map(|skipped| skipped.name.as_str());
        let others: Vec<&str> = skipped.chain(carried.iter().map(String::as_str)).collect();
        let names = TensorNames { tensors: &tensors, twins: &self.fit().twins, others: &others };
        TensorWeights::new(words, &self.task_names(), names).map(Some)
    }
}

/// λ·Σ αt·τ̂t, or λ times the plain sum of the atoms.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// α over the tasks, without λ.
    pub alpha: Vec<f64>,
    /// λ.
    pub scale: f64,
    /// How atoms are combined.
    pub rule: Rule,
    /// Factors of the tasks that differ between tensors, those of [`Source::tensor_weights`]; `None` where all are 1.
    pub by_tensor: Option<TensorWeights>,
}

impl Edit {
    /// λ·Σ αt·τ̂t, the same weights for every tensor.
    pub fn new(alpha: Vec<f64>, scale: f64) -> Edit {
        Edit { alpha, scale, rule: Rule::Projected, by_tensor: None }
    }

    /// Whether the engines, which work in f32, can do with every task's weight λ·αt, in every tensor.
    ///
    /// # Errors
    /// Usage: a weight beyond f32, or so small that it would be zero there, names the task and its file; factors that differ between
    /// tensors for a plain sum of atoms.
    pub fn check(&self, source: Source<'_>) -> Result<()> {
        let rows = self.by_tensor.as_ref().map_or(&[][..], TensorWeights::rows);
        if self.rule == Rule::Sum && !rows.is_empty() {
            return Err(Error::usage("the rule `sum` adds all atoms alike, weights by tensor found")
                .hint("leave out --weight-for and --lines, or use --rule projected"));
        }
        for (task, alpha) in self.alpha.iter().enumerate() {
            let factors = rows.iter().filter_map(|row| row.get(task)).copied();
            for factor in factors.chain(rows.is_empty().then_some(1.0)) {
                let is_some = *alpha != 0.0 && self.scale != 0.0 && factor != 0.0;
                check_weight(source, task, alpha * factor * self.scale, is_some)?;
            }
        }
        Ok(())
    }

    /// Weights over the columns of `source`, λ included, of an edit whose weights are the same for every tensor.
    ///
    /// # Errors
    /// Usage: weights beyond f32. Rejected: a basis whose coefficients do not fit together. Failed: weights that differ.
    pub fn weights(&self, source: Source<'_>) -> Result<Vec<f64>> {
        self.check(source)?;
        if self.by_tensor.is_some() {
            return Err(Error::failed("weights that are the same for every tensor expected, others found"));
        }
        Ok(self.over_columns(source, [self.alpha.as_slice()])?.concat())
    }

    /// Weights over the columns of `source`, λ included, for each of these α.
    fn over_columns<'a>(
        &self,
        source: Source<'_>,
        alphas: impl IntoIterator<Item = &'a [f64]>,
    ) -> Result<Vec<Vec<f64>>> {
        let solved = match source {
            Source::Basis(basis) => Some(basis.solved()?),
            Source::Checkpoints(_) => None,
        };
        let over_columns = |alpha: &[f64]| {
            let weights = match &solved {
                Some(solved) => solved.weights(alpha, self.rule),
                None => alpha.to_vec(),
            };
            weights.into_iter().map(|weight| weight * self.scale).collect()
        };
        Ok(alphas.into_iter().map(over_columns).collect())
    }

    /// The tensors of `source` by what is done with them: one block where all weights are the same.
    pub(super) fn blocks(&self, source: Source<'_>) -> Vec<WeightedTensors> {
        let mut blocks: Vec<WeightedTensors> = Vec::new();
        let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
        for name in source.tensors() {
            let alpha: Vec<f64> = match &self.by_tensor {
                // A task that is not in it stays out, and 0 has one sign.
                Some(factors) => {
                    let one = |(task, alpha): (usize, &f64)| match alpha * factors.factor(&name, task) {
                        0.0 => 0.0,
                        weight => weight,
                    };
                    self.alpha.iter().enumerate().map(one).collect()
                }
                None => self.alpha.clone(),
            };
            let bits = alpha.iter().map(|weight| weight.to_bits()).collect();
            let block = *known.entry(bits).or_insert(blocks.len());
            match blocks.get_mut(block) {
                Some(block) => block.tensors.push(name),
                None => blocks.push(WeightedTensors { alpha, tensors: vec![name] }),
            }
        }
        blocks
    }

    /// The tensors of `source` by the weights λ·αt that they get, where these differ: names, and weights \[n_tasks\].
    pub fn weights_by_tensor(&self, source: Source<'_>) -> Vec<(Vec<String>, Vec<f64>)> {
        if self.by_tensor.is_none() {
            return Vec::new();
        }
        let scaled = |alpha: Vec<f64>| alpha.into_iter().map(|alpha| alpha * self.scale).collect();
        self.blocks(source).into_iter().map(|block| (block.tensors, scaled(block.alpha))).collect()
    }

    /// What has to be streamed for it.
    ///
    /// # Errors
    /// Usage: weights beyond f32. Rejected: a basis that is damaged or whose parts do not fit together. Failed: I/O.
    pub fn edits(&self, source: Source<'_>) -> Result<Edits> {
        self.check(source)?;
        let blocks = match self.by_tensor {
            Some(_) => self.blocks(source),
            None => Vec::new(),
        };
        let alphas: Vec<&[f64]> = match blocks.as_slice() {
            [] => vec![self.alpha.as_slice()],
            blocks => blocks.iter().map(|block| block.alpha.as_slice()).collect(),
        };
        let weights = self.over_columns(source, alphas)?;
        let edits = match source {
            Source::Basis(basis) => basis::edits(basis, &weights)?,
            Source::Checkpoints(plan) => Edits::from_checkpoints(plan, &weights),
        };
        match blocks.len() {
            0 | 1 => Ok(edits),
            _ => edits.in_blocks(blocks.into_iter().map(|block| block.tensors).collect()),
        }
    }

    /// Warns where a basis gives something else than what was asked for: a predicted cosine below [`COSINE_MIN`].
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn warn_if_far(&self, source: Source<'_>, progress: &dyn Progress) -> Result<()> {
        self.warn_of_idle_rules(source, progress);
        let Source::Basis(basis) = source else { return Ok(()) };
        if self.rests_on_estimates(basis) {
            progress.note(
                "what is predicted of this edit rests on inner products that are estimates; `tvb inspect` says how far they may be off",
            );
        }
        if let Some(fidelity) = self.predict(basis)?.filter(|fidelity| fidelity.cosine < COSINE_MIN) {
            let more = match basis.manifest.coded {
                None if basis.manifest.shared().is_some() => {
                    "`tvb compress` with a larger --shared-rank, or without, is closer"
                }
                Some(_) => "`tvb compress` with more --bits, or with --keep for this edit, is closer",
                None => "`tvb compress` with a larger -m, or without -m and --method, is closer",
            };
            progress.warn(&format!(
                "{}: predicted cosine {:.4} with the same edit from the originals, at least {COSINE_MIN} expected; {more}",
                shown_path(&basis.folder),
                fidelity.cosine
            ));
        }
        Ok(())
    }

    /// Warns of factors of a task that has no part in the edit.
    fn warn_of_idle_rules(&self, source: Source<'_>, progress: &dyn Progress) {
        let Some(factors) = &self.by_tensor else { return };
        let names = source.task_names();
        for (task, pattern, _) in factors.rules() {
            let idle = task.filter(|task| self.alpha.get(*task) == Some(&0.0)).and_then(|task| names.get(task));
            if let Some(name) = idle {
                let (name, pattern) = (shown(name), shown(pattern));
                progress.warn(&format!(
                    "task {name}: a weight for {pattern} is given, and the task has no part in this edit"
                ));
            }
        }
    }

    /// Whether any two tasks of the edit have an inner product that is an estimate.
    fn rests_on_estimates(&self, basis: &Basis) -> bool {
        let Some(errors) = &basis.coefficients.gram_errors else { return false };
        let used: Vec<usize> =
            self.alpha.iter().enumerate().filter(|(_, alpha)| **alpha != 0.0).map(|(task, _)| task).collect();
        let n_tasks = errors.standard.n_rows();
        used.iter().all(|task| *task < n_tasks)
            && used.iter().any(|&i| used.iter().any(|&j| i != j && errors.is_estimate(i, j)))
    }

    /// How true the edit from a basis is to the same edit from the originals; `None` where the basis does not know its Gram
    /// matrix (an imported one), or where weights differ between tensors and it does not know what is to be known of each.
    ///
    /// # Errors
    /// Usage: weights beyond f32. Rejected: a basis whose coefficients do not fit together.
    pub fn predict(&self, basis: &Basis) -> Result<Option<Fidelity>> {
        self.check(Source::Basis(basis))?;
        if self.by_tensor.is_some() {
            return predict_in_blocks(basis, &self.blocks(Source::Basis(basis)), self.rule);
        }
        let Some(gram) = basis.total_gram() else { return Ok(None) };
        let coefficients = basis.solved()?;
        if coefficients.encode.n_columns() == 0 && coefficients.generated.is_none() {
            return Ok(None);
        }
        if let (Some(coding), Some(parts)) = (basis.coding(), basis.parts()) {
            let (gram, sizes) = (Gram::new(gram)?, parts.sizes(&coefficients));
            return coded_edit_fidelity(&gram, &coefficients, &coding, &sizes, &self.alpha, self.rule).map(Some);
        }
        if basis.manifest.shared().is_some() {
            let (gram, recovered) = (Gram::new(gram)?, &basis.coefficients.recovered);
            return recovered_edit_fidelity(&gram, recovered, &self.alpha, self.rule).map(Some);
        }
        // Atoms that cannot be opened are no matter of a prediction.
        let rows = |atom: &Checkpoint| atom.tensors().iter().map(|tensor| tensor.n_elements() as u64).sum();
        let n_rows = if basis.n_atoms() == 0 { 0 } else { basis.open_atom(0).as_ref().map_or(0, rows) };
        edit_fidelity(&Gram::new(gram)?.over(n_rows), &coefficients, &self.alpha, self.rule).map(Some)
    }
}

/// Whether a task's weight can be said in f32; `is_some` where it should not be zero.
fn check_weight(source: Source<'_>, task: usize, weight: f64, is_some: bool) -> Result<()> {
    let is_lost = weight.abs() < f64::from(f32::MIN_POSITIVE) && is_some;
    if (weight as f32).is_finite() && !is_lost {
        return Ok(());
    }
    let (name, path) = match source {
        Source::Basis(basis) => (basis.manifest.tasks.get(task).map(|task| &task.name), basis.folder.as_path()),
        Source::Checkpoints(plan) => {
            let task = plan.tasks.get(task);
            (task.map(|task| &task.name), task.map_or(Path::new(""), |task| task.checkpoint.path()))
        }
    };
    let name = name.map_or_else(|| format!("number {task}"), Clone::clone);
    let expected = if is_lost {
        format!("zero, or {:.1e} and more in size", f32::MIN_POSITIVE)
    } else {
        format!("at most ±{:.1e}", f32::MAX)
    };
    Err(Error::usage(format!(
        "{}, task {name}: a weight in f32 ({expected}) expected, {weight:e} found",
        path.display()
    ))
    .hint("the weight is --scale times the task's own, times what is said for a tensor"))
}
