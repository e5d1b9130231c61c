//! Cores of low-rank matrices in spaces that are stored in f32 or fewer bits, and what is lost: exactly, from the factors.
//!
//! Rounded sides are no longer quite orthonormal, so a core is the least-squares one for the sides as they are stored, is rounded
//! itself, and every error is of what is stored.

use super::linear;
use super::shared::elementwise;
use super::shared_stacks::{Stacks, Which};
use crate::error::{Error, Result};
use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};

/// Numbers of whitened cores that are multiplied at once.
const SLICE: usize = 1 << 22;

/// The matrices of one module seen from stored sides.
#[derive(Debug)]
pub struct Cores<'a> {
    stacks: &'a Stacks<'a>,
    /// LᵀU and RV of every member, \[ΣR, p\].
    dots: [Mat<f64>; 2],
    /// UᵀU and VᵀV.
    metrics: [Mat<f64>; 2],
    solvers: [Llt<f64>; 2],
    rank: usize,
}

/// One core, and what there is to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Core {
    /// \[p, p\], row-major, as stored.
    pub values: Vec<f32>,
    /// ‖Δ‖².
    pub norm: f64,
    /// ⟨Δ, Δ̂⟩ with Δ̂ = U·core·V.
    pub inner: f64,
    /// ‖Δ̂‖².
    pub recovered: f64,
}

impl<'a> Cores<'a> {
    /// `left` is U \[n, p\] and `right` V \[p, m\], both row-major, as stored.
    ///
    /// # Errors
    /// Failed: sides that are dependent.
    pub fn new(stacks: &'a Stacks<'a>, left: &[f32], right: &[f32], rank: usize) -> Result<Cores<'a>> {
        let (n, m) = (stacks.len(Which::Left), stacks.len(Which::Right));
        if left.len() != n * rank || right.len() != m * rank {
            return Err(Error::failed("sides of another size than the matrices"));
        }
        let sides = [
            Mat::from_fn(n, rank, |i, k| f64::from(left[i * rank + k])),
            Mat::from_fn(m, rank, |j, k| f64::from(right[k * m + j])),
        ];
        let dots = [(Which::Left, &sides[0]), (Which::Right, &sides[1])]
            .map(|(which, side)| stacks.dots(which, side.as_ref()));
        let metrics = sides.map(|side| linear::product(side.transpose(), side.as_ref()));
        let solver = |metric: &Mat<f64>| {
            Llt::new(metric.as_ref(), Side::Lower).map_err(|_| Error::failed("sides that are dependent once rounded"))
        };
        let solvers = [solver(&metrics[0])?, solver(&metrics[1])?];
        Ok(Cores { stacks, dots, metrics, solvers, rank })
    }

    /// The cores of all members, each number rounded by `round`.
    pub fn cores(&self, round: impl Fn(f32) -> f32 + Sync) -> Vec<Core> {
        let grams = [Which::Left, Which::Right].map(|which| self.stacks.small_grams(which));
        self.stacks.parallel(self.stacks.members().len(), |number| {
            let member = &self.stacks.members()[number];
            let columns = self.stacks.columns(number);
            let [left, right] = [0, 1].map(|side| self.dots[side].subrows(columns.start, columns.len()));
            let seen = linear::product(left.transpose(), right) * faer::Scale(member.scale);
            // A⁻¹·seen·B⁻¹, both symmetric.
            let half = self.solvers[0].solve(&seen);
            let best = self.solvers[1].solve(half.transpose().to_owned());
            let rank = self.rank;
            let values: Vec<f32> = (0..rank * rank).map(|at| round(best[(at % rank, at / rank)] as f32)).collect();
            let stored = Mat::from_fn(rank, rank, |i, j| f64::from(values[i * rank + j]));
            let through = linear::product(self.metrics[0].as_ref(), stored.as_ref());
            let through = linear::product(through.as_ref(), self.metrics[1].as_ref());
            Core {
                norm: member.scale.powi(2) * elementwise(grams[0][number].as_ref(), grams[1][number].as_ref()),
                inner: elementwise(seen.as_ref(), stored.as_ref()),
                recovered: elementwise(stored.as_ref(), through.as_ref()),
                values,
            }
        })
    }

    /// ⟨Δ̂, Δ̂⟩ of every pair of members, \[members, members\].
    pub fn gram(&self, cores: &[Core]) -> Mat<f64> {
        let (rank, n) = (self.rank, cores.len());
        let mut sum = Mat::zeros(n, n);
        // With A = LₐLₐᵀ and B = L_bL_bᵀ, ⟨X, A·Y·B⟩ is that of Lₐᵀ·X·L_b and Lₐᵀ·Y·L_b.
        let [left, right] = [0, 1].map(|side| self.solvers[side].L().to_owned());
        let step = (SLICE / (n * rank).max(1)).clamp(1, rank);
        for first in (0..rank).step_by(step) {
            let rows = step.min(rank - first);
            let of_rows = left.transpose().subrows(first, rows).to_owned();
            let whitened = self.stacks.parallel(n, |number| {
                let core = Mat::from_fn(rank, rank, |i, j| f64::from(cores[number].values[i * rank + j]));
                linear::product(linear::product(of_rows.as_ref(), core.as_ref()).as_ref(), right.as_ref())
            });
            let flat = Mat::from_fn(rows * rank, n, |at, number| whitened[number][(at % rows, at / rows)]);
            sum += linear::product(flat.transpose(), flat.as_ref());
        }
        sum
    }
}
