//! How true an edit will be whose weights differ between tensors: what is known of each tensor, added up.

use crate::basis::Basis;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::solve::{Fidelity, Gram, Parts, Rule, coded_edit_fidelity_in_parts, edit_fidelity_in_parts};
use std::collections::{HashMap, HashSet};

/// Tensors that share weights over tasks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WeightedTensors {
    /// α \[n_tasks\], with the tensors' factors, without λ.
    pub alpha: Vec<f64>,
    /// Their names.
    pub tensors: Vec<String>,
}

/// How true the edit from a basis is to the same edit from the originals; `None` where the basis does not know the Gram matrix of
/// each tensor, or knows only the whole model's of what its atoms are made of.
pub(super) fn predict_in_blocks(basis: &Basis, blocks: &[WeightedTensors], rule: Rule) -> Result<Option<Fidelity>> {
    let coefficients = basis.solved()?;
    let is_of_whole = basis.manifest.shared().is_some()
        || coefficients.generated.is_some()
        || coefficients.encode.n_columns() == 0
        || basis.coefficients.gram_errors.is_some();
    let Some(grams) = basis.tensor_grams().filter(|_| !is_of_whole) else { return Ok(None) };
    let gram_of: HashMap<&str, &Matrix> = basis.stored_tensors().iter().map(String::as_str).zip(grams).collect();
    let n = basis.n_tasks();
    let sum = |names: &mut dyn Iterator<Item = &str>| {
        let grams: Vec<&&Matrix> = names.filter_map(|name| gram_of.get(name)).collect();
        Matrix::from_fn(n, n, |i, j| grams.iter().map(|gram| gram[(i, j)]).sum())
    };
    if let (Some(coding), Some(record)) = (basis.coding(), &basis.manifest.coded) {
        // What shared columns are off by is known of all tensors together.
        if !coding.kept_errors.is_empty() {
            return Ok(None);
        }
        let coded = basis.stored_tensors().iter().zip(&record.tensors).filter(|(_, tensor)| tensor.coded);
        let coded: HashSet<&str> = coded.map(|(name, _)| name.as_str()).collect();
        let parts = |WeightedTensors { alpha, tensors }: &WeightedTensors| {
            let of = |is_coded: bool| {
                let names = tensors.iter().map(String::as_str);
                sum(&mut names.filter(|name| coded.contains(name) == is_coded))
            };
            (Parts { coded: of(true), raw: of(false) }, alpha.clone())
        };
        let parts: Vec<(Parts, Vec<f64>)> = blocks.iter().map(parts).collect();
        return coded_edit_fidelity_in_parts(&parts, &coefficients, &coding, rule).map(Some);
    }
    // Atoms that cannot be opened are no matter of a prediction.
    let atom = if basis.n_atoms() == 0 { None } else { basis.open_atom(0).ok() };
    let part = |WeightedTensors { alpha, tensors }: &WeightedTensors| {
        let rows = |name: &String| Some(atom.as_ref()?.get(name)?.n_elements() as u64);
        let gram = Gram::new(sum(&mut tensors.iter().map(String::as_str)))?;
        Ok((gram.over(tensors.iter().filter_map(rows).sum()), alpha.clone()))
    };
    let parts: Vec<(Gram, Vec<f64>)> = blocks.iter().map(part).collect::<Result<_>>()?;
    edit_fidelity_in_parts(&parts, &coefficients, rule).map(Some)
}
