//! A weighted sum of products of two factors, Σ w·L·R, as one product of the lowest rank that is exact, or the best one of a rank
//! that is asked for: QR of both stacks, then the singular values of what stands between the two Q.
//!
//! Weights may have any sign: they go into the left factors. Everything is in f64, where a sum of f32 factors is as good as exact.

use super::linear;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder;
use faer::linalg::solvers::Qr;
use faer::{Conj, Mat, MatRef, Par};

/// Singular values below this part of Σ ‖l‖·‖r‖ over the terms' columns are what rounding leaves of nothing.
const NOTHING: f64 = 16.0 * f64::EPSILON;

/// One term of the sum: `weight`·`left`·`right`.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// \[n, rank\], row-major.
    pub left: &'a [f32],
    /// \[rank, m\], row-major.
    pub right: &'a [f32],
    /// Columns of `left` and rows of `right`.
    pub rank: usize,
    /// w; any sign.
    pub weight: f64,
}

/// The terms of one sum side by side: Σ w·L·R = left·rightᵀ.
#[derive(Debug)]
pub struct Stack {
    /// \[n, R\].
    left: Mat<f64>,
    /// \[m, R\].
    right: Mat<f64>,
    /// Σ ‖l‖·‖r‖ over the R columns: what the sum's norm cannot exceed.
    bound: f64,
}

/// The best product of its rank: left·rightᵀ, each column of `left` as long as the one of `right`.
#[derive(Clone, Debug)]
pub struct Product {
    /// \[n, rank\].
    pub left: Matrix,
    /// \[m, rank\].
    pub right: Matrix,
}

/// One stack, reduced: Q·core where it has more rows than columns, itself otherwise.
enum Side<'a> {
    Reduced(Qr<f64>),
    Whole(MatRef<'a, f64>),
}

impl Stack {
    /// Bytes that a sum of stacked rank `rank` takes until its product is there, for a cap on memory.
    pub fn bytes(n: usize, m: usize, rank: usize) -> u64 {
        let (n, m, rank) = (n as u64, m as u64, rank as u64);
        // The stacks, their reflectors and what is made of them; the core with its vectors.
        8 * (3 * (n + m) * rank + 6 * rank.min(n).max(1) * rank.min(m).max(1))
    }

