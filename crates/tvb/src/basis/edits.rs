//! Weights over the atoms of a basis → what has to be streamed.

use super::atoms::Atoms;
use super::open::Basis;
use crate::error::Result;
use crate::ops::reconstruct::{Edits, Source};

/// Edits Σ_m weights\[k\]\[m\]·s_m from a basis, one for each row of `atom_weights` (each of length M).
///
/// # Errors
/// Rejected: atoms that are missing, damaged or do not fit together. Failed: I/O.
pub fn edits(basis: &Basis, atom_weights: &[Vec<f64>]) -> Result<Edits> {
    let (source, weights) = match basis.atoms()? {
        Atoms::Plain(atoms) => (Source::Deltas(atoms), atom_weights.to_vec()),
        Atoms::Coded(atoms) => {
            let coding = basis.coding();
            let of_columns = |weights: &Vec<f64>| match &coding {
                Some(coding) => coding.column_weights(weights),
                None => weights.clone(),
            };
            (Source::Coded(atoms), atom_weights.iter().map(of_columns).collect())
        }
        Atoms::Generated(atoms) => {
            let weights = atom_weights.iter().map(|weights| atoms.raw_weights(weights)).collect();
            (Source::Generated(atoms.raw), weights)
        }
    };
    Ok(Edits { source, weights, tensors: basis.stored_tensors().to_vec(), fit: basis.manifest.fit.clone() })
}
