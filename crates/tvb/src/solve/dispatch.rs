//! From a method's name to B and W: checks, the method itself, then what all methods share.

use super::checks::{check_atoms, check_options};
use super::problem::{Found, Problem};
use super::{Coefficients, Coordinates, Gram, Method, SolveOptions};
use super::{ae, anchored, cluster, exact, identity, nmf, pca, sample};
use super::{linear, orthogonal, weights};
use crate::error::{Error, Result};
use crate::matrix::Matrix;

/// An eigenvalue below −this·λ1 is more than rounding of f32 products: the matrix is no Gram matrix.
const INDEFINITE: f64 = 1e-3;

/// Finds B \[n_tasks, n_stored\] and W \[n_stored, n_tasks\] for `gram`. `progress` is told the part done, 0 to 1, and stops the
/// work by answering false.
///
/// # Errors
/// Rejected: M outside 1..T, options that do not fit the tasks, a matrix with clearly negative eigenvalues. Usage: options
/// that do not fit the method, and `random`, which needs the data too (see [`random_coefficients`](super::random_coefficients)).
/// Failed: a training that diverged. Interrupted: `progress` answered false.
pub fn solve(
    gram: &Gram,
    method: &Method,
    options: &SolveOptions,
    progress: &dyn Fn(f64) -> bool,
) -> Result<Coefficients> {
    let n_tasks = gram.n_tasks();
    check_atoms(options.n_atoms, n_tasks)?;
    let spectrum = gram.spectrum();
    if spectrum.lowest < -INDEFINITE * spectrum.values[0] {
        return Err(Error::rejected(format!(
            "Gram matrix has eigenvalue {:e} beside {:e}: expected none below zero",
            spectrum.lowest, spectrum.values[0]
        )));
    }
    check_options(method, options.balance, options.coordinates)?;
    let problem = Problem::new(gram, options, progress);
    let found = match method {
        Method::Anchored(own) => anchored::solve(&problem, own.weights.as_deref())?,
        Method::Exact(own) => exact::solve(&problem, own)?,
        Method::Ae(own) => ae::solve(&problem, own)?,
        Method::Pca => pca::solve(&problem)?,
        Method::Sample { seed } => sample::solve(&problem, *seed)?,
        Method::Cluster(own) => cluster::solve(&problem, own)?,
        Method::Nmf(own) => nmf::solve(&problem, own)?,
        Method::Identity => identity::solve(&problem)?,
        Method::Random { .. } => {
            return Err(Error::usage("method 'random' needs the checkpoints: its atoms are not mixtures of the tasks"));
        }
    };
    Ok(finish(&problem, found, method, options, gram))
}

/// Back to the true tasks, columns to sum 1, other coordinates, the best W.
fn finish(problem: &Problem<'_>, found: Found, method: &Method, options: &SolveOptions, gram: &Gram) -> Coefficients {
    let Found { mut encode, mut decode, in_sum, mut notes, convex } = found;
    // These two build B in true coordinates: their construction must know where zero and sum 1 are.
    let in_true_coordinates = matches!(method, Method::Anchored(_) | Method::Exact(_) | Method::Identity);
    if !in_true_coordinates {
        problem.unstretch(&mut encode);
        if let Some(decode) = &mut decode {
            linear::scale_columns(decode, &problem.stretch);
        }
        if convex {
            let sums: Vec<f64> = encode.col_iter().map(|column| column.iter().sum::<f64>()).collect();
            let usable = |sum: f64| sum.is_finite() && sum > 0.0;
            let inverse: Vec<f64> = sums.iter().map(|&sum| if usable(sum) { 1.0 / sum } else { 1.0 }).collect();
            linear::scale_columns(&mut encode, &inverse);
            if let Some(decode) = &mut decode {
                let sums: Vec<f64> = sums.iter().map(|&sum| if usable(sum) { sum } else { 1.0 }).collect();
                linear::scale_rows(decode, &sums);
            }
        }
    }
    if options.coordinates == Coordinates::Orthogonal {
        encode = orthogonal::turn(gram.unit(), &encode);
        notes.push(
            "orthogonal coordinates: same span, same errors, same sum; atoms are no longer non-negative".to_owned(),
        );
        if encode.ncols() < options.n_atoms {
            notes.push(format!("{} atoms are enough: the tasks span no more dimensions", encode.ncols()));
        }
    }
    let decode = decode.unwrap_or_else(|| weights::best_decode(gram.unit().view(), encode.as_ref()));
    Coefficients {
        method: method.name(),
        n_atoms: options.n_atoms,
        balance: options.balance,
        coordinates: options.coordinates,
        in_sum: in_sum.unwrap_or_else(|| vec![true; encode.ncols()]),
        encode: Matrix::of(encode),
        decode: Matrix::of(decode),
        generated: None,
        notes,
    }
}
