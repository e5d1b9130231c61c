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

/// Corrections before and after the clusters are solved; each about doubles the digits, and f32 starts with six.
const N_CORRECTIONS: usize = 4;

/// Refined eigenpairs of `matrix` (column-major, lower triangle), or `None` where they do not pass the check.
///
/// `vectors` is row-major [n, n] with an approximate eigenvector in each column.
pub(crate) fn refine(matrix: &[f64], vectors: &[f32], n: usize) -> Option<Eigh> {
    if vectors.iter().any(|entry| !entry.is_finite()) {
        return None;
    }
    let largest = matrix.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
    // All in units of the largest entry, so that no square overflows or vanishes.
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let g = Mat::from_fn(n, n, |i, j| matrix[i.min(j) * n + i.max(j)] / scale);
    let mut x = Mat::from_fn(n, n, |i, j| f64::from(vectors[i * n + j]));
    // Orthonormal to f64 first: X (3I − XᵀX) / 2, twice.
    for _ in 0..2 {
        let xtx = product(x.transpose(), x.as_ref());
        let half = Mat::from_fn(n, n, |i, j| if i == j { 1.5 - xtx[(i, j)] / 2.0 } else { -xtx[(i, j)] / 2.0 });
        x = product(x.as_ref(), half.as_ref());
    }
    let mut state = State::of(&g, &x);
    for _ in 0..N_CORRECTIONS {
        if state.is_converged() {
            break;
        }
        x = corrected(&x, &state);
        state = State::of(&g, &x);
    }
    if !state.is_converged() {
        x = with_clusters_solved(&g, &x, &state)?;
        state = State::of(&g, &x);
        for _ in 0..N_CORRECTIONS {
            if state.is_converged() {
                break;
            }
            x = corrected(&x, &state);
            state = State::of(&g, &x);
        }
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
    /// Eigenvalues closer than this cannot be told apart yet.
    resolution: f64,
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
        let resolution = 2.0 * (off + spread * sum_of_squares(&r, |_, _| true).sqrt());
        Self { s, r, values, resolution }
    }

    /// Off-diagonal and orthonormality errors are down to rounding.
    fn is_converged(&self) -> bool {
        let n = self.values.len() as f64;
        let spread = self.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        self.resolution <= 20.0 * n * f64::EPSILON * spread
    }
}

/// X + XE.
fn corrected(x: &Mat<f64>, state: &State) -> Mat<f64> {
    let n = x.ncols();
    let e = Mat::from_fn(n, n, |i, j| {
        let gap = state.values[j] - state.values[i];
        let r = state.r[(i, j)];
        if gap.abs() > state.resolution { (state.s[(i, j)] + state.values[j] * r) / gap } else { r / 2.0 }
    });
    let xe = product(x.as_ref(), e.as_ref());
    x + xe
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
        while end < n && state.values[order[end - 1]] - state.values[order[end]] <= state.resolution {
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
fn passes(g: &Mat<f64>, x: &Mat<f64>, state: &State) -> bool {
    let n = x.ncols();
    let gx = product(g.as_ref(), x.as_ref());
    let residual = Mat::from_fn(n, n, |i, j| gx[(i, j)] - x[(i, j)] * state.values[j]);
    let spread = state.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let all = |_, _| true;
    let (residual, unorthogonal) = (sum_of_squares(&residual, all).sqrt(), sum_of_squares(&state.r, all).sqrt());
    // Comparisons are false for a NaN.
    residual <= 1e-10 * spread && unorthogonal <= 1e-10
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
