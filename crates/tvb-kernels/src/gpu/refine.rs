//! Refines f32 eigenvectors of a symmetric matrix to f64, after Ogita and Aishima ("Iterative refinement for symmetric
//! eigenvalue decomposition", 2018), and checks the outcome.
//!
//! With X close to U: R = I − XᵀX and S = XᵀGX say how far X is from orthonormal and from diagonalising G. The correction
//! X ← X + XE, with E\[i,j\] = (S\[i,j\] + λj R\[i,j\]) / (λj − λi), converges quadratically where eigenvalues are well
//! apart. Where they are not, E only orthonormalises, and the vectors of such a cluster are any basis of its space: a
//! small dense eigenproblem within each cluster finds the right one.

use crate::eigh::Eigh;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

/// Corrections in a row; each about doubles the digits, and f32 starts with six.
const N_CORRECTIONS: usize = 3;

/// Rounds of corrections; between two of them the clusters are solved.
const N_ROUNDS: usize = 3;

/// Refined eigenpairs of `matrix` (column-major, lower triangle), or `None` where they do not pass the check.
///
/// `vectors` is column-major [n, n]: approximate eigenvector k is `vectors[k * n..][..n]`.
pub(crate) fn refine(matrix: &[f64], vectors: &[f32], n: usize) -> Option<Eigh> {
    if vectors.iter().any(|entry| !entry.is_finite()) {
        return None;
    }
    let largest = matrix.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
    // All in units of the largest entry, so that no square overflows or vanishes.
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let g = Mat::from_fn(n, n, |i, j| matrix[i.min(j) * n + i.max(j)] / scale);
    // One step is enough here: corrections take off what is left of I − XᵀX.
    let mut x = orthonormalised(Mat::from_fn(n, n, |i, j| f64::from(vectors[j * n + i])), 1);
    let mut state = State::of(&g, &x);
    for round in 0..N_ROUNDS {
        for _ in 0..N_CORRECTIONS {
            if !state.is_converged() {
                x = corrected(&x, &state);
                state = State::of(&g, &x);
            }
        }
        if state.is_converged() || round + 1 == N_ROUNDS {
            break;
        }
        x = with_clusters_solved(&g, &x, &state)?;
        state = State::of(&g, &x);
    }
    if !passes(&g, &x, &state) {
        return None;
    }
    let values = state.values.iter().map(|value| value * scale).collect();
    Eigh::sorted(values, x.col_iter().flat_map(|column| column.iter().copied().collect::<Vec<_>>()).collect())
}

/// Where X stands.
struct State {
    /// XᵀGX.
    s: Mat<f64>,
    /// I − XᵀX.
    r: Mat<f64>,
    /// Rayleigh quotients.
    values: Vec<f64>,
    /// How far off S is diagonal and X orthonormal, in units of eigenvalues.
    error: f64,
}

impl State {
    fn of(g: &Mat<f64>, x: &Mat<f64>) -> Self {
        let n = x.ncols();
        let gx = product(g.as_ref(), x.as_ref());
        let s = product(x.transpose(), gx.as_ref());
        let xtx = product(x.transpose(), x.as_ref());
        let r = Mat::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - xtx[(i, j)]);
        let values: Vec<f64> = (0..n).map(|i| s[(i, i)] / (1.0 - r[(i, i)])).collect();
        let spread = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let off = sum_of_squares(&s, |i, j| i != j).sqrt();
        let error = off + spread * sum_of_squares(&r, |_, _| true).sqrt();
        Self { s, r, values, error }
    }

    /// Off-diagonal and orthonormality errors are down to rounding.
    fn is_converged(&self) -> bool {
        let n = self.values.len() as f64;
        let spread = self.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        self.error <= 10.0 * n * f64::EPSILON * spread
    }

    /// Eigenvalues closer than this cannot be told apart yet. The factor bounds ‖E‖: with a smaller one corrections of
    /// eigenvalues that are barely apart add up to no correction at all.
    fn resolution(&self) -> f64 {
        20.0 * self.error
    }
}

/// The nearest orthonormal matrix, as good as, when X is within a tenth of it: X (3I − XᵀX) / 2, twice or as often as it matters:
/// a step leaves the square of what it finds.
fn orthonormalised(mut x: Mat<f64>, most_steps: usize) -> Mat<f64> {
    let n = x.ncols();
    for _ in 0..most_steps {
        let xtx = product(x.transpose(), x.as_ref());
        let off = sum_of_squares(&xtx, |i, j| i != j) + (0..n).map(|i| (xtx[(i, i)] - 1.0).powi(2)).sum::<f64>();
        let half = Mat::from_fn(n, n, |i, j| if i == j { 1.5 - xtx[(i, j)] / 2.0 } else { -xtx[(i, j)] / 2.0 });
        x = product(x.as_ref(), half.as_ref());
        if off < f64::EPSILON {
            break;
        }
    }
    x
}

/// X + XE, orthonormal again: a correction of some hundredths between eigenvalues that are barely apart would otherwise
/// leave an error of its square in XᵀX, times λ1 in S.
fn corrected(x: &Mat<f64>, state: &State) -> Mat<f64> {
    let n = x.ncols();
    let e = Mat::from_fn(n, n, |i, j| {
        let gap = state.values[j] - state.values[i];
        let r = state.r[(i, j)];
        if gap.abs() > state.resolution() { (state.s[(i, j)] + state.values[j] * r) / gap } else { r / 2.0 }
    });
    let xe = product(x.as_ref(), e.as_ref());
    orthonormalised(x + xe, 2)
}

