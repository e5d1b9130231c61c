//! Rows of a matrix of low rank, formed from its factors: Δ = s·L·R, as an adapter's s·B·A.
//!
//! ```text
//! Δ[i, j] = s · Σ_k left[i, k] · right[k, j]        element i·n_columns + j of the tensor
//! ```
//! Numerics: f32; products are added one after another in the order of k, each rounded, then the sum is multiplied by s. No two
//! steps are fused, so that all machines form the same bits, which digests are taken of.

use super::floats::Floats;
use crate::chunk::{Chunk, FactorSlice};
use pulp::{Arch, Simd, WithSimd};

/// Vectors of one tile: that many sums are held in registers while k runs.
const N_VECTORS: usize = 6;

/// The factors of a matrix [n_rows, n_columns].
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// \[n_rows, rank\], row-major.
    pub left: &'a [f32],
    /// \[rank, n_columns\], row-major.
    pub right: &'a [f32],
    /// r.
    pub rank: usize,
    /// Length of a row of the matrix.
    pub n_columns: usize,
    /// s.
    pub scale: f32,
}

/// Forms `out.len()` elements of the matrix, row-major, from element `first` on. What lies beyond the factors is left as it is.
pub fn form_low_rank(factors: Factors<'_>, first: usize, out: &mut [f32]) {
    let is_whole = factors.rank > 0
        && factors.n_columns > 0
        && factors.left.len().is_multiple_of(factors.rank)
        && factors.right.len() == factors.rank * factors.n_columns;
    if !is_whole {
        // Rank 0 is the zero matrix.
        if factors.rank == 0 {
            out.fill(0.0);
        }
        return;
    }
    Arch::new().dispatch(Form { factors, first, out });
}

/// Forms rows of a segment, from row `start` on, out of the factors in its chunk, which have been checked.
pub(super) fn form_rows(chunk: Chunk<'_>, slice: FactorSlice, start: usize, floats: &mut Floats, out: &mut [f32]) {
    let FactorSlice { left, right, rank, n_columns, first, scale } = slice;
    let n_left = (first + start + out.len()).div_ceil(n_columns) * rank;
    // Bytes may start anywhere, so they are read as such.
    let held = floats.at_least(n_left + rank * n_columns);
    let (left_floats, right_floats) = held.split_at_mut(n_left);
    for (floats, at) in [(&mut *left_floats, left), (&mut *right_floats, right)] {
        let bytes = chunk.bytes.get(at..).unwrap_or_default().as_chunks::<4>().0;
        floats.iter_mut().zip(bytes).for_each(|(value, raw)| *value = f32::from_le_bytes(*raw));
    }
    let factors = Factors { left: left_floats, right: right_floats, rank, n_columns, scale };
    form_low_rank(factors, first + start, out);
}

struct Form<'a> {
    factors: Factors<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl WithSimd for Form<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Form { factors, first, out } = self;
        let (n_columns, rank) = (factors.n_columns, factors.rank);
        let mut rest = out;
        let (mut row, mut column) = (first / n_columns, first % n_columns);
        while !rest.is_empty() {
            let n = rest.len().min(n_columns - column);
            let (here, others) = std::mem::take(&mut rest).split_at_mut(n);
            rest = others;
            let Some(left) = factors.left.get(row * rank..(row + 1) * rank) else { return };
            form_row(simd, factors, left, column, here);
            (row, column) = (row + 1, 0);
        }
    }
}

/// Elements `column..` of one row.
#[inline(always)]
fn form_row<S: Simd>(simd: S, factors: Factors<'_>, left: &[f32], column: usize, out: &mut [f32]) {
    let n_columns = factors.n_columns;
    let rows = || left.iter().zip(factors.right.chunks_exact(n_columns));
    let (vectors, tail) = S::as_mut_simd_f32s(out);
    let n_in_vectors = vectors.len() * S::F32_LANES;
    let scale = simd.splat_f32s(factors.scale);
    let mut at = column;
    let mut tiles = vectors.chunks_exact_mut(N_VECTORS);
    for tile in &mut tiles {
        let mut sums = [simd.splat_f32s(0.0); N_VECTORS];
        for (left, right) in rows() {
            let weight = simd.splat_f32s(*left);
            let right = S::as_simd_f32s(&right[at..][..N_VECTORS * S::F32_LANES]).0;
            for (sum, value) in sums.iter_mut().zip(right) {
                *sum = simd.add_f32s(*sum, simd.mul_f32s(weight, *value));
            }
        }
        for (out, sum) in tile.iter_mut().zip(sums) {
            *out = simd.mul_f32s(sum, scale);
        }
        at += N_VECTORS * S::F32_LANES;
    }
    for out in tiles.into_remainder() {
        let mut sum = simd.splat_f32s(0.0);
        for (left, right) in rows() {
            let right = S::as_simd_f32s(&right[at..][..S::F32_LANES]).0;
            sum = simd.add_f32s(sum, simd.mul_f32s(simd.splat_f32s(*left), right[0]));
        }
        *out = simd.mul_f32s(sum, scale);
        at += S::F32_LANES;
    }
    for (out, at) in tail.iter_mut().zip(column + n_in_vectors..) {
        let sum = rows().fold(0.0f32, |sum, (left, right)| sum + *left * right[at]);
        *out = sum * factors.scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_the_plain_product_bit_for_bit() {
        for (n_rows, n_columns, rank) in [(1, 1, 1), (3, 5, 2), (7, 130, 4), (5, 257, 16), (40, 3, 1), (4, 9, 0)] {
            let value = |at: usize| ((at * 7919 % 1009) as f32 - 504.0) / 333.0;
            let left: Vec<f32> = (0..n_rows * rank).map(value).collect();
            let right: Vec<f32> = (0..rank * n_columns).map(|at| value(at + 77)).collect();
            let scale = 1.7;
            let factors = Factors { left: &left, right: &right, rank, n_columns, scale };
            let plain: Vec<f32> = (0..n_rows * n_columns)
                .map(|at| {
                    let (i, j) = (at / n_columns, at % n_columns);
                    (0..rank).fold(0.0f32, |sum, k| sum + left[i * rank + k] * right[k * n_columns + j]) * scale
                })
                .collect();
            for first in [0, 1, n_columns / 2, plain.len() - 1] {
                for end in [first, plain.len().min(first + 1), plain.len()] {
                    let mut out = vec![f32::NAN; end - first];
                    form_low_rank(factors, first, &mut out);
                    assert_eq!(out, plain[first..end], "[{n_rows}, {n_columns}] of rank {rank} from {first}");
                }
            }
        }
    }
}
