//! Is a result right? Every stage's result is compared with plain f64 arithmetic before it is timed.
//!
//! Where all of it would take too long, a part is compared: of a Gram matrix every diagonal entry and a spread of the
//! others, each over all rows; of rows a spread over the whole length, each in every output.

use super::values::Values;
use std::sync::{Mutex, PoisonError};
use tvb::ops::grams::unpack_triangle;
use tvb_kernels::{Dtype, Eigh, triangle_len};

/// Largest error of a Gram entry, in parts of the two norms.
const GRAM_TOLERANCE: f64 = 1e-6;

/// Largest residual of an eigendecomposition, in parts of the largest eigenvalue.
const EIGH_TOLERANCE: f64 = 1e-9;

/// Products a check may take, about: below a second on a slow core.
const MOST_PRODUCTS: usize = 1 << 28;

/// Rows that are decoded at a time.
const BLOCK: usize = 2048;

/// Why a result is wrong; one line.
pub(super) type Wrong = String;

/// Compares a packed lower triangle with the Gram of the first `n_rows` rows.
///
/// # Errors
/// The worst entry, with what was expected.
pub(super) fn gram(
    values: &Values,
    n_tasks: usize,
    n_rows: usize,
    triangle: &[f64],
    n_threads: usize,
) -> Result<(), Wrong> {
    if triangle.len() != triangle_len(n_tasks) {
        return Err(format!("a Gram of {} entries where {} were expected", triangle.len(), triangle_len(n_tasks)));
    }
    let pairs = pairs(n_tasks, n_rows);
    let sums = Mutex::new(vec![0.0; pairs.len()]);
    let starts: Vec<usize> = (0..n_rows).step_by(BLOCK).collect();
    super::threads::for_each(n_threads, starts, |_, start| {
        let rows = BLOCK.min(n_rows - start);
        let deltas = values.deltas(n_tasks, start, rows);
        let part: Vec<f64> =
            pairs.iter().map(|&(i, j)| dot(&deltas[i * rows..][..rows], &deltas[j * rows..][..rows])).collect();
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    });
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    let norm = |task: usize| sums[task].max(f64::MIN_POSITIVE).sqrt();
    for (&(i, j), &expected) in pairs.iter().zip(&sums) {
        let found = triangle[triangle_len(i) + j];
        let error = (found - expected).abs() / (norm(i) * norm(j));
        if is_above(error, GRAM_TOLERANCE) {
            return Err(format!(
                "entry ({i}, {j}) is {found:e} where f64 gives {expected:e} (error {error:.1e} of the norms)"
            ));
        }
    }
    Ok(())
}

