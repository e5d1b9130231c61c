//! combine: out_k(x) = start(x) + Σ_c column_c(x)·w\[c,k\] over a decoded block: the heart of `project` and `reconstruct`.
//!
//! Numerics: f32, columns in order, so a row's bits do not depend on how rows are cut into blocks. A column whose weight
//! is exactly 0 for an output is left out of it: an infinity or a NaN there cannot reach that output (0·∞ is NaN).

use super::block::{Decoded, Floats};
use pulp::Simd;

/// Outputs formed together.
pub(super) const N_TOGETHER: usize = 4;

/// Weights as the kernel reads them: for every [`N_TOGETHER`] outputs, [n_columns, N_TOGETHER], zeros beyond the last.
#[derive(Default)]
pub(super) struct Weights {
    packed: Vec<[f32; N_TOGETHER]>,
    n_columns: usize,
    n_outputs: usize,
}

impl Weights {
    /// Packs row-major [n_columns, n_outputs] weights.
    pub(super) fn pack(&mut self, weights: &[f32], n_columns: usize, n_outputs: usize) {
        (self.n_columns, self.n_outputs) = (n_columns, n_outputs);
        self.packed.clear();
        self.packed.resize(n_outputs.div_ceil(N_TOGETHER) * n_columns, [0.0; N_TOGETHER]);
        for (column, row) in weights.chunks_exact(n_outputs).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                self.packed[output / N_TOGETHER * n_columns + column][output % N_TOGETHER] = weight;
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
    for first in (0..weights.n_outputs).step_by(N_TOGETHER) {
        let packed = &weights.packed[first / N_TOGETHER * weights.n_columns..][..weights.n_columns];
        let n_outputs = N_TOGETHER.min(weights.n_outputs - first);
        if S::REGISTER_COUNT >= 32 {
            combine_four::<S, 4>(simd, block, add_base, packed, rows);
        } else {
            combine_four::<S, 2>(simd, block, add_base, packed, rows);
        }
        for (at, rows) in rows.chunks_exact(block.stride).take(n_outputs).enumerate() {
            store(first + at, &rows[..block.n_padded]);
        }
    }
}

/// Four outputs, `N_VECTORS` vectors of rows at a time: their sums stay in registers over all columns.
#[inline(always)]
fn combine_four<S: Simd, const N_VECTORS: usize>(
    simd: S,
    block: Decoded<'_>,
    add_base: bool,
    weights: &[[f32; N_TOGETHER]],
    rows: &mut [f32],
) {
    let step = N_VECTORS * S::F32_LANES;
    for start in (0..block.n_padded).step_by(step) {
        let mut sums = [[simd.splat_f32s(0.0); N_VECTORS]; N_TOGETHER];
        if add_base {
            let base = S::as_simd_f32s(&block.base[start..][..step]).0;
            for sums in &mut sums {
                for v in 0..N_VECTORS {
                    sums[v] = base[v];
                }
            }
        }
        for (column, weights) in weights.iter().enumerate() {
            let column = &S::as_simd_f32s(&block.columns[column * block.stride + start..][..step]).0[..N_VECTORS];
            let mut column_x = [simd.splat_f32s(0.0); N_VECTORS];
            for v in 0..N_VECTORS {
                column_x[v] = column[v];
            }
            if weights.iter().all(|&weight| weight != 0.0) {
                for k in 0..N_TOGETHER {
                    let weight = simd.splat_f32s(weights[k]);
                    for v in 0..N_VECTORS {
                        sums[k][v] = simd.mul_add_e_f32s(column_x[v], weight, sums[k][v]);
                    }
                }
            } else {
                for k in 0..N_TOGETHER {
                    if weights[k] != 0.0 {
                        let weight = simd.splat_f32s(weights[k]);
                        for v in 0..N_VECTORS {
                            sums[k][v] = simd.mul_add_e_f32s(column_x[v], weight, sums[k][v]);
                        }
                    }
                }
            }
        }
        for k in 0..N_TOGETHER {
            let out = &mut S::as_mut_simd_f32s(&mut rows[k * block.stride + start..][..step]).0[..N_VECTORS];
            out.copy_from_slice(&sums[k]);
        }
    }
}
