//! The optimiser of `ae`: Adam as PyTorch has it. Weight decay is added to the gradient, both moments are bias-corrected,
//! eps is added after the root; clipping, done by the caller, comes before all of it.

use super::method::AeOptions;
use crate::matrix::Matrix;
use faer::{MatMut, MatRef};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// A column-major matrix without padding, so that element-wise work is one plain loop.
#[derive(Clone)]
pub(super) struct Dense {
    pub(super) n_rows: usize,
    pub(super) values: Vec<f64>,
}

impl Dense {
    pub(super) fn zeros(n_rows: usize, n_columns: usize) -> Dense {
        Dense { n_rows, values: vec![0.0; n_rows * n_columns] }
    }

    pub(super) fn n_columns(&self) -> usize {
        self.values.len() / self.n_rows
    }

    pub(super) fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice(&self.values, self.n_rows, self.n_columns())
    }

    pub(super) fn view_mut(&mut self) -> MatMut<'_, f64> {
        let n_columns = self.n_columns();
        MatMut::from_column_major_slice_mut(&mut self.values, self.n_rows, n_columns)
    }

    pub(super) fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.n_rows..(j + 1) * self.n_rows]
    }

    pub(super) fn row(&self, i: usize) -> impl Iterator<Item = &f64> {
        self.values.iter().skip(i).step_by(self.n_rows)
    }

    pub(super) fn to_matrix(&self) -> Matrix {
        Matrix::of(self.view().to_owned())
    }
}

/// One trained matrix with its gradient and Adam's two moments.
pub(super) struct Parameter {
    pub(super) values: Dense,
    pub(super) gradient: Dense,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Parameter {
    pub(super) fn new(values: Dense) -> Parameter {
        let n = values.values.len();
        let gradient = Dense::zeros(values.n_rows, values.n_columns());
        Parameter { values, gradient, first: vec![0.0; n], second: vec![0.0; n] }
    }

    /// One Adam step; `shrink` scales the gradient first.
    pub(super) fn update(&mut self, step: usize, shrink: f64, options: &AeOptions) {
        let step_size = options.learning_rate / (1.0 - BETA1.powi(step as i32));
        let root = (1.0 - BETA2.powi(step as i32)).sqrt();
        let decay = options.weight_decay;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, g), (m, v)) in self.values.values.iter_mut().zip(&self.gradient.values).zip(moments) {
            let g = g * shrink + decay * *x;
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            *x -= step_size * *m / (v.sqrt() / root + EPS);
        }
    }
}
