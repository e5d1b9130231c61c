//! A tensor that an adapter both moves and rescales (DoRA): rows or columns of θ0 + s·L·R, each times a gain of its own. It is
//! formed from the base's values where it is read.

use super::LowRank;
use super::budget::{Budget, Charge};
use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What makes the tensor of the base's. Clones share it.
#[derive(Clone)]
pub struct Rescaled {
    parts: Arc<Parts>,
}

struct Parts {
    factors: LowRank,
    gains: Vec<f64>,
    axis: Axis,
    _charge: Charge,
}

/// What has a gain of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Each row of the matrix.
    Rows,
    /// Each column of the matrix.
    Columns,
}

impl Rescaled {
    /// The matrix θ0 + `factors`, with one of `gains` for each row or column. What it takes is charged to `budget`; `path` is for
    /// messages.
    ///
    /// # Errors
    /// Rejected: not as many gains, one that is not finite, too little memory.
    pub fn new(factors: LowRank, gains: Vec<f64>, axis: Axis, path: &Path, budget: &Budget) -> Result<Rescaled> {
        let n = match axis {
            Axis::Rows => factors.n_rows(),
            Axis::Columns => factors.n_columns(),
        };
        if gains.len() != n || gains.iter().any(|gain| !gain.is_finite()) {
            return Err(Error::rejected(format!(
                "{}: {n} finite gains expected, {} numbers found",
                path.display(),
                gains.len()
            )));
        }
        let charge = budget.charge(path, "the gains of an adapter", 8 * n as u64)?.settled();
        Ok(Rescaled { parts: Arc::new(Parts { factors, gains, axis, _charge: charge }) })
    }

    /// Elements of the matrix.
    pub fn n_elements(&self) -> usize {
        self.parts.factors.n_rows() * self.parts.factors.n_columns()
    }

    /// Forms elements from element `first` on, row-major: `out` holds those of the base and gets the tensor's. Sums and products
    /// are f64's, rounded once.
    pub fn form(&self, first: usize, base: &[f64], out: &mut [f32]) {
        let Parts { factors, gains, axis, .. } = &*self.parts;
        factors.form(first, out);
        let n_columns = factors.n_columns().max(1);
        for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
            let element = first + at;
            let gain = match axis {
                Axis::Rows => gains.get(element / n_columns),
                Axis::Columns => gains.get(element % n_columns),
            };
            *out = ((base + f64::from(*out)) * gain.copied().unwrap_or(0.0)) as f32;
        }
    }
}

impl PartialEq for Rescaled {
    fn eq(&self, other: &Rescaled) -> bool {
        let (own, other) = (&*self.parts, &*other.parts);
        own.factors == other.factors && own.gains == other.gains && own.axis == other.axis
    }
}

impl fmt::Debug for Rescaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rescaled({:?}, {} gains)", self.parts.factors, self.parts.gains.len())
    }
}