    /// The terms of a sum \[n, m\].
    ///
    /// # Errors
    /// Rejected: factors of other sizes than \[n, rank\] and \[rank, m\], numbers that are not finite.
    pub fn new(n: usize, m: usize, terms: &[Term<'_>]) -> Result<Stack> {
        let mut columns: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        let mut bound = 0.0;
        for term in terms {
            if term.left.len() != n * term.rank || term.right.len() != term.rank * m {
                return Err(Error::rejected(format!(
                    "factors of [{n}, {rank}] and [{rank}, {m}] expected, {} and {} numbers found",
                    term.left.len(),
                    term.right.len(),
                    rank = term.rank
                )));
            }
            for k in 0..term.rank {
                let left: Vec<f64> = (0..n).map(|i| f64::from(term.left[i * term.rank + k]) * term.weight).collect();
                let right: Vec<f64> = term.right[k * m..(k + 1) * m].iter().map(|&x| f64::from(x)).collect();
                let (long, wide) = (linear::norm(&left), linear::norm(&right));
                if !(long * wide).is_finite() {
                    return Err(Error::rejected("finite factors expected, others found"));
                }
                if long * wide > 0.0 {
                    bound += long * wide;
                    columns.push(balanced(left, right, long, wide));
                }
            }
        }
        let rank = columns.len();
        Ok(Stack {
            left: Mat::from_fn(n, rank, |i, k| columns[k].0[i]),
            right: Mat::from_fn(m, rank, |j, k| columns[k].1[j]),
            bound,
        })
    }

    /// The sum's singular values, largest first, without those that are zero but for rounding: as many as its rank.
    ///
    /// # Errors
    /// Failed: the decomposition does not converge.
    pub fn singular_values(&self) -> Result<Vec<f64>> {
        if self.bound == 0.0 {
            return Ok(Vec::new());
        }
        let (left, right) = (Side::of(&self.left), Side::of(&self.right));
        let values = core(&left, &right).singular_values().map_err(|_| no_convergence())?;
        Ok(self.without_noise(values.into_iter()))
    }

    /// The nearest product of rank `rank` (Eckart–Young), or of the sum's own rank where that is lower.
    ///
    /// # Errors
    /// Failed: the decomposition does not converge.
    pub fn product(&self, rank: usize) -> Result<Product> {
        let (n, m) = (self.left.nrows(), self.right.nrows());
        if self.bound == 0.0 || rank == 0 {
            return Ok(Product { left: Matrix::zeros(n, 0), right: Matrix::zeros(m, 0) });
        }
        let (left, right) = (Side::of(&self.left), Side::of(&self.right));
        let core = core(&left, &right);
        let found = core.thin_svd().map_err(|_| no_convergence())?;
        let size = core.nrows().min(core.ncols());
        let mut values = self.without_noise((0..size).map(|k| found.S()[k]));
        values.truncate(rank);
        let halves: Vec<f64> = values.iter().map(|value| value.sqrt()).collect();
        let side =
            |side: &Side<'_>, n_rows: usize, vectors: MatRef<'_, f64>| {
                let mut out = Mat::from_fn(n_rows, halves.len(), |i, k| {
                    if i < vectors.nrows() { vectors[(i, k)] * halves[k] } else { 0.0 }
                });
                side.lead_back(&mut out);
                Matrix::of(out)
            };
        Ok(Product { left: side(&left, n, found.U()), right: side(&right, m, found.V()) })
    }

    /// Values that are more than rounding leaves of nothing.
    fn without_noise(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        values.take_while(|&value| value > NOTHING * self.bound).collect()
    }
}

/// ‖left·rightᵀ − stored_left·stored_rightᵀ‖²: what storing the factors in fewer bits costs, without the difference of two
/// large numbers. Shapes as those of a [`Product`].
pub fn squared_difference(exact: &Product, stored: &Product) -> f64 {
    let rank = exact.left.n_columns();
    // L·Rᵀ − L̃·R̃ᵀ = (L − L̃)·Rᵀ + L̃·(R − R̃)ᵀ.
    let left = Mat::from_fn(exact.left.n_rows(), 2 * rank, |i, k| match k.checked_sub(rank) {
        None => exact.left[(i, k)] - stored.left[(i, k)],
        Some(k) => stored.left[(i, k)],
    });
    let right = Mat::from_fn(exact.right.n_rows(), 2 * rank, |i, k| match k.checked_sub(rank) {
        None => exact.right[(i, k)],
        Some(k) => exact.right[(i, k)] - stored.right[(i, k)],
    });
    let of_left = linear::product(left.transpose(), left.as_ref());
    let of_right = linear::product(right.transpose(), right.as_ref());
    let entries = (0..2 * rank).flat_map(|k| (0..2 * rank).map(move |i| (i, k)));
    entries.map(|at| of_left[at] * of_right[at]).sum::<f64>().max(0.0)
}

impl Side<'_> {
    fn of(stack: &Mat<f64>) -> Side<'_> {
        if stack.ncols() < stack.nrows() { Side::Reduced(stack.qr()) } else { Side::Whole(stack.as_ref()) }
    }

    /// What stands between the two Q, of this side.
    fn inner(&self) -> MatRef<'_, f64> {
        match self {
            Side::Reduced(qr) => qr.thin_R(),
            Side::Whole(stack) => *stack,
        }
    }

    /// Q times `out`, whose rows past those of R are zero.
    fn lead_back(&self, out: &mut Mat<f64>) {
        let Side::Reduced(qr) = self else { return };
        let scratch = householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(
            out.nrows(),
            qr.Q_coeff().nrows(),
            out.ncols(),
        );
        householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
            qr.Q_basis(),
            qr.Q_coeff(),
            Conj::No,
            out.as_mut(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
        );
    }
}

/// R_L·R_Rᵀ, with the singular values of the sum.
fn core(left: &Side<'_>, right: &Side<'_>) -> Mat<f64> {
    linear::product(left.inner(), right.inner().transpose())
}