/// X with the vectors of each cluster of eigenvalues turned so that they diagonalise G within it, sorted by eigenvalue.
fn with_clusters_solved(g: &Mat<f64>, x: &Mat<f64>, state: &State) -> Option<Mat<f64>> {
    let n = x.ncols();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| state.values[b].total_cmp(&state.values[a]));
    let sorted = Mat::from_fn(n, n, |i, k| x[(i, order[k])]);
    let mut solved = sorted.clone();
    let mut first = 0;
    while first < n {
        let mut end = first + 1;
        while end < n && state.values[order[end - 1]] - state.values[order[end]] <= state.resolution() {
            end += 1;
        }
        if end - first > 1 {
            let basis = sorted.subcols(first, end - first);
            let inside = product(basis.transpose(), product(g.as_ref(), basis).as_ref());
            let found = inside.self_adjoint_eigen(Side::Lower).ok()?;
            solved.subcols_mut(first, end - first).copy_from(product(basis, found.U()));
        }
        first = end;
    }
    Some(solved)
}

/// ‖GX − XΛ‖ and ‖XᵀX − I‖, in units of the largest eigenvalue and of 1.
fn errors(g: &Mat<f64>, x: &Mat<f64>, state: &State) -> [f64; 2] {
    let n = x.ncols();
    let gx = product(g.as_ref(), x.as_ref());
    let residual = Mat::from_fn(n, n, |i, j| gx[(i, j)] - x[(i, j)] * state.values[j]);
    let spread = state.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let all = |_, _| true;
    let residual = sum_of_squares(&residual, all).sqrt();
    [if spread > 0.0 { residual / spread } else { residual }, sum_of_squares(&state.r, all).sqrt()]
}

/// Far above rounding, and so far below f32 that what is told of an eigenvalue of 0 is 0 for every use.
fn passes(g: &Mat<f64>, x: &Mat<f64>, state: &State) -> bool {
    let most = 1e-13 * (x.ncols() as f64).max(10.0);
    // Comparisons are false for a NaN.
    errors(g, x, state).iter().all(|error| *error <= most)
}

/// The same errors of vectors as a device leaves them: refining mends what is far worse than f32.
pub(crate) fn raw_errors(matrix: &[f64], vectors: &[f32], n: usize) -> [f64; 2] {
    let g = Mat::from_fn(n, n, |i, j| matrix[i.min(j) * n + i.max(j)]);
    let x = Mat::from_fn(n, n, |i, j| f64::from(vectors[j * n + i]));
    errors(&g, &x, &State::of(&g, &x))
}

fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(a.nrows(), b.ncols());
    matmul(product.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    product
}

fn sum_of_squares(matrix: &Mat<f64>, keep: impl Fn(usize, usize) -> bool) -> f64 {
    let mut sum = 0.0;
    for j in 0..matrix.ncols() {
        for i in 0..matrix.nrows() {
            if keep(i, j) {
                sum += matrix[(i, j)] * matrix[(i, j)];
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuEngine;

    /// True eigenvectors off by as much as f32 Jacobi leaves them are refined; nonsense does not pass.
    #[test]
    fn f32_vectors_are_refined_and_nonsense_is_not() {
        let noise = |at: usize| ((at * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5;
        for n in [2usize, 9, 40] {
            let spectra: [(&str, &dyn Fn(usize) -> f64); 4] = [
                ("apart", &|k| 1.0 / (1.0 + k as f64)),
                ("one large, the rest close", &|k| if k == 0 { 50.0 } else { 0.01 + 1e-5 * noise(k) }),
                ("half zero", &|k| f64::from(u8::from(k % 2 == 0)) * (1.0 + k as f64)),
                ("all the same", &|_| 3.0),
            ];
            let random: Vec<f64> = (0..n * n).map(|at| noise(at % n * n + at / n) + noise(at)).collect();
            let basis = &CpuEngine::new().eigh(&random, n, 1).expect("finite")[0].vectors;
            for (name, value) in spectra {
                let entry = |i: usize, j: usize| -> f64 {
                    (0..n).map(|k| value(k) * basis[k * n + i] * basis[k * n + j]).sum()
                };
                let matrix: Vec<f64> = (0..n * n).map(|at| entry(at % n, at / n)).collect();
                let near: Vec<f32> = (0..n * n).map(|at| (basis[at] + 2e-6 * noise(3 * at)) as f32).collect();
                let found = refine(&matrix, &near, n).unwrap_or_else(|| panic!("n = {n}, {name}: not refined"));
                let mut expected: Vec<f64> = (0..n).map(value).collect();
                expected.sort_by(|a, b| b.total_cmp(a));
                for (found, expected) in found.values.iter().zip(&expected) {
                    assert!((found - expected).abs() <= 1e-12 * 50.0, "n = {n}, {name}: {found} against {expected}");
                }
                assert!(refine(&matrix, &vec![f32::NAN; n * n], n).is_none(), "n = {n}, {name}: NaN passed");
                if name != "all the same" {
                    assert!(refine(&matrix, &vec![0.0; n * n], n).is_none(), "n = {n}, {name}: zeros passed");
                }
            }
        }
    }
}
