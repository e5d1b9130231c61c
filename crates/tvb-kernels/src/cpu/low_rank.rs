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

/// Vectors and rows of one tile: that many sums are held in registers while k runs. Several rows at once, since the right factor of
/// a large matrix lies in the second cache and is read once for each tile.
const N_VECTORS: usize = 3;
const ROWS: usize = 4;

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
        let (mut row, column) = (first / n_columns, first % n_columns);
        let mut rest = out;
        if column > 0 {
            let n = rest.len().min(n_columns - column);
            let (here, others) = rest.split_at_mut(n);
            let Some(left) = factors.left.get(row * rank..(row + 1) * rank) else { return };
            form_rows_of::<S, 1>(simd, factors, left, column, here);
            (row, rest) = (row + 1, others);
        }
        while !rest.is_empty() {
            let n_whole = rest.len() / n_columns;
            let n_rows = if n_whole >= ROWS { ROWS } else { 1 };
            let n = rest.len().min(n_rows * n_columns);
            let (here, others) = rest.split_at_mut(n);
            let Some(left) = factors.left.get(row * rank..(row + n_rows) * rank) else { return };
            match n_rows {
                ROWS => form_rows_of::<S, ROWS>(simd, factors, left, 0, here),
                _ => form_rows_of::<S, 1>(simd, factors, left, 0, here),
            }
            (row, rest) = (row + n_rows, others);
        }
    }
}

/// Elements `column..` of N rows; `left` is their part of the left factor, `out` as long for each.
#[inline(always)]
fn form_rows_of<S: Simd, const N: usize>(simd: S, factors: Factors<'_>, left: &[f32], column: usize, out: &mut [f32]) {
    let (n_columns, rank) = (factors.n_columns, factors.rank);
    let n = out.len() / N;
    if n == 0 {
        return;
    }
    let n_vectors = n / S::F32_LANES;
    let scale = simd.splat_f32s(factors.scale);
    let mut start = 0;
    while start < n_vectors {
        let n_tile = if n_vectors - start >= N_VECTORS { N_VECTORS } else { 1 };
        let mut sums = [[simd.splat_f32s(0.0); N_VECTORS]; N];
        let at = column + start * S::F32_LANES;
        for k in 0..rank {
            let right = S::as_simd_f32s(&factors.right[k * n_columns + at..][..n_tile * S::F32_LANES]).0;
            // Of a length that is known, sums stay in registers.
            match right {
                [a, b, c] => {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let weight = simd.splat_f32s(left[row * rank + k]);
                        sums[0] = simd.add_f32s(sums[0], simd.mul_f32s(weight, *a));
                        sums[1] = simd.add_f32s(sums[1], simd.mul_f32s(weight, *b));
                        sums[2] = simd.add_f32s(sums[2], simd.mul_f32s(weight, *c));
                    }
                }
                _ => {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let weight = simd.splat_f32s(left[row * rank + k]);
                        sums[0] = simd.add_f32s(sums[0], simd.mul_f32s(weight, right[0]));
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = &mut out[row * n + start * S::F32_LANES..][..n_tile * S::F32_LANES];
            for (out, sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
                *out = simd.mul_f32s(*sum, scale);
            }
        }
        start += n_tile;
    }
    for (row, out) in out.chunks_exact_mut(n).enumerate() {
        let left = &left[row * rank..][..rank];
        for (at, out) in out.iter_mut().enumerate().skip(n_vectors * S::F32_LANES) {
            let products = left.iter().enumerate().map(|(k, left)| *left * factors.right[k * n_columns + column + at]);
            *out = products.fold(0.0f32, |sum, product| sum + product) * factors.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_the_plain_product_bit_for_bit() {
        for (n_rows, n_columns, rank) in
            [(1, 1, 1), (3, 5, 2), (7, 130, 4), (5, 257, 16), (9, 211, 5), (40, 3, 1), (4, 9, 0)]
        {
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
