//! Is there a positive vector in a subspace? `exact` needs one in the span of the top eigenvectors.
//!
//! With the rows ê of an orthonormal basis E scaled to unit length, p = E·y is positive where ê_t·y > 0 for every t. The
//! margin min ê_t·y/‖y‖ says how far inside: it bounds from below how far atoms can be spread before one touches zero,
//! and with it how well conditioned they are. Cheap candidates come first (the projection of the wished-for sum, which
//! keeps addition as true as the subspace allows; Perron's vector), then a linear program for the deepest one.

use super::linear;
use faer::{Mat, MatRef};
use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem};

/// Rows of E shorter than this are zero: the subspace does not reach these tasks, and p may be zero there.
const ZERO_ROW: f64 = 1e-10;
/// A margin to be content with, times the square root of the number of tasks: that of the all-ones vector is about 1.
const ROOMY: f64 = 0.2;
/// A margin too thin to use: atoms would be parallel to one part in 1e5 and more.
const THIN: f64 = 1e-5;
/// Entries of the program smaller than this are left out: the solver wants coefficients within six orders.
const NEGLIGIBLE: f64 = 1e-7;

/// Finds y with p = E·y positive on every row that E reaches, as close to the projection of `wish` as a decent margin
/// allows. `None` where there is none. E: \[n_tasks, k\] orthonormal columns.
pub(super) fn find(basis: MatRef<'_, f64>, wish: &[f64]) -> Option<Vec<f64>> {
    let rows = live_rows(basis);
    if rows.nrows() == 0 {
        return None;
    }
    let roomy = ROOMY / (rows.nrows() as f64).sqrt();
    let wished = unit(&linear::times_transposed(basis, wish));
    if wished.as_ref().is_some_and(|y| margin(&rows, y) >= roomy) {
        return wished;
    }
    let deepest = deepest(&rows)?;
    let most = margin(&rows, &deepest);
    if most < THIN {
        return None;
    }
    let enough = roomy.min(0.5 * most);
    // From the wish to the deepest, the first that has room enough.
    let wished = wished.unwrap_or_else(|| deepest.clone());
    (0..=32).map(|step| f64::from(step) / 32.0).find_map(|share| {
        let mixed: Vec<f64> = wished.iter().zip(&deepest).map(|(w, d)| (1.0 - share) * w + share * d).collect();
        unit(&mixed).filter(|y| margin(&rows, y) >= enough)
    })
}

fn live_rows(basis: MatRef<'_, f64>) -> Mat<f64> {
    let lengths: Vec<f64> = (0..basis.nrows()).map(|t| linear::norm(&linear::row(basis, t))).collect();
    let live: Vec<usize> = (0..basis.nrows()).filter(|&t| lengths[t] > ZERO_ROW).collect();
    Mat::from_fn(live.len(), basis.ncols(), |i, k| basis[(live[i], k)] / lengths[live[i]])
}

/// Rows that the subspace does not reach, which p leaves at zero.
pub(super) fn unreached(basis: MatRef<'_, f64>) -> Vec<bool> {
    (0..basis.nrows()).map(|t| linear::norm(&linear::row(basis, t)) <= ZERO_ROW).collect()
}

fn unit(y: &[f64]) -> Option<Vec<f64>> {
    let length = linear::norm(y);
    (length > 1e-8).then(|| y.iter().map(|x| x / length).collect())
}

fn margin(rows: &Mat<f64>, y: &[f64]) -> f64 {
    linear::times(rows.as_ref(), y).into_iter().fold(f64::INFINITY, f64::min)
}

/// The y in the unit box with the largest min ê_t·y, as a unit vector; `None` where no y has it positive.
fn deepest(rows: &Mat<f64>) -> Option<Vec<f64>> {
    let mut program = Problem::new(OptimizationDirection::Maximize);
    let y: Vec<_> = (0..rows.ncols()).map(|_| program.add_var(0.0, (-1.0, 1.0))).collect();
    let depth = program.add_var(1.0, (0.0, rows.ncols() as f64));
    for t in 0..rows.nrows() {
        let mut reach = LinearExpr::empty();
        for (k, &variable) in y.iter().enumerate() {
            if rows[(t, k)].abs() > NEGLIGIBLE {
                reach.add(variable, rows[(t, k)]);
            }
        }
        reach.add(depth, -1.0);
        program.add_constraint(reach, ComparisonOp::Ge, 0.0);
    }
    let solution = program.solve().ok()?.into_solution().ok()?;
    let found = unit(&y.iter().map(|&variable| solution.var_value(variable)).collect::<Vec<_>>())?;
    (margin(rows, &found) > 0.0).then_some(found)
}
