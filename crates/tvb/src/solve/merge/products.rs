//! Inner products of the base and the task vectors of a tensor, and of the models that they make.

use crate::error::{Error, Result};
use faer::Mat;

/// base·θ0 + Σ tasks\[t\]·τt.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Weight of θ0.
    pub base: f64,
    /// Weights of the task vectors.
    pub tasks: Vec<f64>,
}

/// Which vectors are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Task vectors τt.
    Tasks,
    /// Whole models θ0 + τt.
    Models,
}

/// Inner products of \[θ0, τ1 … τT\]: \[T + 1, T + 1\], symmetric.
#[derive(Clone, Debug)]
pub struct Products(Mat<f64>);

impl Products {
    /// From the lower triangle, row by row: (T + 1)(T + 2)/2 numbers.
    ///
    /// # Errors
    /// Failed: another number of them. Rejected: one that is not finite.
    pub fn of_triangle(triangle: &[f64], n_tasks: usize) -> Result<Products> {
        let n = n_tasks + 1;
        if triangle.len() != n * (n + 1) / 2 {
            return Err(Error::failed(format!(
                "{} inner products expected, {} found",
                n * (n + 1) / 2,
                triangle.len()
            )));
        }
        if triangle.iter().any(|value| !value.is_finite()) {
            return Err(Error::rejected("inner products of finite values expected, others found")
                .hint("a value of the base or of a task is infinite or not a number; `tvb check` names it"));
        }
        let at = |row: usize, column: usize| {
            let (row, column) = (row.max(column), row.min(column));
            triangle.get(row * (row + 1) / 2 + column).copied().unwrap_or(0.0)
        };
        Ok(Products(Mat::from_fn(n, n, at)))
    }

    /// T.
    pub fn n_tasks(&self) -> usize {
        self.0.nrows() - 1
    }

    /// Inner products of the task vectors alone: \[T, T\].
    pub fn of_tasks(&self) -> Mat<f64> {
        let n = self.n_tasks();
        self.0.submatrix(1, 1, n, n).to_owned()
    }

    /// The inner product of two vectors.
    pub fn of(&self, a: &Mix, b: &Mix) -> f64 {
        let all = |mix: &Mix| std::iter::once(mix.base).chain(mix.tasks.iter().copied()).collect::<Vec<f64>>();
        let (a, b) = (all(a), all(b));
        let mut sum = 0.0;
        for (row, a) in a.iter().enumerate() {
            for (column, b) in b.iter().enumerate() {
                sum += a * b * self.0[(row, column)];
            }
        }
        sum
    }

    /// The length of a vector.
    pub fn norm(&self, a: &Mix) -> f64 {
        self.of(a, a).max(0.0).sqrt()
    }

    /// The vector of task `task`: τ, or its whole model.
    pub fn vector(&self, task: usize, of: Of) -> Mix {
        let mut mix = Mix::zero(self.n_tasks());
        if let Some(weight) = mix.tasks.get_mut(task) {
            *weight = 1.0;
        }
        mix.base = if of == Of::Models { 1.0 } else { 0.0 };
        mix
    }

    /// All of them.
    pub fn vectors(&self, of: Of) -> Vec<Mix> {
        (0..self.n_tasks()).map(|task| self.vector(task, of)).collect()
    }
}

impl Mix {
    /// Nothing.
    pub fn zero(n_tasks: usize) -> Mix {
        Mix { base: 0.0, tasks: vec![0.0; n_tasks] }
    }

    /// θ0.
    pub fn base(n_tasks: usize) -> Mix {
        Mix { base: 1.0, ..Mix::zero(n_tasks) }
    }

    /// Adds `factor` times another.
    pub fn add(&mut self, factor: f64, other: &Mix) {
        self.base += factor * other.base;
        self.tasks.iter_mut().zip(&other.tasks).for_each(|(own, other)| *own += factor * other);
    }

    /// `factor` times this.
    #[must_use]
    pub fn times(&self, factor: f64) -> Mix {
        let mut mix = Mix::zero(self.tasks.len());
        mix.add(factor, self);
        mix
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Inner products of explicit vectors, base first.
    pub(crate) fn products(vectors: &[&[f64]]) -> Products {
        let mut triangle = Vec::new();
        for (row, a) in vectors.iter().enumerate() {
            for b in &vectors[..=row] {
                triangle.push(a.iter().zip(*b).map(|(a, b)| a * b).sum());
            }
        }
        Products::of_triangle(&triangle, vectors.len() - 1).unwrap()
    }

    /// A mix of explicit vectors, base first.
    pub(crate) fn formed(mix: &Mix, vectors: &[&[f64]]) -> Vec<f64> {
        let weights: Vec<f64> = std::iter::once(mix.base).chain(mix.tasks.iter().copied()).collect();
        let n = vectors[0].len();
        (0..n).map(|x| weights.iter().zip(vectors).map(|(weight, vector)| weight * vector[x]).sum()).collect()
    }

    #[test]
    fn models_have_their_products_by_linearity() {
        let (base, tau): (&[f64], &[f64]) = (&[1.0, 2.0], &[0.5, -1.0]);
        let products = products(&[base, tau]);
        let model = products.vector(0, Of::Models);
        assert_eq!(products.of(&model, &model), 1.5 * 1.5 + 1.0);
        assert_eq!(formed(&model, &[base, tau]), [1.5, 1.0]);
        assert!(Products::of_triangle(&[1.0, 2.0], 1).is_err());
        assert!(Products::of_triangle(&[1.0, f64::NAN, 2.0], 1).is_err());
    }
}
