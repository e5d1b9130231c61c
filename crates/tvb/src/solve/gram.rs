//! The Gram matrix of the task vectors: the only thing a solver sees of the data.

use super::linear;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::MatRef;
use std::sync::OnceLock;

/// Largest asymmetry and largest violation of |Gij| ≤ √(Gii·Gjj) that pass for rounding: Grams come from f32 products.
const ROUNDING: f64 = 1e-4;

/// G = VᵀV, \[n_tasks, n_tasks\]: inner products of the task vectors, finite, symmetric, in squared units of the
/// parameters. What is derived from it (eigenvalues, scaled copies) is computed when first asked for and kept.
#[derive(Clone, Debug)]
pub struct Gram {
    matrix: Matrix,
    trace: f64,
    n_rows: u64,
    kept: Kept,
    unit: OnceLock<Box<Gram>>,
    balanced: OnceLock<Box<Gram>>,
}

/// Eigenvalues and eigenvectors of a Gram matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// λ1 ≥ … ≥ λT ≥ 0, in the Gram's units; what rounding left below zero is zero here.
    pub values: Vec<f64>,
    /// \[n_tasks, n_tasks\]: the eigenvectors in the columns, orthonormal, the largest entry of each positive.
    pub vectors: Matrix,
    /// The lowest eigenvalue as computed: below zero by more than rounding only if the matrix is no Gram matrix.
    pub lowest: f64,
}

/// Spectra of a Gram matrix and of what methods derive from it, each kept once it is known (`spectra.rs` has what they are of).
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) itself: OnceLock<Spectrum>,
    pub(super) deflated: OnceLock<Spectrum>,
    pub(super) centred: OnceLock<Spectrum>,
    pub(super) affinity: OnceLock<Spectrum>,
}

impl Spectrum {
    pub(super) fn of(matrix: MatRef<'_, f64>) -> Spectrum {
        let (values, vectors) = linear::eigen(matrix);
        Spectrum::from_pairs(values, Matrix::of(vectors))
    }

    /// Of eigenvalues in descending order, as computed.
    pub(super) fn from_pairs(mut values: Vec<f64>, vectors: Matrix) -> Spectrum {
        let lowest = values.last().copied().unwrap_or(0.0);
        for value in &mut values {
            *value = value.max(0.0);
        }
        Spectrum { values, vectors, lowest }
    }

    /// Number of eigenvalues above T·ε·λ1: the dimensions the tasks really span.
    pub fn rank(&self) -> usize {
        let floor = self.values.len() as f64 * f64::EPSILON * self.values[0];
        self.values.iter().filter(|&&value| value > floor).count()
    }

    /// (Σλ)²/Σλ²: how many equally strong directions would be as spread; 0 for an all-zero Gram.
    pub fn effective_rank(&self) -> f64 {
        let sum: f64 = self.values.iter().sum();
        let squares: f64 = self.values.iter().map(|value| value * value).sum();
        if squares > 0.0 { sum * sum / squares } else { 0.0 }
    }

    /// Σ_{k>M} λk: the squared error of all tasks together that no M atoms can go below.
    pub fn tail(&self, n_atoms: usize) -> f64 {
        self.values.iter().skip(n_atoms).fold(0.0, |sum, value| sum + value)
    }
}

impl Gram {
    /// Checks that `matrix` can be a Gram matrix: square, at least one task, finite, symmetric, diagonal not negative
    /// and no entry larger than its tasks' norms allow. It is then made exactly symmetric.
    ///
    /// # Errors
    /// Rejected: anything else, naming the entry.
    pub fn new(matrix: Matrix) -> Result<Gram> {
        let n = matrix.n_rows();
        if n == 0 || matrix.n_columns() != n {
            return Err(Error::rejected(format!(
                "Gram matrix is {n} x {}: expected a square of at least one task",
                matrix.n_columns()
            )));
        }
        for j in 0..n {
            for i in 0..n {
                check_entry(&matrix, i, j)?;
            }
        }
        let matrix = Matrix::from_fn(n, n, |i, j| 0.5 * (matrix[(i, j)] + matrix[(j, i)]));
        let trace = linear::trace(matrix.view());
        if !trace.is_finite() {
            return Err(Error::rejected("Gram matrix: the squared norms add up to more than f64 can hold"));
        }
        Ok(Gram::of(matrix, trace))
    }

    fn of(matrix: Matrix, trace: f64) -> Gram {
        let (unit, balanced) = (OnceLock::new(), OnceLock::new());
        Gram { matrix, trace, n_rows: 0, kept: Kept::default(), unit, balanced }
    }

    /// The same, known to be the sum over `n_rows` parameters (those that are stored): what rounding them adds in all
    /// depends on their number.
    #[must_use]
    pub fn over(self, n_rows: u64) -> Gram {
        Gram { n_rows, ..self }
    }

    /// How many parameters it is the sum over; 0 where that is not known.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// T.
    pub fn n_tasks(&self) -> usize {
        self.matrix.n_rows()
    }

