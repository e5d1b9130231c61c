//! Every error of a basis, exactly, from G, B and W alone: no parameter is read.
//!
//! With E = I − BW: δt² = (EᵀGE)tt = ‖τ̂t − τt‖². An edit with weights α over tasks is c = BWα (or B·1) over tasks, so
//! its angle and length against Vα are quadratic forms in G. Random atoms, which are not mixtures of the tasks, are
//! orthonormal with SᵀV = W, and the same quantities follow from that.
//!
//! An error alone says little: networks feel a task that is shrunk far more than noise beside it. So it is also told apart:
//! τ̂ = gain·τ + noise, the noise orthogonal to τ, and δt²/‖τt‖² = (1 − gain)² + noise.

use super::coefficients::{Coefficients, Rule};
use super::rounding::{self, Rounding, StoredAtoms};
use super::{Gram, as_they_are, linear};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::{Mat, Side};

/// A squared length below this part of (Σ|weight|·length)² is rounding: the edit, or what it stands for, is zero.
const VANISHES: f64 = 1e-14;
/// Conditions past this are as good as infinite in f64.
const SINGULAR: f64 = 1e14;

/// What a basis loses. "Relative" errors are squared lengths over squared lengths: ‖τ̂ − τ‖²/‖τ‖². Those of a zero task
/// are measured against the mean ‖τ‖² instead, and are 0 where all tasks are zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// L = Σ δt² / T², the paper's objective, in squared units of the parameters.
    pub loss: f64,
    /// L*: what no basis with as many stored vectors can go below.
    pub spectral_bound: f64,
    /// L·T²/tr G: the part of all squared norms that is lost.
    pub relative_loss: f64,
    /// L*·T²/tr G.
    pub relative_bound: f64,
    /// \[n_tasks\]: δt².
    pub squared_errors: Vec<f64>,
    /// \[n_tasks\]: δt²/‖τt‖².
    pub relative_errors: Vec<f64>,
    /// Mean of `relative_errors`.
    pub mean: f64,
    /// Largest of `relative_errors`.
    pub worst: f64,
    /// The task it belongs to.
    pub worst_task: usize,
    /// \[n_tasks\]: ⟨τt, τ̂t⟩/‖τt‖²; 1 for a zero task.
    pub gains: Vec<f64>,
    /// \[n_tasks\]: ‖τ̂t − gain·τt‖²/‖τt‖².
    pub noises: Vec<f64>,
    /// Adding all tasks with weight 1 by the rule `projected`.
    pub projected: Fidelity,
    /// The same by the rule `sum`.
    pub sum: Fidelity,
    /// λmax/λmin of the atoms' Gram SᵀS; infinite where they are dependent.
    pub condition: f64,
    /// \[n_stored\]: ‖sm‖.
    pub atom_norms: Vec<f64>,
    /// \[n_tasks\]: ‖τt‖.
    pub norms: Vec<f64>,
    /// \[n_tasks\]: ‖τ̂t‖.
    pub recovered_norms: Vec<f64>,
    /// max |cos(τi, τj)| over i ≠ j; with `norms` and `squared_errors` it is what the paper's bounds are made of.
    pub epsilon: f64,
    /// (Σλ)²/Σλ² of G.
    pub effective_rank: f64,
    /// \[n_tasks, n_tasks\]: cos(τ̂i, τj). Off the diagonal: how far negating task i touches task j.
    pub leakage: Matrix,
    /// \[n_tasks, n_tasks\]: τ̂iᵀτj.
    pub recovered_dot_task: Matrix,
    /// What storage in f32, bf16 and f16 adds: one entry for each of [`rounding::STORAGE_DTYPES`].
    pub rounding: Vec<Rounding>,
}

/// How true an edit made from the basis is to the same edit made from the task vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    /// Cosine between the two; 1 where both vanish, 0 where one does.
    pub cosine: f64,
    /// Length of the edit from the basis over the true one; 1 where both vanish, infinite where only the true one does.
    pub norm_ratio: f64,
    /// What storage in f32, bf16 and f16 adds to the squared length of the difference, over the true edit's squared
    /// length; 0 where that vanishes.
    pub rounding: [f64; 3],
}

