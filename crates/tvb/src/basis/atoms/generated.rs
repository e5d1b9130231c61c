//! Atoms that are made from a seed and never stored: the `random` control.
//!
//! The stored (moved) tensors stand one after another in the order in which the manifest lists them, which is the
//! base's file order when the basis was made; each is row-major. Element number x of that row, counted from 0, is row x of
//! every raw column.

use crate::basis::manifest::Manifest;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::ops::generated::RawColumns;
use crate::solve::Generated;

/// Raw columns, and what makes atoms of them.
#[derive(Clone, Debug)]
pub struct GeneratedAtoms {
    /// The raw Gaussian columns.
    pub raw: RawColumns,
    mix: Generated,
}

impl GeneratedAtoms {
    /// The atoms of a manifest that says how they are made; `None` where they are stored. `mix` is the matrix among the
    /// coefficients that makes the raw columns orthonormal.
    ///
    /// # Errors
    /// Rejected: more elements than can be counted.
    pub fn of(manifest: &Manifest, mix: &Matrix) -> Result<Option<GeneratedAtoms>> {
        let Some(record) = &manifest.generated else { return Ok(None) };
        let names = manifest.stored.tensors.iter().cloned();
        let raw = RawColumns::new(record.seed, record.n_atoms, names.zip(record.shapes.iter().cloned()).collect())?;
        Ok(Some(GeneratedAtoms { raw, mix: Generated { seed: record.seed, mix: mix.clone() } }))
    }

    /// Weights over atoms as weights over the raw columns, both of length M.
    pub fn raw_weights(&self, weights: &[f64]) -> Vec<f64> {
        self.mix.raw_weights(weights)
    }
}
