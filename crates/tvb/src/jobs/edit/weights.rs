//! What an edit is: weights over tasks, what they become over atoms, and how true the result will be.

use crate::basis::{self, Basis};
use crate::checkpoint::Inputs;
use crate::columns::plan::Plan;
use crate::error::Result;
use crate::ops::reconstruct::Edits;
use crate::solve::{Fidelity, Gram, Rule, edit_fidelity};

/// What an edit is formed from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A basis: weights over tasks become weights over atoms.
    Basis(&'a Basis),
    /// The original checkpoints: plain task arithmetic.
    Checkpoints(&'a Plan),
}

impl Source<'_> {
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
    /// Weights over the columns of `source`, λ included.
    ///
    /// # Errors
    /// Rejected: a basis whose coefficients do not fit together.
    pub fn weights(&self, source: Source<'_>) -> Result<Vec<f64>> {
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

    /// How true the edit from a basis is to the same edit from the originals; `None` where the basis does not know its Gram
    /// matrix (an imported one).
    ///
    /// # Errors
    /// Rejected: a basis whose coefficients do not fit together.
    pub fn predict(&self, basis: &Basis) -> Result<Option<Fidelity>> {
        let Some(gram) = basis.total_gram() else { return Ok(None) };
        let coefficients = basis.solved()?;
        if coefficients.encode.n_columns() == 0 && coefficients.generated.is_none() {
            return Ok(None);
        }
        edit_fidelity(&Gram::new(gram)?, &coefficients, &self.alpha, self.rule).map(Some)
    }
}