/// Inner products of the stored vectors with each other and with the tasks.
struct Products {
    /// SᵀS, \[n_stored, n_stored\].
    atom_gram: Mat<f64>,
    /// SᵀV, \[n_stored, n_tasks\].
    atom_task: Mat<f64>,
}

impl Products {
    fn new(gram: &Gram, coefficients: &Coefficients) -> Products {
        if coefficients.generated.is_some() {
            let n = coefficients.n_stored();
            return Products { atom_gram: Mat::identity(n, n), atom_task: coefficients.decode.view().to_owned() };
        }
        let atom_task = linear::product(coefficients.encode.view().transpose(), gram.view());
        let atom_gram = linear::product(atom_task.as_ref(), coefficients.encode.view());
        Products { atom_gram, atom_task }
    }

    fn recovered(gram: &Gram, recovered: &Matrix, across: &Matrix) -> Result<Products> {
        let n_tasks = gram.n_tasks();
        let fits = |matrix: &Matrix| (matrix.n_rows(), matrix.n_columns()) == (n_tasks, n_tasks);
        if !fits(recovered) || !fits(across) {
            return Err(Error::rejected(format!("products of {n_tasks} recovered tasks expected, of others found")));
        }
        Ok(Products { atom_gram: recovered.view().to_owned(), atom_task: across.view().to_owned() })
    }

    /// ‖sm‖².
    fn squared_norms(&self) -> Vec<f64> {
        (0..self.atom_gram.nrows()).map(|m| self.atom_gram[(m, m)].max(0.0)).collect()
    }
}

/// Everything above for one basis; additions are those of all tasks with weight 1.
///
/// # Errors
/// Rejected where the coefficients are for another number of tasks.
pub fn assess(gram: &Gram, coefficients: &Coefficients) -> Result<Assessment> {
    check(gram, coefficients)?;
    let products = Products::new(gram, coefficients);
    let squared_errors = squared_errors(gram, coefficients, &products);
    Ok(assess_with(gram, coefficients, &products, squared_errors))
}

fn assess_with(gram: &Gram, coefficients: &Coefficients, products: &Products, squared_errors: Vec<f64>) -> Assessment {
    let n_tasks = gram.n_tasks();
    let decode = coefficients.decode.view();
    let recovered_dot_task = linear::product(decode.transpose(), products.atom_task.as_ref());
    let recovered = linear::product(products.atom_gram.as_ref(), decode);
    let recovered_norms: Vec<f64> = (0..n_tasks)
        .map(|t| linear::dot(&linear::column(decode, t), &linear::column(recovered.as_ref(), t)).max(0.0).sqrt())
        .collect();
    let norms = gram.norms();
    let squared_norms: Vec<f64> = norms.iter().map(|norm| norm * norm).collect();
    let relative_errors = relative(&squared_errors, &squared_norms);
    let leakage =
        Matrix::from_fn(n_tasks, n_tasks, |i, j| cosine(recovered_dot_task[(i, j)], recovered_norms[i], norms[j]));
    let total: f64 = squared_errors.iter().sum();
    let bound = gram.spectrum().tail(coefficients.n_stored());
    let per_trace = |x: f64| if gram.trace() > 0.0 { x / gram.trace() } else { 0.0 };
    let worst_task = largest(&relative_errors);
    let gains: Vec<f64> = (0..n_tasks)
        .map(|t| if squared_norms[t] > 0.0 { recovered_dot_task[(t, t)] / squared_norms[t] } else { 1.0 })
        .collect();
    let noises = relative_errors.iter().zip(&gains).map(|(error, gain)| (error - (1.0 - gain).powi(2)).max(0.0));
    let ones = vec![1.0; n_tasks];
    let atoms = products.squared_norms();
    Assessment {
        loss: total / (n_tasks as f64).powi(2),
        spectral_bound: gram.spectral_bound(coefficients.n_stored()),
        relative_loss: per_trace(total),
        relative_bound: per_trace(bound),
        mean: relative_errors.iter().sum::<f64>() / n_tasks as f64,
        worst: relative_errors.iter().copied().fold(0.0, f64::max),
        worst_task,
        noises: noises.collect(),
        gains,
        projected: fidelity(gram, coefficients, products, &ones, Rule::Projected),
        sum: fidelity(gram, coefficients, products, &ones, Rule::Sum),
        condition: condition(&products.atom_gram),
        rounding: rounding::of_tasks(
            decode,
            StoredAtoms { squared_norms: &stored(coefficients, &atoms), n_rows: gram.n_rows() },
            &squared_errors,
            &squared_norms,
        ),
        atom_norms: atoms.iter().map(|x| x.sqrt()).collect(),
        squared_errors,
        relative_errors,
        norms,
        recovered_norms,
        epsilon: gram.epsilon(),
        effective_rank: gram.spectrum().effective_rank(),
        leakage,
        recovered_dot_task: Matrix::of(recovered_dot_task),
    }
}

