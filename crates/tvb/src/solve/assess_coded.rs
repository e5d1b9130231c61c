//! What a basis loses when its atoms are coded: the exact errors of the basis, and the noise that is to be expected of the
//! code on top of them. Noise has nothing to do with what it is added to, so squared lengths add and gains stay.

use super::assess::{Lengths, check, check_edit, edit_fidelity, largest, relative};
use super::coding::{AtomSizes, Coding};
use super::{Assessment, Coefficients, Fidelity, Gram, Rule, linear};
use crate::error::{Error, Result};
use crate::matrix::Matrix;

/// The Gram matrix of the task vectors, taken apart by what a code does with a tensor; both \[n_tasks, n_tasks\].
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Over the tensors that are coded.
    pub coded: Matrix,
    /// Over the others.
    pub raw: Matrix,
}

impl Parts {
    /// Those of some of the tasks, in the order given.
    ///
    /// # Errors
    /// Rejected: an index past the last.
    pub fn subset(&self, tasks: &[usize]) -> Result<Parts> {
        let n_tasks = self.coded.n_rows().min(self.raw.n_rows());
        if let Some(&bad) = tasks.iter().find(|&&t| t >= n_tasks) {
            return Err(Error::rejected(format!("task number {bad}: one below {n_tasks} expected")));
        }
        let n = tasks.len();
        let of = |matrix: &Matrix| Matrix::from_fn(n, n, |i, j| matrix[(tasks[i], tasks[j])]);
        Ok(Parts { coded: of(&self.coded), raw: of(&self.raw) })
    }

    /// The sizes of the atoms that `coefficients` make of these tasks; none of atoms that are made from a seed.
    pub fn sizes(&self, coefficients: &Coefficients) -> AtomSizes {
        AtomSizes::of(&self.coded, &self.raw, &coefficients.encode)
    }
}

impl Coding {
    /// Keeps the edits of these weights over tasks \[n_edits\]\[n_tasks\], whatever the atoms are. A single atom has nothing to
    /// share: every edit is a multiple of it.
    pub fn keeping(
        rate: tvb_kernels::Rate,
        kept_rate: tvb_kernels::Rate,
        coefficients: &Coefficients,
        edits: &[Vec<f64>],
        seed: u64,
    ) -> Coding {
        let n_atoms = coefficients.n_stored();
        let over_atoms = |alpha: &Vec<f64>| coefficients.weights(alpha, Rule::Projected);
        let edits: Vec<Vec<f64>> = if n_atoms > 1 { edits.iter().map(over_atoms).collect() } else { Vec::new() };
        Coding::new(rate, kept_rate, n_atoms, &edits, seed)
    }
}

impl Assessment {
    /// The same basis with its atoms coded: what is to be expected, from nothing but `gram` and the atoms' sizes.
    ///
    /// # Errors
    /// Rejected where what is given is for other numbers of tasks or atoms.
    pub fn coded(
        self,
        gram: &Gram,
        coefficients: &Coefficients,
        coding: &Coding,
        sizes: &AtomSizes,
    ) -> Result<Assessment> {
        check(gram, coefficients)?;
        check_sizes(coefficients, coding, sizes)?;
        let n_tasks = gram.n_tasks();
        let decode = coefficients.decode.view();
        let errors = coding.errors(sizes);
        let added: Vec<f64> = (0..n_tasks).map(|t| errors.noise(&linear::column(decode, t))).collect();
        let squared_norms: Vec<f64> = self.norms.iter().map(|norm| norm * norm).collect();
        let plus = |values: &[f64], more: &[f64]| values.iter().zip(more).map(|(value, more)| value + more).collect();
        let relative_added = relative(&added, &squared_norms);
        let squared_errors: Vec<f64> = plus(&self.squared_errors, &added);
        let relative_errors: Vec<f64> = plus(&self.relative_errors, &relative_added);
        let recovered_norms: Vec<f64> =
            self.recovered_norms.iter().zip(&added).map(|(norm, added)| (norm * norm + added).sqrt()).collect();
        // What points elsewhere dilutes every cosine alike.
        let shorter =
            |t: usize| if recovered_norms[t] > 0.0 { self.recovered_norms[t] / recovered_norms[t] } else { 1.0 };
        let leakage = Matrix::from_fn(n_tasks, n_tasks, |i, j| self.leakage[(i, j)] * shorter(i));
        let total: f64 = squared_errors.iter().sum();
        let ones = vec![1.0; n_tasks];
        let noisy = |exact: Fidelity, rule| with_noise(exact, gram, coefficients, coding, sizes, &ones, rule);
        let worst_task = largest(&relative_errors);
        Ok(Assessment {
            loss: total / (n_tasks as f64).powi(2),
            relative_loss: if gram.trace() > 0.0 { total / gram.trace() } else { 0.0 },
            mean: relative_errors.iter().sum::<f64>() / n_tasks as f64,
            worst: relative_errors.iter().copied().fold(0.0, f64::max),
            worst_task,
            noises: plus(&self.noises, &relative_added),
            projected: noisy(self.projected, Rule::Projected),
            sum: noisy(self.sum, Rule::Sum),
            rounding: Vec::new(),
            squared_errors,
            relative_errors,
            recovered_norms,
            leakage,
            ..self
        })
    }
}

