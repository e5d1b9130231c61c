//! What a solver hands on: the encode B and decode W, and what a user must be told about them.

use super::method::Coordinates;
use crate::error::{Error, Result};
use faer::Mat;

/// How an edit Σ αt·τt is made from the atoms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    pub encode: Mat<f64>,
    /// W, \[n_stored, n_tasks\].
    pub decode: Mat<f64>,
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
    pub mix: Mat<f64>,
}

impl Generated {
    /// Weights over the raw columns that stand for `weights` over the orthonormal atoms.
    pub fn raw_weights(&self, weights: &[f64]) -> Vec<f64> {
        super::linear::times(self.mix.as_ref(), weights)
    }
}

impl Coefficients {
    /// B and W from a basis that was read: every vector takes part in rule `sum`, but the last of `pca`. B may have no
    /// columns, where the atoms are no mixtures of the tasks. Rejected unless the shapes fit and all is finite.
    pub fn from_parts(method: &str, encode: Mat<f64>, decode: Mat<f64>) -> Result<Coefficients> {
        let method = super::Method::parse(method)?.name();
        let n_stored = decode.nrows();
        let fits = encode.ncols() == 0 || (encode.nrows(), encode.ncols()) == (decode.ncols(), n_stored);
        if !fits || n_stored == 0 || decode.ncols() == 0 {
            return Err(Error::rejected(format!(
                "encode is {} x {} and decode {} x {}: expected tasks x atoms and atoms x tasks",
                encode.nrows(),
                encode.ncols(),
                decode.nrows(),
                decode.ncols()
            )));
        }
        for (name, matrix) in [("encode", &encode), ("decode", &decode)] {
            if matrix.col_iter().any(|column| column.iter().any(|x| !x.is_finite())) {
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
        self.decode.ncols()
    }

    /// Vectors that a recovery needs: M, or M + 1 with the mean of `pca`. They are stored unless they are generated.
    pub fn n_stored(&self) -> usize {
        self.decode.nrows()
    }

    /// Weights over the stored vectors for Σ αt·τ̂t, α \[n_tasks\], or for the plain sum of atoms.
    pub fn weights(&self, alpha: &[f64], rule: Rule) -> Vec<f64> {
        match rule {
            Rule::Projected => super::linear::times(self.decode.as_ref(), alpha),
            Rule::Sum => self.in_sum.iter().map(|&counted| f64::from(u8::from(counted))).collect(),
        }
    }
}