/// The two factors of one column brought to about one length, by a power of two, so that their product stays the same to the
/// last bit and long columns of one term do not drown those of another.
fn balanced(mut left: Vec<f64>, mut right: Vec<f64>, long: f64, wide: f64) -> (Vec<f64>, Vec<f64>) {
    let factor = ((wide / long).log2() / 2.0).round().exp2();
    left.iter_mut().for_each(|x| *x *= factor);
    right.iter_mut().for_each(|x| *x /= factor);
    (left, right)
}

fn no_convergence() -> Error {
    Error::failed("the singular values of an edit were not found: the decomposition does not converge")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in ±1 that look random.
    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        };
        (0..n).map(next).collect()
    }

    struct Factors {
        left: Vec<f32>,
        right: Vec<f32>,
        rank: usize,
        weight: f64,
    }

    fn random(n: usize, m: usize, rank: usize, weight: f64, seed: u64) -> Factors {
        Factors { left: noise(n * rank, seed), right: noise(rank * m, seed + 1000), rank, weight }
    }

    fn terms<'a>(factors: &'a [Factors]) -> Vec<Term<'a>> {
        let term = |of: &'a Factors| Term { left: &of.left, right: &of.right, rank: of.rank, weight: of.weight };
        factors.iter().map(term).collect()
    }

    fn dense(n: usize, m: usize, factors: &[Factors]) -> Mat<f64> {
        let mut out = Mat::zeros(n, m);
        for of in factors {
            let left = Mat::from_fn(n, of.rank, |i, k| f64::from(of.left[i * of.rank + k]) * of.weight);
            let right = Mat::from_fn(of.rank, m, |k, j| f64::from(of.right[k * m + j]));
            out += linear::product(left.as_ref(), right.as_ref());
        }
        out
    }

    fn formed(product: &Product) -> Mat<f64> {
        linear::product(product.left.view(), product.right.view().transpose())
    }

    /// Tall, wide, square; stacks of lower and of higher rank than either side; weights of both signs.
    fn cases() -> Vec<(usize, usize, Vec<Factors>)> {
        let several = |n, m, ranks: &[usize]| {
            let weights = [1.0, -0.7, 0.3, -2.5, 1e-3];
            let each = ranks.iter().zip(weights).enumerate();
            (n, m, each.map(|(t, (&rank, weight))| random(n, m, rank, weight, 7 * t as u64 + n as u64)).collect())
        };
        vec![
            several(40, 30, &[4]),
            several(40, 30, &[4, 3, 8]),
            several(30, 40, &[8, 8, 8, 8, 8]),
            several(12, 50, &[5, 5, 5]),
            several(50, 12, &[5, 5, 5]),
            several(9, 9, &[8, 8, 8]),
            several(1, 7, &[2, 1]),
            several(7, 1, &[2, 1]),
        ]
    }

    #[test]
    fn without_a_cut_the_sum_is_exact() {
        for (n, m, factors) in cases() {
            let stack = Stack::new(n, m, &terms(&factors)).unwrap();
            let sum = dense(n, m, &factors);
            let values = stack.singular_values().unwrap();
            let stacked: usize = factors.iter().map(|of| of.rank).sum();
            assert_eq!(values.len(), stacked.min(n).min(m), "[{n}, {m}]");
            let product = stack.product(usize::MAX).unwrap();
            assert_eq!(product.left.n_columns(), values.len());
            let error = (&sum - formed(&product)).norm_l2() / sum.norm_l2();
            assert!(error < 1e-12, "[{n}, {m}]: {error:e}");
        }
    }

    #[test]
    fn a_cut_is_as_good_as_any_can_be() {
        for (n, m, factors) in cases() {
            let stack = Stack::new(n, m, &terms(&factors)).unwrap();
            let sum = dense(n, m, &factors);
            let svd = sum.thin_svd().unwrap();
            let values = stack.singular_values().unwrap();
            for (k, value) in values.iter().enumerate() {
                assert!((value - svd.S()[k]).abs() < 1e-12 * values[0], "[{n}, {m}] value {k}");
            }
            for rank in 1..values.len() {
                let found = (&sum - formed(&stack.product(rank).unwrap())).norm_l2();
                let best = (rank..n.min(m)).map(|k| svd.S()[k].powi(2)).sum::<f64>().sqrt();
                assert!((found - best).abs() < 1e-12 * sum.norm_l2(), "[{n}, {m}] rank {rank}: {found} and {best}");
            }
        }
    }

    #[test]
    fn what_repeats_or_cancels_lowers_the_rank() {
        let (n, m) = (30, 20);
        let with = |weight| random(n, m, 4, weight, 5);
        let rank = |factors: &[Factors]| Stack::new(n, m, &terms(factors)).unwrap().singular_values().unwrap().len();
        assert_eq!(rank(&[with(1.0), with(0.5)]), 4);
        assert_eq!(rank(&[with(1.0), with(-1.0)]), 0);
        assert_eq!(rank(&[with(1.0), with(-1.0), random(n, m, 3, 1e-3, 9)]), 3);
        assert_eq!(rank(&[with(0.0)]), 0);
        assert_eq!(rank(&[]), 0);
        let nothing = Stack::new(n, m, &terms(&[with(1.0), with(-1.0)])).unwrap().product(3).unwrap();
        assert_eq!((nothing.left.n_rows(), nothing.right.n_rows(), nothing.left.n_columns()), (n, m, 0));
    }

    /// Factors of one term may be long and short by turns; neither hides another term.
    #[test]
    fn the_lengths_of_factors_do_not_matter_but_their_products() {
        let (n, m) = (30, 20);
        let mut long = random(n, m, 2, 1.0, 1);
        long.left.iter_mut().for_each(|x| *x *= 1e18);
        long.right.iter_mut().for_each(|x| *x *= 1e-18);
        let mut short = random(n, m, 2, -1.0, 2);
        short.left.iter_mut().for_each(|x| *x *= 1e-18);
        short.right.iter_mut().for_each(|x| *x *= 1e18);
        let factors = [long, short];
        let stack = Stack::new(n, m, &terms(&factors)).unwrap();
        assert_eq!(stack.singular_values().unwrap().len(), 4);
        let (sum, product) = (dense(n, m, &factors), stack.product(4).unwrap());
        assert!((&sum - formed(&product)).norm_l2() < 1e-12 * sum.norm_l2());
        for k in 0..4 {
            let lengths = (linear::norm(product.left.column(k)), linear::norm(product.right.column(k)));
            assert!((lengths.0 / lengths.1 - 1.0).abs() < 1e-10, "{lengths:?}");
        }
    }

    #[test]
    fn what_does_not_fit_or_is_not_finite_is_refused() {
        let factors = [random(30, 20, 4, 1.0, 5)];
        assert!(Stack::new(31, 20, &terms(&factors)).is_err());
        assert!(Stack::new(30, 21, &terms(&factors)).is_err());
        let mut factors = factors;
        factors[0].left[7] = f32::NAN;
        assert!(Stack::new(30, 20, &terms(&factors)).is_err());
    }

    #[test]
    fn the_cost_of_storing_is_that_of_the_products() {
        let factors = [random(30, 20, 4, 1.0, 5), random(30, 20, 3, -0.5, 6)];
        let exact = Stack::new(30, 20, &terms(&factors)).unwrap().product(5).unwrap();
        for unit in [1.0 / 128.0, 1.0 / 65536.0] {
            let round =
                |of: &Matrix| Matrix::from_fn(of.n_rows(), of.n_columns(), |i, k| (of[(i, k)] / unit).round() * unit);
            let stored = Product { left: round(&exact.left), right: round(&exact.right) };
            let expected = (formed(&exact) - formed(&stored)).norm_l2();
            let found = squared_difference(&exact, &stored).sqrt();
            assert!((found / expected - 1.0).abs() < 1e-6, "{unit}: {found:e} and {expected:e}");
        }
        assert_eq!(squared_difference(&exact, &exact), 0.0);
    }
}