/// Everything above for tasks that are stored one by one and come back as others: `recovered` is their Gram matrix then, and
/// `across` has ⟨τ̂i, τj⟩, both \[n_tasks, n_tasks\].
///
/// # Errors
/// Rejected where a matrix is for another number of tasks.
pub fn assess_recovered(gram: &Gram, recovered: &Matrix, across: &Matrix) -> Result<Assessment> {
    let products = Products::recovered(gram, recovered, across)?;
    let entry = |t: usize| gram.matrix()[(t, t)] - 2.0 * across[(t, t)] + recovered[(t, t)];
    let squared_errors = (0..gram.n_tasks()).map(|t| entry(t).max(0.0)).collect();
    Ok(assess_with(gram, &as_they_are(gram.n_tasks()), &products, squared_errors))
}

/// Everything above for the tasks in `left` of a basis that the others have left: the atoms are mixtures of all of them still.
///
/// # Errors
/// Rejected where the coefficients are for another number of tasks, or a task is none of them.
pub fn assess_remaining(gram: &Gram, coefficients: &Coefficients, left: &[usize]) -> Result<Assessment> {
    check(gram, coefficients)?;
    let products = Products::new(gram, coefficients);
    let squared_errors = squared_errors(gram, coefficients, &products);
    let of_left = gram.subset(left)?;
    let (n_stored, n) = (coefficients.n_stored(), left.len());
    let decode = Matrix::from_fn(n_stored, n, |m, t| coefficients.decode[(m, left[t])]);
    let now = Coefficients { decode, encode: Matrix::empty(), ..coefficients.clone() };
    let atom_task = Mat::from_fn(n_stored, n, |m, t| products.atom_task[(m, left[t])]);
    let products = Products { atom_task, ..products };
    let squared_errors = left.iter().map(|&task| squared_errors[task]).collect();
    Ok(assess_with(&of_left, &now, &products, squared_errors))
}

/// How true the edit Σ αt·τt comes out of such tasks, where each is the part of the true one in a space that all share, so that
/// ⟨τ̂i, τj⟩ = ⟨τ̂i, τ̂j⟩.
///
/// # Errors
/// As [`edit_fidelity`], and where the matrix is for another number of tasks.
pub fn recovered_edit_fidelity(gram: &Gram, recovered: &Matrix, alpha: &[f64], rule: Rule) -> Result<Fidelity> {
    let coefficients = as_they_are(gram.n_tasks());
    check_edit(gram, &coefficients, alpha)?;
    Ok(fidelity(gram, &coefficients, &Products::recovered(gram, recovered, recovered)?, alpha, rule))
}

/// How true the edit Σ αt·τt, α \[n_tasks\], comes out of the basis by the given rule.
///
/// # Errors
/// Rejected where the number of weights or of tasks does not fit, or a weight is not finite.
pub fn edit_fidelity(gram: &Gram, coefficients: &Coefficients, alpha: &[f64], rule: Rule) -> Result<Fidelity> {
    check_edit(gram, coefficients, alpha)?;
    Ok(fidelity(gram, coefficients, &Products::new(gram, coefficients), alpha, rule))
}

