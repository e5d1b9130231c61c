//! decode: edits of a chunk straight from codes, panel by panel; see [`crate::decode`].

use super::block::Floats;
use super::code::spread_signs;
use super::output::size_rows;
use super::rotate::{BLOCKS, LINES, rotate_back};
use super::rows::{narrow, widen};
use super::scratch::Scratch;
use crate::check::bytes_per_output;
use crate::chunk::{Chunk, Segment};
use crate::code::{PANEL, n_blocks, scale_from_bits};
use crate::decode::Decode;
use crate::error::KernelError;
use crate::rate::Rate;
use crate::reconstruct::Base;
use crate::signs::{panel_key, part_lines, tensor_key};
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Combined {
    base: Floats,
    rows: Floats,
    /// What a column decodes to.
    column: Floats,
    /// The outputs, in the rotated domain.
    sums: Floats,
    signs: Vec<u32>,
    words: Vec<u32>,
}

impl OnCpu for Decode {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let bytes_per_output = bytes_per_output(chunk.layout, |segment| self.row_dtype(chunk.layout, segment))?;
        size_rows(rows, self.n_outputs, bytes_per_output)?;
        arch.dispatch(DecodeChunk { decode: self, chunk, combined: &mut scratch.combined, bytes_per_output, rows });
        Ok(())
    }
}

struct DecodeChunk<'a> {
    decode: &'a Decode,
    chunk: Chunk<'a>,
    combined: &'a mut Combined,
    bytes_per_output: usize,
    rows: &'a mut [u8],
}

/// One column of a panel as it is stored.
#[derive(Clone, Copy)]
struct Stored<'a> {
    rate: Rate,
    /// \[`rate.words()`, 16\].
    words: &'a [u32],
    scales: &'a [f32; BLOCKS],
    part: (u32, u32),
}

impl WithSimd for DecodeChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { decode, chunk, combined, bytes_per_output, rows: out } = self;
        let Combined { base, rows, column, sums, signs, words } = combined;
        let (n_columns, n_outputs) = (decode.rates.len(), decode.n_outputs);
        let sums = sums.at_least(n_outputs * PANEL);
        let column = column.at_least(PANEL);
        let (base, rows) = (base.at_least(PANEL), rows.at_least(PANEL));
        words.resize(8 * 8 * BLOCKS, 0);
        let mut segment_start = 0;
        for (at, &Segment { n_rows: segment_rows, place }) in chunk.layout.segments.iter().enumerate() {
            let key = tensor_key(decode.seed, place.tensor);
            let base_slice = chunk.layout.slice(at, 0);
            let dtype = decode.row_dtype(chunk.layout, at);
            let mut blocks_before = 0;
            for start in (0..segment_rows).step_by(PANEL) {
                let n_rows = PANEL.min(segment_rows - start);
                let n_blocks = n_blocks(n_rows);
                let number = (place.first_row / PANEL as u64) as u32;
                let key = panel_key(key, number.wrapping_add((start / PANEL) as u32));
                spread_signs(key, n_blocks, signs);
                sums.fill(0.0);
                for (index, &rate) in decode.rates.iter().enumerate() {
                    let weights = &decode.weights[index * n_outputs..][..n_outputs];
                    if weights.iter().all(|&weight| weight == 0.0) {
                        continue;
                    }
                    let slice = chunk.layout.codes[at * n_columns + index];
                    let n_words = rate.words() * n_blocks;
                    let bytes = &chunk.bytes[slice.words + 4 * rate.words() * blocks_before..][..4 * n_words];
                    let words = &mut words[..rate.words() * BLOCKS];
                    for (line, to) in bytes.chunks_exact(4 * n_blocks).zip(words.chunks_exact_mut(BLOCKS)) {
                        for (bytes, to) in line.as_chunks::<4>().0.iter().zip(to) {
                            *to = u32::from_le_bytes(*bytes);
                        }
                    }
                    let mut scales = [0.0; BLOCKS];
                    let bytes = &chunk.bytes[slice.scales + 2 * blocks_before..][..2 * n_blocks];
                    for (bytes, to) in bytes.as_chunks::<2>().0.iter().zip(&mut scales) {
                        *to = scale_from_bits(u16::from_le_bytes(*bytes));
                    }
                    let stored = Stored { rate, words, scales: &scales, part: part_lines(key) };
                    add_column(simd, stored, weights, column, sums);
                }
                for (output, z) in sums.chunks_exact_mut(PANEL).enumerate() {
                    rotate_back(simd, z, signs);
                    let rows = &mut rows[..n_rows];
                    if n_blocks == BLOCKS && n_rows == PANEL {
                        rows.copy_from_slice(z);
                    } else {
                        for (to, line) in rows.chunks_mut(n_blocks).zip(z.chunks_exact(BLOCKS)) {
                            to.copy_from_slice(&line[..to.len()]);
                        }
                    }
                    if decode.base == Base::Added {
                        let size = base_slice.dtype.size();
                        let bytes = &chunk.bytes[base_slice.offset + start * size..][..n_rows * size];
                        let base = &mut base[..n_rows];
                        widen(bytes, base_slice.dtype, base);
                        for (row, &base) in rows.iter_mut().zip(&*base) {
                            *row += base;
                        }
                    }
                    let to = output * bytes_per_output + segment_start + start * dtype.size();
                    narrow(rows, dtype, &mut out[to..][..n_rows * dtype.size()]);
                }
                blocks_before += n_blocks;
            }
            segment_start += segment_rows * dtype.size();
        }
    }
}

