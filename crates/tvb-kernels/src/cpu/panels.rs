//! Panels in memory: one thread's buffers, signs and rows spread to where the rotation wants them, and sums of panels.

use super::floats::Floats;
use super::quantise::Scaled;
use super::rotate::{BLOCKS, LINES};
use crate::panel::PANEL;
use crate::signs::sign_word;
use pulp::Simd;

/// Buffers of one thread: a panel of every column.
#[derive(Default)]
pub(super) struct Panels {
    pub(super) base: Floats,
    /// Never written: the base of rows that are differences already.
    pub(super) zeros: Floats,
    /// Factors as floats, and rows formed from them.
    pub(super) factors: Floats,
    pub(super) formed: Floats,
    pub(super) rows: Floats,
    pub(super) spread: Floats,
    pub(super) signs: Vec<u32>,
    /// Rotated task columns, then what they lack of the shared ones.
    pub(super) rotated: Floats,
    /// Each column's levels, before its scales; for shared columns what they decode to.
    pub(super) levels: Floats,
    /// The scales of each task's blocks, and its energy.
    pub(super) scales: Vec<(Scaled, f64)>,
    pub(super) scaled: Floats,
    pub(super) words: Vec<u32>,
}

/// Buffers of one thread that decodes.
#[derive(Default)]
pub(super) struct Combined {
    pub(super) base: Floats,
    pub(super) rows: Floats,
    /// What a column decodes to.
    pub(super) column: Floats,
    /// The outputs, in the rotated domain.
    pub(super) sums: Floats,
    pub(super) signs: Vec<u32>,
    pub(super) words: Vec<u32>,
}

/// The signs of a panel of `n_blocks` blocks, as sign bits where the rotation wants them.
#[inline(always)]
pub(super) fn spread_signs<S: Simd>(simd: S, key: u32, n_blocks: usize, out: &mut Vec<u32>) {
    let mut words = [0; 8 * BLOCKS];
    for (group, words) in words.chunks_exact_mut(BLOCKS).enumerate() {
        for (block, word) in words[..n_blocks].iter_mut().enumerate() {
            *word = sign_word(key, (group * n_blocks + block) as u32);
        }
    }
    out.resize(PANEL, 0);
    let per_line = BLOCKS / S::F32_LANES;
    let words = S::as_simd_u32s(&words).0;
    let out = &mut S::as_mut_simd_u32s(&mut out[..PANEL]).0[..LINES * per_line];
    let (sign, one) = (simd.splat_u32s(1 << 31), simd.splat_u32s(1));
    for v in 0..per_line {
        for group in 0..8 {
            // The highest bit is the last line's.
            let mut word = words[group * per_line + v];
            for line in (32 * group..32 * (group + 1)).rev() {
                out[line * per_line + v] = simd.and_u32s(word, sign);
                word = simd.wrapping_dyn_shl_u32s(word, one);
            }
        }
    }
}

/// A panel of fewer than sixteen blocks, each in its place, with zeros for what is missing.
#[inline(always)]
pub(super) fn spread_rows(rows: &[f32], n_blocks: usize, out: &mut [f32]) {
    out[..PANEL].fill(0.0);
    for (line, out) in rows.chunks(n_blocks).zip(out.chunks_exact_mut(BLOCKS)) {
        out[..line.len()].copy_from_slice(line);
    }
}

/// out += weight·x.
#[inline(always)]
pub(super) fn add_weighted<S: Simd>(simd: S, weight: f32, x: &[f32], out: &mut [f32]) {
    let weight = simd.splat_f32s(weight);
    let (x, out) = (S::as_simd_f32s(&x[..PANEL]).0, S::as_mut_simd_f32s(&mut out[..PANEL]).0);
    for (&x, out) in x.iter().zip(out) {
        *out = simd.add_f32s(*out, simd.mul_f32s(weight, x));
    }
}
