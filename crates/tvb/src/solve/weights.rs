//! The best decode for a given encode: W = (BᵀGB)⁺BᵀG, the least-squares weights of every task over the atoms.

use super::linear;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, MatRef, Side};

/// Below this pivot of the unit-diagonal BᵀGB, squared, the atoms count as dependent and the eigenvalue route is taken.
const DEPENDENT: f64 = 1e-11;
/// Part of the largest eigenvalue of the unit-diagonal BᵀGB below which a direction is noise and is left out.
const CUT_OFF: f64 = 1e-13;

/// W for atoms S = VB: \[n_atoms, n_tasks\] from G \[n_tasks, n_tasks\] and B \[n_tasks, n_atoms\]. Zero and dependent atoms
/// are allowed: of all best W the shortest is returned.
pub(super) fn best_decode(gram: MatRef<'_, f64>, encode: MatRef<'_, f64>) -> Mat<f64> {
    let atom_task = linear::product(encode.transpose(), gram);
    let atom_gram = linear::product(atom_task.as_ref(), encode);
    solve_normal(atom_gram.as_ref(), atom_task.as_ref())
}

/// W from the atoms' Gram SᵀS \[n_atoms, n_atoms\] and their products with the tasks SᵀV \[n_atoms, n_tasks\].
pub(super) fn solve_normal(atom_gram: MatRef<'_, f64>, atom_task: MatRef<'_, f64>) -> Mat<f64> {
    let n_atoms = atom_gram.nrows();
    // Atoms of unit length first: then how they are scaled decides nothing.
    let inverse: Vec<f64> =
        (0..n_atoms).map(|m| if atom_gram[(m, m)] > 0.0 { 1.0 / atom_gram[(m, m)].sqrt() } else { 0.0 }).collect();
    let unit = Mat::from_fn(n_atoms, n_atoms, |i, j| atom_gram[(i.max(j), i.min(j))] * inverse[i] * inverse[j]);
    let mut right = atom_task.to_owned();
    linear::scale_rows(&mut right, &inverse);
    let mut decode = cholesky(&unit, &right).unwrap_or_else(|| pseudo_inverse(&unit, &right));
    linear::scale_rows(&mut decode, &inverse);
    decode
}

/// Cholesky with one step of refinement; `None` where a pivot says that the atoms are (nearly) dependent.
fn cholesky(unit: &Mat<f64>, right: &Mat<f64>) -> Option<Mat<f64>> {
    let factor = Llt::new(unit.as_ref(), Side::Lower).ok()?;
    let pivots = factor.L();
    if (0..unit.nrows()).any(|m| pivots[(m, m)].powi(2).is_nan() || pivots[(m, m)].powi(2) < DEPENDENT) {
        return None;
    }
    let mut solution = factor.solve(right);
    let residual = right - linear::product(unit.as_ref(), solution.as_ref());
    solution += factor.solve(&residual);
    Some(solution)
}

fn pseudo_inverse(unit: &Mat<f64>, right: &Mat<f64>) -> Mat<f64> {
    let (values, vectors) = linear::eigen(unit.as_ref());
    let floor = CUT_OFF * values.first().copied().unwrap_or(0.0).max(0.0);
    let mut along = linear::product(vectors.transpose(), right.as_ref());
    let inverse: Vec<f64> = values.iter().map(|&v| if v > floor { 1.0 / v } else { 0.0 }).collect();
    linear::scale_rows(&mut along, &inverse);
    linear::product(vectors.as_ref(), along.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal equations BᵀG(I − BW) = 0 hold whatever the atoms' rank.
    #[test]
    fn leaves_an_error_orthogonal_to_every_atom() {
        let v = Mat::from_fn(9, 5, |i, j| ((3 * i + 7 * j) as f64 * 0.37).sin());
        let gram = linear::product(v.transpose(), v.as_ref());
        let cases: [(&str, Mat<f64>); 4] = [
            ("independent", Mat::from_fn(5, 3, |i, j| ((i + 2 * j) as f64).cos().abs())),
            ("parallel", Mat::from_fn(5, 3, |i, _| (i + 1) as f64)),
            ("zero atom", Mat::from_fn(5, 2, |i, j| if j == 0 { 0.0 } else { i as f64 })),
            ("scaled apart", Mat::from_fn(5, 2, |i, j| if j == 0 { 1e-9 * i as f64 } else { 1e6 })),
        ];
        for (name, encode) in cases {
            let decode = best_decode(gram.as_ref(), encode.as_ref());
            let atom_task = linear::product(encode.transpose(), gram.as_ref());
            let recovered =
                linear::product(linear::product(atom_task.as_ref(), encode.as_ref()).as_ref(), decode.as_ref());
            for m in 0..encode.ncols() {
                for t in 0..5 {
                    let scale = 1e-12 + linear::norm(&linear::row(atom_task.as_ref(), m));
                    assert!((atom_task[(m, t)] - recovered[(m, t)]).abs() < 1e-10 * scale, "{name} ({m}, {t})");
                }
            }
        }
    }
}
