//! `identity`: no mixing, B = W = I. The collection itself, to compare with and to store at low precision.

use super::problem::{Found, Problem};
use super::{Coefficients, Coordinates};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::Mat;

pub(super) fn solve(problem: &Problem<'_>) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    if problem.n_atoms != n_tasks {
        return Err(Error::rejected(format!(
            "M = {} atoms with method 'identity': expected {n_tasks}, one for each task",
            problem.n_atoms
        ))
        .hint("'identity' stores every task as it is; leave the number of atoms out, or choose another method"));
    }
    let eye = Mat::identity(n_tasks, n_tasks);
    Ok(Found { decode: Some(eye.clone()), ..Found::encoded(eye) })
}

/// What comes out for any `n_tasks` tasks: needs no Gram matrix.
pub fn as_they_are(n_tasks: usize) -> Coefficients {
    Coefficients {
        method: "identity",
        n_atoms: n_tasks,
        balance: false,
        coordinates: Coordinates::Convex,
        encode: Matrix::identity(n_tasks),
        decode: Matrix::identity(n_tasks),
        in_sum: vec![true; n_tasks],
        generated: None,
        notes: Vec::new(),
    }
}