    /// G itself, \[n_tasks, n_tasks\].
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// The same for the linear algebra.
    pub(super) fn view(&self) -> MatRef<'_, f64> {
        self.matrix.view()
    }

    /// Σt ‖τt‖², in squared units of the parameters.
    pub fn trace(&self) -> f64 {
        self.trace
    }

    /// \[n_tasks\]: ‖τt‖, in the parameters' units.
    pub fn norms(&self) -> Vec<f64> {
        (0..self.n_tasks()).map(|t| self.matrix[(t, t)].sqrt()).collect()
    }

    /// \[n_tasks, n_tasks\]: cos(τi, τj) in [−1, 1]; a zero task has cosine 1 with itself and 0 with the others.
    pub fn cosines(&self) -> Matrix {
        let norms = self.norms();
        Matrix::from_fn(self.n_tasks(), self.n_tasks(), |i, j| match (i == j, norms[i] * norms[j]) {
            (true, _) => 1.0,
            (false, 0.0) => 0.0,
            // Dividing twice keeps tiny norms from underflowing in their product.
            (false, _) => (self.matrix[(i, j)] / norms[i] / norms[j]).clamp(-1.0, 1.0),
        })
    }

    /// ε = max |cos(τi, τj)| over i ≠ j: how far the tasks are from orthogonal; 0 for a single task.
    pub fn epsilon(&self) -> f64 {
        let cosines = self.cosines();
        let n = self.n_tasks();
        (0..n).flat_map(|j| (0..j).map(move |i| (i, j))).map(|at| cosines[at].abs()).fold(0.0, f64::max)
    }

    /// Eigenvalues and eigenvectors, computed once.
    pub fn spectrum(&self) -> &Spectrum {
        self.kept.itself.get_or_init(|| {
            // Of G/tr G, so that tiny and huge Grams go through the same arithmetic.
            let unit = self.unit();
            if std::ptr::eq(unit, self) {
                return Spectrum::of(self.view());
            }
            let mut found = unit.spectrum().clone();
            found.values.iter_mut().for_each(|value| *value *= self.trace);
            found.lowest *= self.trace;
            found
        })
    }

    /// The Gram matrix of some of the tasks, in the order given.
    ///
    /// # Errors
    /// Rejected: no task, or an index past the last.
    pub fn subset(&self, tasks: &[usize]) -> Result<Gram> {
        if tasks.is_empty() {
            return Err(Error::rejected("no task selected: expected at least one"));
        }
        if let Some(&bad) = tasks.iter().find(|&&t| t >= self.n_tasks()) {
            return Err(Error::rejected(format!("task number {bad}: expected 0 to {}", self.n_tasks() - 1)));
        }
        Gram::new(Matrix::from_fn(tasks.len(), tasks.len(), |i, j| self.matrix[(tasks[i], tasks[j])]))
    }

    /// L* = Σ_{k>M} λk / T²: no basis of `n_atoms` atoms has a lower loss.
    pub fn spectral_bound(&self, n_atoms: usize) -> f64 {
        self.spectrum().tail(n_atoms) / (self.n_tasks() as f64).powi(2)
    }

    /// G/tr G, which every solver works on; an all-zero Gram is its own.
    pub(super) fn unit(&self) -> &Gram {
        if self.trace <= 0.0 || self.trace == 1.0 {
            return self;
        }
        self.unit.get_or_init(|| {
            let matrix = Matrix::of(faer::Scale(1.0 / self.trace) * self.view());
            Box::new(Gram::of(matrix, 1.0))
        })
    }

    /// D^{-1/2}·G·D^{-1/2}, scaled to trace 1: every task as if it had the same length; zero tasks stay zero.
    pub(super) fn balanced(&self) -> &Gram {
        self.balanced.get_or_init(|| {
            let mut matrix = self.cosines();
            for t in (0..self.n_tasks()).filter(|&t| self.matrix[(t, t)] <= 0.0) {
                matrix[(t, t)] = 0.0;
            }
            let trace = linear::trace(matrix.view());
            let scale = if trace > 0.0 { 1.0 / trace } else { 1.0 };
            Box::new(Gram::of(Matrix::of(faer::Scale(scale) * matrix.view()), trace * scale))
        })
    }

    /// Where spectra of what is derived from it are kept.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }
}

fn check_entry(matrix: &Matrix, i: usize, j: usize) -> Result<()> {
    let (value, across) = (matrix[(i, j)], matrix[(j, i)]);
    if !value.is_finite() {
        return Err(Error::rejected(format!("Gram matrix entry ({i}, {j}) is {value}: expected a finite number")));
    }
    if i == j && value < 0.0 {
        return Err(Error::rejected(format!(
            "Gram matrix entry ({i}, {i}) is {value}: expected a squared norm, 0 or more"
        )));
    }
    // Compared as products of norms, neither of which can overflow.
    let most = matrix[(i, i)].max(0.0).sqrt() * matrix[(j, j)].max(0.0).sqrt();
    if (value - across).abs() > ROUNDING * most {
        return Err(Error::rejected(format!(
            "Gram matrix entries ({i}, {j}) and ({j}, {i}) are {value} and {across}: expected them to be equal"
        )));
    }
    if value.abs() > most * (1.0 + ROUNDING) {
        return Err(Error::rejected(format!(
            "Gram matrix entry ({i}, {j}) is {value}: expected at most {most}, the product of the two norms"
        )));
    }
    Ok(())
}
