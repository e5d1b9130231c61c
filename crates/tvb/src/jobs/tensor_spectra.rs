//! How the task vectors lie in each tensor: how much of the change is there, and how many directions it has.
//!
//! Where a tensor's effective rank is small, few atoms hold what the tasks do there; where it is near T, no two tasks change the
//! tensor alike, and that is where a basis of few atoms loses.

use super::spectra::{decompose, on_cpu_instead};
use crate::basis::Basis;
use crate::matrix::Matrix;
use crate::ops::{Grams, Per, unpack_triangle};
use serde::Serialize;
use tvb_kernels::{CpuEngine, Engine};

/// Decompositions are held to about so many multiplications, one counted as 10·T³: a second or so.
const WORK: usize = 8_000_000_000;
/// And to so many entries of all matrices together.
const MOST_ENTRIES: usize = 32 << 20;

/// How the task vectors lie in one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSpectrum {
    /// The tensor's name.
    pub tensor: String,
    /// Its part of Σt ‖τt‖².
    pub share: f64,
    /// (Σλ)²/Σλ² of its Gram matrix: how many equally strong directions would be as spread, 1 to T. `None` where it was not asked
    /// for.
    pub effective_rank: Option<f64>,
    /// λ1/Σλ: the part of its change that one direction holds.
    pub first_share: Option<f64>,
}

/// The tensors that tasks move, those with the largest share first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSpectra {
    /// One for each tensor.
    pub tensors: Vec<TensorSpectrum>,
    /// How many of them, from the first, have a spectrum: all, unless tensors and tasks are so many that it would take long.
    pub n_decomposed: usize,
    /// What the user should be told, where a device failed or got something wrong.
    #[serde(skip)]
    pub warning: Option<String>,
}

/// Of a Gram file's matrices; `None` where it has one for the whole model.
pub fn tensor_spectra_of_grams(grams: &Grams, engine: &Engine) -> Option<TensorSpectra> {
    if grams.per != Per::Tensor {
        return None;
    }
    let n = grams.n_tasks();
    let names = grams.tensors.iter().map(|tensor| tensor.name.as_str());
    let matrices = (0..grams.n_slots()).map(|slot| unpack_triangle(grams.triangle(slot), n)).collect::<Vec<_>>();
    tensor_spectra(names.zip(&matrices), n, engine)
}

/// Of a basis; `None` where its Gram matrices are not known by tensor.
pub fn tensor_spectra_of_basis(basis: &Basis, engine: &Engine) -> Option<TensorSpectra> {
    let n = basis.n_tasks();
    // Tensors that no task moves have a Gram of zeros and are not among those stored.
    let is_moved = |gram: &&Matrix| (0..n).any(|t| gram[(t, t)] > 0.0);
    let moved: Vec<&Matrix> = basis.coefficients.grams.iter().filter(is_moved).collect();
    let tensors = &basis.manifest.stored.tensors;
    if moved.len() != tensors.len() || moved.len() < 2 {
        return None;
    }
    tensor_spectra(tensors.iter().map(String::as_str).zip(moved), n, engine)
}

fn tensor_spectra<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a Matrix)>,
    n: usize,
    engine: &Engine,
) -> Option<TensorSpectra> {
    let trace = |gram: &Matrix| (0..n).map(|t| gram[(t, t)]).sum::<f64>();
    let mut moved: Vec<(&str, &Matrix, f64)> =
        tensors.map(|(name, gram)| (name, gram, trace(gram))).filter(|(.., trace)| *trace > 0.0).collect();
    // Of a damaged file nothing is told.
    if moved.is_empty() || moved.iter().any(|(_, gram, _)| !gram.is_finite()) {
        return None;
    }
    moved.sort_by(|a, b| b.2.total_cmp(&a.2));
    let total: f64 = moved.iter().map(|(.., trace)| trace).sum();
    let affordable = (WORK / (10 * n.pow(3)).max(1)).min(MOST_ENTRIES / (n * n).max(1)).max(1);
    let wanted: Vec<&Matrix> = moved.iter().take(affordable).map(|(_, gram, _)| *gram).collect();
    let on_cpu = Engine::Cpu(CpuEngine::new());
    let (found, warning) = match decompose(&wanted, n, if engine.decomposes(n) { engine } else { &on_cpu }) {
        Ok(found) => found,
        Err(error) => (decompose(&wanted, n, &on_cpu).unwrap_or_default().0, Some(on_cpu_instead(&error))),
    };
    let n_decomposed = found.len();
    let mut values = found.into_iter().map(|eigh| eigh.values);
    let one = |(name, _, trace): (&str, &Matrix, f64)| {
        let spread = values.next().map(|values| Spread::of(&values));
        TensorSpectrum {
            tensor: name.to_owned(),
            share: trace / total,
            effective_rank: spread.map(|spread| spread.effective_rank),
            first_share: spread.map(|spread| spread.first_share),
        }
    };
    Some(TensorSpectra { tensors: moved.into_iter().map(one).collect(), n_decomposed, warning })
}

/// What eigenvalues, in descending order and not all zero, say of the directions.
#[derive(Clone, Copy)]
struct Spread {
    effective_rank: f64,
    first_share: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        let largest = values.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
        // In units of the first, none of which leaves f64's range when it is squared.
        let of_largest = || values.iter().map(|value| value.max(0.0) / largest);
        let (sum, squares) = (of_largest().sum::<f64>().max(1.0), of_largest().map(|x| x * x).sum::<f64>().max(1.0));
        Spread { effective_rank: sum * sum / squares, first_share: 1.0 / sum }
    }
}
