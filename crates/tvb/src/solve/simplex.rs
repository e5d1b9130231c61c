//! Convex atoms for a given subspace: from a non-negative vector p and M − 1 further directions X to B ≥ 0 of M columns
//! with the same span, columns on the simplex, and B·1 exactly proportional to p.
//!
//! The M columns are p plus the vertices of a regular simplex, carried by X and blown up until the first entry of B
//! touches zero. The vertices add up to zero, so B·1 = M·p. Moving X along p changes no span; it is used to make the
//! entries of every column of X add up to zero, and so every column of B has the same sum, that of p.
//!
//! Tried without gain: mixing X so that the rows x_t/p_t, which decide what touches zero first, are isotropic. Where p is
//! nearly zero for a task that X reaches, the atoms are nearly parallel in that direction whatever the simplex.

use super::linear;
use faer::{Mat, MatRef};

/// How much of the largest blow-up is used: a hair less, so that rounding leaves no entry below zero.
const INSIDE: f64 = 1.0 - 1e-12;
/// Stands in for "no limit" where X pushes no entry down (X = 0): the atoms then all equal p.
const UNLIMITED: f64 = 1.0;

/// The vertices of a regular simplex around the origin of R^{M−1}: [n_atoms, n_atoms − 1], columns orthonormal and each
/// adding up to zero (the cosine basis less its constant).
fn vertices(n_atoms: usize) -> Mat<f64> {
    let scale = (2.0 / n_atoms as f64).sqrt();
    Mat::from_fn(n_atoms, n_atoms - 1, |m, k| {
        // Reduced to one period in integers, so that the angle stays small and exact.
        let quarter_turns = ((k + 1) * (2 * m + 1)) % (4 * n_atoms);
        scale * (std::f64::consts::PI * quarter_turns as f64 / (2 * n_atoms) as f64).cos()
    })
}

/// B, \[n_tasks, n_atoms\], from p \[n_tasks\] ≥ 0 with Σp > 0 and X [n_tasks, n_atoms − 1]. Where p is zero, X is taken as
/// zero too: no other value would leave B non-negative.
pub(super) fn cover(p: &[f64], directions: MatRef<'_, f64>) -> Mat<f64> {
    let n_tasks = p.len();
    let n_atoms = directions.ncols() + 1;
    let total: f64 = p.iter().sum();
    let mut level = directions.to_owned();
    for k in 0..n_atoms - 1 {
        let sum: f64 = (0..n_tasks).filter(|&t| p[t] > 0.0).map(|t| level[(t, k)]).sum();
        for (t, &p) in p.iter().enumerate() {
            level[(t, k)] = if p > 0.0 { level[(t, k)] - p * sum / total } else { 0.0 };
        }
    }
    let spread = linear::product(level.as_ref(), vertices(n_atoms).transpose());
    let mut reach = f64::INFINITY;
    for m in 0..n_atoms {
        for (t, &p) in p.iter().enumerate() {
            if spread[(t, m)] < 0.0 {
                reach = reach.min(p / -spread[(t, m)]);
            }
        }
    }
    let reach = if reach.is_finite() { reach * INSIDE } else { UNLIMITED };
    Mat::from_fn(n_tasks, n_atoms, |t, m| ((p[t] + reach * spread[(t, m)]) / total).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vertices_are_a_regular_simplex() {
        for n_atoms in [1, 2, 3, 7, 64] {
            let z = vertices(n_atoms);
            for i in 0..n_atoms {
                for j in 0..n_atoms {
                    let inner: f64 = (0..n_atoms - 1).map(|k| z[(i, k)] * z[(j, k)]).sum();
                    let expected = f64::from(u8::from(i == j)) - 1.0 / n_atoms as f64;
                    assert!((inner - expected).abs() < 1e-13, "{n_atoms} atoms, ({i}, {j})");
                }
            }
        }
    }

    #[test]
    fn columns_lie_on_the_simplex_and_rows_add_up_to_p() {
        for (n_tasks, n_atoms) in [(1, 1), (3, 1), (3, 3), (8, 5), (40, 20)] {
            let p: Vec<f64> = (0..n_tasks).map(|t| if t == 1 { 0.0 } else { 1.0 + (t as f64).sin().abs() }).collect();
            let x = Mat::from_fn(n_tasks, n_atoms - 1, |t, k| ((t * t + 3 * k) as f64).sin());
            let b = cover(&p, x.as_ref());
            let total: f64 = p.iter().sum();
            for m in 0..n_atoms {
                let sum: f64 = (0..n_tasks).map(|t| b[(t, m)]).sum();
                assert!((sum - 1.0).abs() < 1e-12);
            }
            for (t, p) in p.iter().enumerate() {
                assert!((0..n_atoms).all(|m| b[(t, m)] >= 0.0));
                let sum: f64 = (0..n_atoms).map(|m| b[(t, m)]).sum();
                assert!((sum - n_atoms as f64 * p / total).abs() < 1e-12);
            }
        }
    }
}
