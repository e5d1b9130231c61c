//! combine: out_k(x) = start(x) + Σ_c column_c(x)·w\[c,k\] over a decoded block: the heart of `project` and `reconstruct`.
//!
//! Numerics: f32, columns in order, so a row's bits do not depend on how rows are cut into blocks. A column whose weight
//! is exactly 0 for an output is left out of it: an infinity or a NaN there cannot reach that output (0·∞ is NaN).
//!
//! Whether a tile has such weights is found out once, not for every column of every block, and one or two outputs have
//! tiles of their own: 0.9 to 1.35 times the speed at T = 8 to 64, 1.14 in the middle (`tvb bench -j 1`, by turns with the
//! version before, on a noisy machine).

use super::block::Decoded;
use super::floats::Floats;
use pulp::Simd;

/// Outputs formed together.
pub(super) const N_TOGETHER: usize = 4;

/// Rows decoded at a time: few enough that the deltas stay in the nearest cache.
pub(super) fn block_rows(n_columns: usize) -> usize {
    match n_columns {
        0..=16 => 512,
        17..=64 => 256,
        65..=256 => 128,
        _ => 64,
    }
}

/// Weights as the kernel reads them: for every [`N_TOGETHER`] outputs, [n_columns, N_TOGETHER], zeros beyond the last.
#[derive(Default)]
pub(super) struct Weights {
    packed: Vec<[f32; N_TOGETHER]>,
    /// For every [`N_TOGETHER`] outputs, whether some weight of theirs is 0.
    has_zeros: Vec<bool>,
    n_columns: usize,
    n_outputs: usize,
}

impl Weights {
    /// Packs row-major [n_columns, n_outputs] weights.
    pub(super) fn pack(&mut self, weights: &[f32], n_columns: usize, n_outputs: usize) {
        (self.n_columns, self.n_outputs) = (n_columns, n_outputs);
        let n_tiles = n_outputs.div_ceil(N_TOGETHER);
        self.packed.clear();
        self.packed.resize(n_tiles * n_columns, [0.0; N_TOGETHER]);
        self.has_zeros.clear();
        self.has_zeros.resize(n_tiles, false);
        for (column, row) in weights.chunks_exact(n_outputs).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                self.packed[output / N_TOGETHER * n_columns + column][output % N_TOGETHER] = weight;
                self.has_zeros[output / N_TOGETHER] |= weight == 0.0;
            }
        }
    }
}

/// Forms every output of a block and hands each, with its number, to `store` (padded rows included).
#[inline(always)]
pub(super) fn combine<S: Simd>(
    simd: S,
    block: Decoded<'_>,
    add_base: bool,
    weights: &Weights,
    rows: &mut Floats,
    mut store: impl FnMut(usize, &[f32]),
) {
    let rows = rows.at_least(N_TOGETHER * block.stride);
    for (tile, &has_zeros) in weights.has_zeros.iter().enumerate() {
        let first = tile * N_TOGETHER;
        let packed = &weights.packed[tile * weights.n_columns..][..weights.n_columns];
        let n_outputs = N_TOGETHER.min(weights.n_outputs - first);
        // One or two outputs alone (a single edit) would waste the rest of a tile of four.
        match (has_zeros, S::REGISTER_COUNT >= 32, n_outputs) {
            (true, ..) => combine_tile::<S, 4, 2, true>(simd, block, add_base, packed, rows),
            (_, _, 1) => combine_tile::<S, 1, 4, false>(simd, block, add_base, packed, rows),
            (_, _, 2) => combine_tile::<S, 2, 4, false>(simd, block, add_base, packed, rows),
            (_, true, _) => combine_tile::<S, 4, 4, false>(simd, block, add_base, packed, rows),
            (_, false, _) => combine_tile::<S, 4, 2, false>(simd, block, add_base, packed, rows),
        }
        for (at, rows) in rows.chunks_exact(block.stride).take(n_outputs).enumerate() {
            store(first + at, &rows[..block.n_padded]);
        }
    }
}

/// `N_OUTPUTS` outputs, `N_VECTORS` vectors of rows at a time: their sums stay in registers over all columns.
/// `SKIP_ZEROS` looks at every weight; without it none of the `N_OUTPUTS` may be 0.
#[inline(always)]
fn combine_tile<S: Simd, const N_OUTPUTS: usize, const N_VECTORS: usize, const SKIP_ZEROS: bool>(
    simd: S,
    block: Decoded<'_>,
    add_base: bool,
    weights: &[[f32; N_TOGETHER]],
    rows: &mut [f32],
) {
    // Everything in vectors from here on: strides and padded lengths are multiples of every vector's length.
    let stride = block.stride / S::F32_LANES;
    let (base, columns) = (S::as_simd_f32s(block.base).0, S::as_simd_f32s(block.columns).0);
    let rows = S::as_mut_simd_f32s(rows).0;
    for start in (0..block.n_padded / S::F32_LANES).step_by(N_VECTORS) {
        let mut sums = [[simd.splat_f32s(0.0); N_VECTORS]; N_OUTPUTS];
        if add_base {
            let base = &base[start..][..N_VECTORS];
            for sums in &mut sums {
                sums.copy_from_slice(base);
            }
        }
        for (column, weights) in columns.chunks_exact(stride).zip(weights) {
            let column = &column[start..][..N_VECTORS];
            let mut column_x = [simd.splat_f32s(0.0); N_VECTORS];
            for v in 0..N_VECTORS {
                column_x[v] = column[v];
            }
            for k in 0..N_OUTPUTS {
                if SKIP_ZEROS && weights[k] == 0.0 {
                    continue;
                }
                let weight = simd.splat_f32s(weights[k]);
                for v in 0..N_VECTORS {
                    sums[k][v] = simd.mul_add_e_f32s(column_x[v], weight, sums[k][v]);
                }
            }
        }
        for (sums, rows) in sums.iter().zip(rows.chunks_exact_mut(stride)) {
            rows[start..][..N_VECTORS].copy_from_slice(sums);
        }
    }
}