/// sums_k += w_k·ŷ.
#[inline(always)]
fn add_column<S: Simd>(simd: S, stored: Stored<'_>, weights: &[f32], column: &mut [f32], sums: &mut [f32]) {
    match stored.rate {
        Rate::Signs => planes::<S, 0>(simd, stored, weights, column, sums),
        Rate::Four => planes::<S, 1>(simd, stored, weights, column, sums),
        Rate::Eight => planes::<S, 2>(simd, stored, weights, column, sums),
        Rate::Sixteen => planes::<S, 3>(simd, stored, weights, column, sums),
        _ => {
            look_up(stored, column);
            for (&weight, sums) in weights.iter().zip(sums.chunks_exact_mut(PANEL)) {
                super::code::add_weighted(simd, weight, column, sums);
            }
        }
    }
}

/// Up to 16 levels: the level is picked by the planes' bits.
#[inline(always)]
fn planes<S: Simd, const BITS: usize>(
    simd: S,
    stored: Stored<'_>,
    weights: &[f32],
    column: &mut [f32],
    sums: &mut [f32],
) {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let mut level = [simd.splat_f32s(0.0); 8];
    for (to, &from) in level.iter_mut().zip(stored.rate.levels()) {
        *to = simd.splat_f32s(from);
    }
    let words = S::as_simd_u32s(&stored.words[..(BITS + 1) * 8 * BLOCKS]).0;
    let scales = S::as_simd_f32s(stored.scales).0;
    let (sign, one) = (simd.splat_u32s(1 << 31), simd.splat_u32s(1));
    // One output is summed as it is decoded; more share what is decoded.
    let is_single = weights.len() == 1;
    let weight = simd.splat_f32s(weights[0]);
    {
        let column = &mut S::as_mut_simd_f32s(&mut column[..PANEL]).0[..n];
        let sums = &mut S::as_mut_simd_f32s(&mut sums[..PANEL]).0[..n];
        for v in 0..per_line {
            for group in 0..8 {
                let mut left = [words[group * per_line + v]; 4];
                for (plane, left) in left.iter_mut().enumerate().take(BITS + 1) {
                    *left = words[(plane * 8 + group) * per_line + v];
                }
                for line in 32 * group..32 * (group + 1) {
                    let at = line * per_line + v;
                    // The sign bit, and a mask for each plane: its lowest bit.
                    let bit = simd.wrapping_dyn_shl_u32s(left[0], simd.splat_u32s(31));
                    let mask = |plane: usize| {
                        simd.greater_than_or_equal_u32s(
                            simd.wrapping_dyn_shl_u32s(left[plane], simd.splat_u32s(31)),
                            sign,
                        )
                    };
                    let pick = |m: S::m32s, then: S::f32s, otherwise: S::f32s| simd.select_f32s(m, then, otherwise);
                    let value = match BITS {
                        0 => level[0],
                        1 => pick(mask(1), level[1], level[0]),
                        2 => {
                            let low = mask(2);
                            pick(mask(1), pick(low, level[3], level[2]), pick(low, level[1], level[0]))
                        }
                        _ => {
                            let (middle, low) = (mask(2), mask(3));
                            let upper = pick(middle, pick(low, level[7], level[6]), pick(low, level[5], level[4]));
                            let lower = pick(middle, pick(low, level[3], level[2]), pick(low, level[1], level[0]));
                            pick(mask(1), upper, lower)
                        }
                    };
                    let value = simd.transmute_u32s_f32s(simd.mul_f32s(value, scales[v]));
                    let value = simd.transmute_f32s_u32s(simd.xor_u32s(value, bit));
                    if is_single {
                        sums[at] = simd.add_f32s(sums[at], simd.mul_f32s(weight, value));
                    } else {
                        column[at] = value;
                    }
                    for left in left.iter_mut().take(BITS + 1) {
                        *left = simd.wrapping_dyn_shr_u32s(*left, one);
                    }
                }
            }
        }
    }
    if !is_single {
        for (&weight, sums) in weights.iter().zip(sums.chunks_exact_mut(PANEL)) {
            super::code::add_weighted(simd, weight, column, sums);
        }
    }
}

/// Any rate, element by element.
#[inline(always)]
fn look_up(stored: Stored<'_>, column: &mut [f32]) {
    let Stored { rate, words, scales, part: (start, step) } = stored;
    let levels = rate.levels();
    if rate == Rate::Three {
        for line in 0..LINES {
            let (word, byte, power) = (line / 20, line % 20 / 5, 3u32.pow(line as u32 % 5));
            for block in 0..BLOCKS {
                let digits = words[word * BLOCKS + block] >> (8 * byte) & 0xff;
                let value = match digits / power % 3 {
                    0 => 0.0,
                    1 => levels[1],
                    _ => -levels[1],
                };
                column[line * BLOCKS + block] = value * scales[block];
            }
        }
        return;
    }
    let n_lines = rate.n_lines();
    if n_lines < LINES {
        column[..PANEL].fill(0.0);
    }
    let n_planes = rate.n_planes();
    for at in 0..n_lines {
        let line = if n_lines < LINES { (start as usize + at * step as usize) % LINES } else { at };
        for block in 0..BLOCKS {
            let bit = |plane: usize| words[(plane * n_lines / 32 + at / 32) * BLOCKS + block] >> (at % 32) & 1;
            let mut cell = 0;
            for plane in 1..n_planes {
                cell = 2 * cell + bit(plane) as usize;
            }
            let value = levels[cell] * scales[block];
            column[line * BLOCKS + block] = if bit(0) == 1 { -value } else { value };
        }
    }
}