/// How true the edit Σ αt·τt, α \[n_tasks\], is to be expected to come out of the basis by the given rule where its atoms are
/// coded.
///
/// # Errors
/// Rejected as [`edit_fidelity`], and where the coding or the sizes are for another number of atoms.
pub fn coded_edit_fidelity(
    gram: &Gram,
    coefficients: &Coefficients,
    coding: &Coding,
    sizes: &AtomSizes,
    alpha: &[f64],
    rule: Rule,
) -> Result<Fidelity> {
    check_edit(gram, coefficients, alpha)?;
    check_sizes(coefficients, coding, sizes)?;
    let exact = edit_fidelity(gram, coefficients, alpha, rule)?;
    Ok(with_noise(exact, gram, coefficients, coding, sizes, alpha, rule))
}

/// The same where the weights differ from part to part of the tensors: of each part its Gram matrices and α \[n_tasks\]. The noise
/// of codes has nothing to do with that in other tensors, so it adds up.
///
/// # Errors
/// As [`coded_edit_fidelity`]. Rejected: Gram matrices that are none.
pub fn coded_edit_fidelity_in_parts(
    parts: &[(Parts, Vec<f64>)],
    coefficients: &Coefficients,
    coding: &Coding,
    rule: Rule,
) -> Result<Fidelity> {
    let (mut lengths, mut noise) = (Lengths::default(), 0.0);
    for (part, alpha) in parts {
        let (coded, raw) = (&part.coded, &part.raw);
        let n = coded.n_rows();
        let gram = Gram::new(Matrix::from_fn(n, n, |i, j| coded[(i, j)] + raw[(i, j)]))?;
        lengths.add(&Lengths::of_edit(&gram, coefficients, alpha, rule)?);
        let sizes = part.sizes(coefficients);
        check_sizes(coefficients, coding, &sizes)?;
        noise += coding.noise(&coefficients.weights(alpha, rule), &sizes);
    }
    Ok(noisy(lengths.fidelity(), noise, lengths.target()))
}

fn check_sizes(coefficients: &Coefficients, coding: &Coding, sizes: &AtomSizes) -> Result<()> {
    let n_atoms = coefficients.n_stored();
    let found = [sizes.coded.len(), sizes.raw.len(), coding.kept.n_rows()];
    match found.iter().find(|&&found| found != n_atoms) {
        // A matrix without columns may have lost its rows.
        Some(&found) if coding.n_kept() > 0 || sizes.coded.len() != n_atoms || sizes.raw.len() != n_atoms => {
            Err(Error::rejected(format!("{n_atoms} atoms to be coded expected, {found} found")))
        }
        _ => Ok(()),
    }
}

fn with_noise(
    exact: Fidelity,
    gram: &Gram,
    coefficients: &Coefficients,
    coding: &Coding,
    sizes: &AtomSizes,
    alpha: &[f64],
    rule: Rule,
) -> Fidelity {
    let noise = coding.noise(&coefficients.weights(alpha, rule), sizes);
    noisy(exact, noise, linear::form(gram.view(), alpha, alpha))
}

/// `exact` with noise of the squared length `noise` beside an edit of the squared length `squared`.
fn noisy(exact: Fidelity, noise: f64, squared: f64) -> Fidelity {
    match (noise > 0.0, squared > 0.0) {
        (true, true) if exact.norm_ratio.is_finite() => {
            Fidelity { rounding: [0.0; 3], ..exact.with_noise(noise / squared) }
        }
        // Noise in place of nothing.
        (true, _) => Fidelity { cosine: 0.0, norm_ratio: f64::INFINITY, rounding: [0.0; 3] },
        (false, _) => Fidelity { rounding: [0.0; 3], ..exact },
    }
}
