//! What a solver hands on: the encode B and decode W, and what a user must be told about them.

use super::method::Coordinates;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use serde::Deserialize;

/// How an edit Σ αt·τt is made from the atoms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Weights Wα over the atoms: the recovered task vectors, added.
    #[default]
    Projected,
    /// Weight 1 for every atom, whatever α is: the paper's addition.
    Sum,
}

/// B and W of one group of tensors. Atoms are S = VB, recovered task vectors V̂ = SW.
#[derive(Clone, Debug, PartialEq)]
pub struct Coefficients {
    /// The method's name.
    pub method: &'static str,
    /// M as asked for. What is stored may differ: see [`Coefficients::n_stored`].
    pub n_atoms: usize,
    /// Whether the method saw the tasks scaled to one length.
    pub balance: bool,
    /// The atoms' coordinates.
    pub coordinates: Coordinates,
    /// B, \[n_tasks, n_stored\]: one column per stored vector (`pca` stores the mean last). No columns where the atoms are
    /// generated.
    pub encode: Matrix,
    /// W, \[n_stored, n_tasks\].
    pub decode: Matrix,
    /// \[n_stored\]: whether a vector takes part in the rule `sum`; all do but the mean of `pca`.
    pub in_sum: Vec<bool>,
    /// For `random`: how to make the atoms.
    pub generated: Option<Generated>,
    /// What a user must be told: a fallback that was used, a mean that is counted, …
    pub notes: Vec<String>,
}

/// Atoms that are made from a seed: R·mix, R the raw columns of [`super::random::Generator`].
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The generator's seed.
    pub seed: u64,
    /// \[n_atoms, n_atoms\], upper triangular: makes the raw columns orthonormal.
    pub mix: Matrix,
}

impl Generated {
    /// \[n_atoms\]: weights over the raw columns that stand for `weights` \[n_atoms\] over the orthonormal atoms.
    pub fn raw_weights(&self, weights: &[f64]) -> Vec<f64> {
        super::linear::times(self.mix.view(), weights)
    }
}

impl Coefficients {
    /// B \[n_tasks, n_stored\] and W \[n_stored, n_tasks\] from a basis that was read: every vector takes part in rule `sum`,
    /// but the last of `pca`. B may have no columns, where the atoms are no mixtures of the tasks.
    ///
    /// # Errors
    /// Rejected unless the shapes fit and all is finite. Usage: an unknown method.
    pub fn from_parts(method: &str, encode: Matrix, decode: Matrix) -> Result<Coefficients> {
        let method = super::Method::parse(method)?.name();
        let n_stored = decode.n_rows();
        let fits = encode.n_columns() == 0 || (encode.n_rows(), encode.n_columns()) == (decode.n_columns(), n_stored);
        if !fits || n_stored == 0 || decode.n_columns() == 0 {
            return Err(Error::rejected(format!(
                "encode is {} x {} and decode {} x {}: expected tasks x atoms and atoms x tasks",
                encode.n_rows(),
                encode.n_columns(),
                decode.n_rows(),
                decode.n_columns()
            )));
        }
        for (name, matrix) in [("encode", &encode), ("decode", &decode)] {
            if !matrix.is_finite() {
                return Err(Error::rejected(format!("{name} holds values that are not finite")));
            }
        }
        let in_sum: Vec<bool> = (0..n_stored).map(|m| method != "pca" || m + 1 < n_stored).collect();
        Ok(Coefficients {
            method,
            n_atoms: in_sum.iter().filter(|&&counted| counted).count(),
            balance: false,
            coordinates: Coordinates::Convex,
            encode,
            decode,
            in_sum,
            generated: None,
            notes: Vec::new(),
        })
    }

    /// T.
    pub fn n_tasks(&self) -> usize {
        self.decode.n_columns()
    }

    /// Vectors that a recovery needs: M, or M + 1 with the mean of `pca`. They are stored unless they are generated.
    pub fn n_stored(&self) -> usize {
        self.decode.n_rows()
    }

    /// \[n_stored\]: weights over the stored vectors for Σ αt·τ̂t, α \[n_tasks\], or for the plain sum of atoms.
    pub fn weights(&self, alpha: &[f64], rule: Rule) -> Vec<f64> {
        match rule {
            Rule::Projected => super::linear::times(self.decode.view(), alpha),
            Rule::Sum => self.in_sum.iter().map(|&counted| f64::from(u8::from(counted))).collect(),
        }
    }
}
