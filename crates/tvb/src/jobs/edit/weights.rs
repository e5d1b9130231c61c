//! What an edit is: weights over tasks, what they become over atoms, and how true the result will be.

use crate::basis::{self, Basis};
use crate::checkpoint::{Checkpoint, Inputs};
use crate::columns::fit::Fit;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::ops::reconstruct::Edits;
use crate::progress::Progress;
use crate::shown::shown_path;
use crate::solve::{Fidelity, Gram, Rule, coded_edit_fidelity, edit_fidelity, recovered_edit_fidelity};
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
}

impl Edit {
    /// Whether the engines, which work in f32, can do with every task's weight λ·αt.
    ///
    /// # Errors
    /// Usage: a weight beyond f32, or so small that it would be zero there; names the task and its file.
    pub fn check(&self, source: Source<'_>) -> Result<()> {
        for (task, alpha) in self.alpha.iter().enumerate() {
            let weight = alpha * self.scale;
            let is_lost = weight.abs() < f64::from(f32::MIN_POSITIVE) && *alpha != 0.0 && self.scale != 0.0;
            if (weight as f32).is_finite() && !is_lost {
                continue;
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
            return Err(Error::usage(format!(
                "{}, task {name}: a weight in f32 ({expected}) expected, {weight:e} found",
                path.display()
            ))
            .hint("the weight is --scale times the task's own"));
        }
        Ok(())
    }

    /// Weights over the columns of `source`, λ included.
    ///
    /// # Errors
    /// Usage: weights beyond f32. Rejected: a basis whose coefficients do not fit together.
    pub fn weights(&self, source: Source<'_>) -> Result<Vec<f64>> {
        self.check(source)?;
        let weights = match source {
            Source::Basis(basis) => basis.solved()?.weights(&self.alpha, self.rule),
            Source::Checkpoints(_) => self.alpha.clone(),
        };
        Ok(weights.into_iter().map(|weight| weight * self.scale).collect())
    }

    /// What has to be streamed for it.
    ///
    /// # Errors
    /// Rejected: a basis that is damaged or whose parts do not fit together. Failed: I/O.
    pub fn edits(&self, source: Source<'_>) -> Result<Edits> {
        let weights = self.weights(source)?;
        match source {
            Source::Basis(basis) => basis::edits(basis, &[weights]),
            Source::Checkpoints(plan) => Ok(Edits::from_checkpoints(plan, &[weights])),
        }
    }

    /// Warns where a basis gives something else than what was asked for: a predicted cosine below [`COSINE_MIN`].
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn warn_if_far(&self, source: Source<'_>, progress: &dyn Progress) -> Result<()> {
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
    /// matrix (an imported one).
    ///
    /// # Errors
    /// Usage: weights beyond f32. Rejected: a basis whose coefficients do not fit together.
    pub fn predict(&self, basis: &Basis) -> Result<Option<Fidelity>> {
        self.check(Source::Basis(basis))?;
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