/// The entries to compare: the diagonal first, then as many others as there is time for.
fn pairs(n_tasks: usize, n_rows: usize) -> Vec<(usize, usize)> {
    let affordable = MOST_PRODUCTS / n_rows.max(1);
    let n_others = triangle_len(n_tasks) - n_tasks;
    let every = n_others.div_ceil(affordable.saturating_sub(n_tasks).max(n_tasks)).max(1);
    let others = (0..n_tasks).flat_map(|i| (0..i).map(move |j| (i, j)));
    (0..n_tasks).map(|i| (i, i)).chain(others.step_by(every)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// What rows are made of: out_k = \[base +\] Σ_c column_c · weight\[c, k\].
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum<'a> {
    /// The columns.
    pub(super) values: &'a Values,
    /// C.
    pub(super) n_columns: usize,
    /// Row-major [C, K].
    pub(super) weights: &'a [f32],
    /// K.
    pub(super) n_outputs: usize,
    /// Columns are taken as differences to the base (projection), or as they are and added to it (reconstruction).
    pub(super) subtract_base: bool,
    /// How results are stored.
    pub(super) dtype: Dtype,
}

/// Compares stored rows with f64 sums. `row(k, x)` is row x of output k as it was found; x < `n_rows`.
///
/// # Errors
/// The first wrong row, with what was expected.
pub(super) fn rows(sum: Sum<'_>, n_rows: usize, row: impl Fn(usize, usize) -> Option<f64>) -> Result<(), Wrong> {
    let each = (sum.n_columns * sum.n_outputs).max(1);
    let n_checked = (MOST_PRODUCTS / 8 / each).clamp(16, 4096).min(n_rows).max(1);
    let mut columns = vec![[0.0f32]; sum.n_columns + 1];
    for step in 0..n_checked {
        // From the first row to the last, at places that no block length divides.
        let x = step * (n_rows - 1) / (n_checked - 1).max(1);
        columns.iter_mut().enumerate().for_each(|(column, value)| sum.values.fill(column, x, value));
        let base = columns[0][0];
        for k in 0..sum.n_outputs {
            let mut expected = if sum.subtract_base { 0.0 } else { f64::from(base) };
            let mut magnitude = expected.abs();
            for (c, column) in columns[1..].iter().enumerate() {
                let value = if sum.subtract_base { column[0] - base } else { column[0] };
                let term = f64::from(value) * f64::from(sum.weights[c * sum.n_outputs + k]);
                expected += term;
                magnitude += term.abs();
            }
            let tolerance = tolerance(sum.dtype, expected, sum.n_columns + 2, magnitude);
            match row(k, x) {
                None => return Err(format!("row {x} of output {k} is missing")),
                Some(found) if is_above((found - expected).abs(), tolerance) => {
                    return Err(format!("row {x} of output {k} is {found:e} where f64 gives {expected:e}"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Largest error of a row that is `expected`, formed in f32 of `n_terms` terms that are `magnitude` together, and stored.
pub(super) fn tolerance(dtype: Dtype, expected: f64, n_terms: usize, magnitude: f64) -> f64 {
    let unit = Dtype::F32.unit_roundoff();
    // Of numbers too small for a full mantissa the last bit is always this large.
    let (stored, least) = match dtype {
        Dtype::F16 => (dtype.unit_roundoff(), 2.0f64.powi(-25)),
        Dtype::Bf16 => (dtype.unit_roundoff(), 1e-30),
        Dtype::F32 | Dtype::F64 => (unit, 1e-30),
    };
    n_terms as f64 * unit * magnitude + stored * expected.abs() + least
}

/// Checks that GU = UΛ, that U is orthogonal, and that eigenvalues fall; `triangle` is G's packed lower triangle.
///
/// # Errors
/// What does not hold, and by how much.
pub(super) fn eigh(triangle: &[f64], n: usize, found: &Eigh) -> Result<(), Wrong> {
    if found.values.len() != n || found.vectors.len() != n * n {
        return Err(format!("{} eigenvalues where {n} were expected", found.values.len()));
    }
    let entries = unpack_triangle(triangle, n);
    let gram = faer::Mat::from_fn(n, n, |i, j| entries[(i, j)]);
    let u = faer::MatRef::from_column_major_slice(&found.vectors, n, n);
    let scale = found.values.first().map_or(0.0, |first| first.abs()).max(f64::MIN_POSITIVE);
    let (gu, utu) = (&gram * u, u.transpose() * u);
    let (mut residual, mut unorthogonal) = (0.0f64, 0.0f64);
    for k in 0..n {
        for i in 0..n {
            residual = worse(residual, (gu[(i, k)] - u[(i, k)] * found.values[k]).abs() / scale);
            unorthogonal = worse(unorthogonal, (utu[(i, k)] - f64::from(u8::from(i == k))).abs());
        }
    }
    let falls = found.values.windows(2).all(|pair| pair[0] >= pair[1]);
    if is_above(residual, EIGH_TOLERANCE) || is_above(unorthogonal, EIGH_TOLERANCE) || !falls {
        return Err(format!(
            "eigenpairs leave a residual of {residual:.1e} λ1, {unorthogonal:.1e} from orthogonal{}",
            if falls { "" } else { ", out of order" }
        ));
    }
    Ok(())
}

/// A NaN is above everything.
pub(super) fn is_above(error: f64, tolerance: f64) -> bool {
    error.is_nan() || error > tolerance
}

fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values = Values { dtype: Dtype::F32 };

    fn triangle(n_tasks: usize, n_rows: usize) -> Vec<f64> {
        let deltas = VALUES.deltas(n_tasks, 0, n_rows);
        let task = |t: usize| &deltas[t * n_rows..][..n_rows];
        (0..n_tasks).flat_map(|i| (0..=i).map(move |j| dot(task(i), task(j)))).collect()
    }

    #[test]
    fn a_wrong_gram_is_found() {
        let (n_tasks, n_rows) = (5, 3000);
        let right = triangle(n_tasks, n_rows);
        assert_eq!(gram(&VALUES, n_tasks, n_rows, &right, 2), Ok(()));
        for at in 0..right.len() {
            for wrong in [right[at] + 1e-5 * right[0], f64::NAN, 0.0] {
                let mut triangle = right.clone();
                triangle[at] = wrong;
                let error = gram(&VALUES, n_tasks, n_rows, &triangle, 1).expect_err("a wrong entry");
                assert!(error.contains("where f64 gives"), "{error}");
            }
        }
        assert!(gram(&VALUES, n_tasks, n_rows, &right[1..], 1).is_err());
        assert!(gram(&VALUES, n_tasks, n_rows - 1, &right, 1).is_err(), "a row too many");
    }

    #[test]
    fn wrong_rows_are_found() {
        let weights = [0.5, -0.25, 1.0, 0.125, 0.75, -1.0];
        for (subtract_base, dtype) in [(true, Dtype::F32), (false, Dtype::Bf16)] {
            let sum = Sum { values: &VALUES, n_columns: 3, weights: &weights, n_outputs: 2, subtract_base, dtype };
            let right = |k: usize, x: usize| {
                let mut columns = [[0.0f32]; 4];
                columns.iter_mut().enumerate().for_each(|(column, value)| VALUES.fill(column, x, value));
                let base = f64::from(columns[0][0]);
                let start = if subtract_base { 0.0 } else { base };
                let term = |c: usize| {
                    let value = if subtract_base { columns[c + 1][0] - columns[0][0] } else { columns[c + 1][0] };
                    f64::from(value) * f64::from(weights[c * 2 + k])
                };
                start + (0..3).map(term).sum::<f64>()
            };
            assert_eq!(rows(sum, 1000, |k, x| Some(right(k, x))), Ok(()));
            for wrong in [0.02, f64::NAN] {
                let off = |k: usize, x: usize| Some(right(k, x) + if (k, x) == (1, 999) { wrong } else { 0.0 });
                assert!(rows(sum, 1000, off).expect_err("a wrong row").contains("row 999 of output 1"));
            }
            assert!(rows(sum, 1000, |k, x| (x < 500).then(|| right(k, x))).is_err(), "missing rows");
        }
    }

    #[test]
    fn wrong_eigenpairs_are_found() {
        let n = 6;
        let triangle = triangle(n, 500);
        let full = unpack_triangle(&triangle, n);
        let entries: Vec<f64> = (0..n * n).map(|at| full[(at % n, at / n)]).collect();
        let right = tvb_kernels::CpuEngine::new().eigh(&entries, n, 1).expect("eigenpairs").remove(0);
        assert_eq!(eigh(&triangle, n, &right), Ok(()));
        let changes: [(&str, &dyn Fn(&mut Eigh)); 4] = [
            ("value", &|e| e.values[2] *= 1.001),
            ("vector", &|e| e.vectors[7] += 1e-4),
            ("nan", &|e| e.vectors[7] = f64::NAN),
            ("short", &|e| e.values.truncate(n - 1)),
        ];
        for (what, change) in changes {
            let mut wrong = right.clone();
            change(&mut wrong);
            assert!(eigh(&triangle, n, &wrong).is_err(), "{what}");
        }
    }

    #[test]
    fn large_grams_are_checked_in_part() {
        let some = pairs(256, 1 << 18);
        assert!(some.len() >= 512 && some.len() * (1 << 18) <= 2 * MOST_PRODUCTS, "{}", some.len());
        assert_eq!(pairs(8, 1000).len(), triangle_len(8));
    }
}
