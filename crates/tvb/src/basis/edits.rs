//! Weights over the atoms of a basis → what has to be streamed.

use super::atoms::Atoms;
use super::open::Basis;
use crate::error::Result;
use crate::ops::reconstruct::{Edits, Source};
use crate::solve::Coding;

/// A basis whose atoms are open, for many edits.
#[derive(Clone, Debug)]
pub struct OpenAtoms<'a> {
    basis: &'a Basis,
    atoms: Atoms,
    coding: Option<Coding>,
}

impl<'a> OpenAtoms<'a> {
    /// Opens the atoms.
    ///
    /// # Errors
    /// Rejected: atoms that are missing, damaged or do not fit together. Failed: I/O.
    pub fn new(basis: &'a Basis) -> Result<OpenAtoms<'a>> {
        Ok(OpenAtoms { basis, atoms: basis.atoms()?, coding: basis.coding() })
    }

    /// Edits Σ_m weights\[k\]\[m\]·s_m, one for each row of `atom_weights` (each of length M).
    pub fn edits(&self, atom_weights: &[Vec<f64>]) -> Edits {
        let (source, weights) = match &self.atoms {
            Atoms::Plain(atoms) => (Source::Deltas(atoms.clone()), atom_weights.to_vec()),
            Atoms::Coded(atoms) => {
                let of_columns = |weights: &Vec<f64>| match &self.coding {
                    Some(coding) => coding.column_weights(weights),
                    None => weights.clone(),
                };
                (Source::Coded(atoms.clone()), atom_weights.iter().map(of_columns).collect())
            }
            Atoms::Generated(atoms) => {
                let weights = atom_weights.iter().map(|weights| atoms.raw_weights(weights)).collect();
                (Source::Generated(atoms.raw.clone()), weights)
            }
        };
        let (tensors, fit) = (self.basis.stored_tensors().to_vec(), self.basis.manifest.fit.clone());
        Edits { source, weights, tensors, fit, blocks: Vec::new() }
    }
}

/// Edits Σ_m weights\[k\]\[m\]·s_m from a basis, one for each row of `atom_weights` (each of length M).
///
/// # Errors
/// Rejected: atoms that are missing, damaged or do not fit together. Failed: I/O.
pub fn edits(basis: &Basis, atom_weights: &[Vec<f64>]) -> Result<Edits> {
    Ok(OpenAtoms::new(basis)?.edits(atom_weights))
}