/// Whether α \[n_tasks\] is an edit of these tasks.
pub(super) fn check_edit(gram: &Gram, coefficients: &Coefficients, alpha: &[f64]) -> Result<()> {
    check(gram, coefficients)?;
    if alpha.len() != gram.n_tasks() {
        return Err(Error::rejected(format!(
            "{} weights for {} tasks: expected one each",
            alpha.len(),
            gram.n_tasks()
        )));
    }
    if let Some(t) = alpha.iter().position(|x| !x.is_finite()) {
        return Err(Error::rejected(format!("weight of task number {t} is {}: expected a finite number", alpha[t])));
    }
    Ok(())
}

pub(super) fn check(gram: &Gram, coefficients: &Coefficients) -> Result<()> {
    let (n_tasks, n_stored) = (coefficients.n_tasks(), coefficients.n_stored());
    if n_tasks != gram.n_tasks() {
        return Err(Error::rejected(format!(
            "coefficients of {n_tasks} tasks: expected {}, as in the Gram matrix",
            gram.n_tasks()
        )));
    }
    let encoded = (coefficients.encode.n_rows(), coefficients.encode.n_columns()) == (n_tasks, n_stored);
    if (!encoded && coefficients.generated.is_none()) || coefficients.in_sum.len() != n_stored {
        return Err(Error::rejected(format!("encode and decode differ in their number of atoms: expected {n_stored}")));
    }
    Ok(())
}

/// δt² of every task.
fn squared_errors(gram: &Gram, coefficients: &Coefficients, products: &Products) -> Vec<f64> {
    let n_tasks = gram.n_tasks();
    let decode = coefficients.decode.view();
    if coefficients.generated.is_some() {
        // ‖τ − Sw‖² with orthonormal S and w = Sᵀτ.
        return (0..n_tasks)
            .map(|t| {
                let w = linear::column(decode, t);
                let across = linear::dot(&w, &linear::column(products.atom_task.as_ref(), t));
                (gram.matrix()[(t, t)] - 2.0 * across + linear::dot(&w, &w)).max(0.0)
            })
            .collect();
    }
    let mut error = linear::product(coefficients.encode.view(), decode);
    for t in 0..n_tasks {
        error[(t, t)] -= 1.0;
    }
    let gram_error = linear::product(gram.view(), error.as_ref());
    (0..n_tasks)
        .map(|t| error.col(t).iter().zip(gram_error.col(t).iter()).map(|(e, g)| e * g).sum::<f64>().max(0.0))
        .collect()
}

/// Squared lengths over those of the tasks, as [`Assessment`] has them.
pub(super) fn relative(squared_errors: &[f64], squared_norms: &[f64]) -> Vec<f64> {
    let mean = squared_norms.iter().sum::<f64>() / squared_norms.len() as f64;
    let over = |error: f64, norm: f64| match (norm > 0.0, mean > 0.0) {
        (true, _) => error / norm,
        (false, true) => error / mean,
        (false, false) => 0.0,
    };
    squared_errors.iter().zip(squared_norms).map(|(&error, &norm)| over(error, norm)).collect()
}

/// Where the largest relative error is; the first of those that only rounding tells apart, so that no engine's last digits name
/// another task.
pub(super) fn largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |most, t| if values[t] > values[most] * (1.0 + 1e-9) + 1e-12 { t } else { most })
}

fn cosine(dot: f64, a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { (dot / a / b).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Weights of stored vectors that nothing rounds are left out: random atoms are made again, not stored.
fn stored(coefficients: &Coefficients, atoms: &[f64]) -> Vec<f64> {
    if coefficients.generated.is_some() { vec![0.0; atoms.len()] } else { atoms.to_vec() }
}

fn fidelity(gram: &Gram, coefficients: &Coefficients, products: &Products, alpha: &[f64], rule: Rule) -> Fidelity {
    Lengths::of(gram, coefficients, products, alpha, rule).fidelity()
}

/// How true an edit comes out whose weights differ from part to part of the tensors: of each part its Gram matrix and α \[n_tasks\].
///
/// # Errors
/// As [`edit_fidelity`].
pub fn edit_fidelity_in_parts(parts: &[(Gram, Vec<f64>)], coefficients: &Coefficients, rule: Rule) -> Result<Fidelity> {
    let mut lengths = Lengths::default();
    for (gram, alpha) in parts {
        lengths.add(&Lengths::of_edit(gram, coefficients, alpha, rule)?);
    }
    Ok(lengths.fidelity())
}

/// Squared lengths of an edit and of what comes out of it, and their product. Of several tensors they add up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths {
    /// ‖e‖².
    target: f64,
    /// ‖ê‖².
    edit: f64,
    /// ⟨e, ê⟩.
    dot: f64,
    /// A squared length that is no larger is rounding.
    rounding_floor: f64,
    /// What storage in each of [`rounding::STORAGE_DTYPES`] adds.
    stored: [f64; 3],
}

impl Lengths {
    fn of(gram: &Gram, coefficients: &Coefficients, products: &Products, alpha: &[f64], rule: Rule) -> Lengths {
        let weights = coefficients.weights(alpha, rule);
        let most: f64 = gram.norms().iter().zip(alpha).map(|(norm, a)| norm * a.abs()).sum();
        let atoms = products.squared_norms();
        let edit_most: f64 = atoms.iter().zip(&weights).map(|(s, w)| s.sqrt() * w.abs()).sum();
        let stored = StoredAtoms { squared_norms: &stored(coefficients, &atoms), n_rows: gram.n_rows() };
        Lengths {
            target: linear::form(gram.view(), alpha, alpha).max(0.0),
            edit: linear::form(products.atom_gram.as_ref(), &weights, &weights).max(0.0),
            dot: linear::dot(&weights, &linear::times(products.atom_task.as_ref(), alpha)),
            rounding_floor: VANISHES * most.max(edit_most).powi(2),
            stored: rounding::STORAGE_DTYPES.map(|dtype| stored.added(dtype, weights.iter().copied())),
        }
    }

    /// Of an edit of these tensors.
    ///
    /// # Errors
    /// As [`edit_fidelity`].
    pub(super) fn of_edit(gram: &Gram, coefficients: &Coefficients, alpha: &[f64], rule: Rule) -> Result<Lengths> {
        check_edit(gram, coefficients, alpha)?;
        Ok(Lengths::of(gram, coefficients, &Products::new(gram, coefficients), alpha, rule))
    }

    /// Adds those of other tensors.
    pub(super) fn add(&mut self, other: &Lengths) {
        self.target += other.target;
        self.edit += other.edit;
        self.dot += other.dot;
        self.rounding_floor += other.rounding_floor;
        self.stored.iter_mut().zip(other.stored).for_each(|(stored, other)| *stored += other);
    }

    /// ‖e‖², 0 where it is rounding.
    pub(super) fn target(&self) -> f64 {
        if self.target > self.rounding_floor { self.target } else { 0.0 }
    }

    pub(super) fn fidelity(&self) -> Fidelity {
        let length = |squared: f64| if squared > self.rounding_floor { squared.sqrt() } else { 0.0 };
        let (target, edit) = (length(self.target), length(self.edit));
        let (cosine, norm_ratio) = match (edit > 0.0, target > 0.0) {
            (true, true) => (cosine(self.dot, edit, target), edit / target),
            (true, false) => (0.0, f64::INFINITY),
            (false, true) => (0.0, 0.0),
            (false, false) => (1.0, 1.0),
        };
        let rounding = self.stored.map(|added| if target > 0.0 { added / target / target } else { 0.0 });
        Fidelity { cosine, norm_ratio, rounding }
    }
}

/// λmax/λmin of a symmetric matrix that is not negative.
fn condition(atom_gram: &Mat<f64>) -> f64 {
    let values =
        atom_gram.self_adjoint_eigenvalues(Side::Lower).unwrap_or_else(|_| linear::eigen(atom_gram.as_ref()).0);
    let most = values.iter().fold(0.0_f64, |most, x| most.max(*x));
    let least = values.iter().fold(f64::INFINITY, |least, x| least.min(*x));
    if least > most / SINGULAR { most / least } else { f64::INFINITY }
}
