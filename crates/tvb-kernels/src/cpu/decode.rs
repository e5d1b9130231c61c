//! decode: edits of a chunk straight from codes, panel by panel; see [`crate::decode`].

use super::output::size_rows;
use super::panels::{Combined, add_weighted, spread_signs};
use super::rotate::{BLOCKS, LINES, rotate_back};
use super::rows::{narrow, widen};
use super::scratch::Scratch;
use crate::check::bytes_per_output;
use crate::chunk::{Chunk, Dtype, Segment};
use crate::decode::Decode;
use crate::error::KernelError;
use crate::panel::{PANEL, n_blocks, scale_from_bits};
use crate::rate::{MOST_WORDS, Rate};
use crate::reconstruct::Base;
use crate::signs::part_lines;
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

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
        words.resize(MOST_WORDS * BLOCKS, 0);
        let mut segment_start = 0;
        for (at, &Segment { n_rows: segment_rows, place }) in chunk.layout.segments.iter().enumerate() {
            let base_slice = chunk.layout.slice(at, 0);
            let dtype = decode.row_dtype(chunk.layout, at);
            let mut blocks_before = 0;
            for start in (0..segment_rows).step_by(PANEL) {
                let n_rows = PANEL.min(segment_rows - start);
                let n_blocks = n_blocks(n_rows);
                let key = place.panel_key(decode.seed, start);
                spread_signs(simd, key, n_blocks, signs);
                sums.fill(0.0);
                for (index, &rate) in decode.rates.iter().enumerate() {
                    let weights = &decode.weights[index * n_outputs..][..n_outputs];
                    if weights.iter().all(|&weight| weight == 0.0) {
                        continue;
                    }
                    let slice = chunk.layout.codes[at * n_columns + index];
                    let n_words = rate.words() * n_blocks;
                    let bytes = &chunk.bytes[slice.words + 4 * rate.words() * blocks_before..][..4 * n_words];
                    // A whole panel's words lie as they are worked on.
                    let in_place = bytemuck::try_cast_slice::<u8, u32>(bytes).ok();
                    let in_place = in_place.filter(|_| n_blocks == BLOCKS && cfg!(target_endian = "little"));
                    let words = match in_place {
                        Some(words) => words,
                        None => {
                            let words = &mut words[..rate.words() * BLOCKS];
                            for (line, to) in bytes.chunks_exact(4 * n_blocks).zip(words.chunks_exact_mut(BLOCKS)) {
                                for (bytes, to) in line.as_chunks::<4>().0.iter().zip(to) {
                                    *to = u32::from_le_bytes(*bytes);
                                }
                            }
                            &*words
                        }
                    };
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
                    let to = output * bytes_per_output + segment_start + start * dtype.size();
                    let to = &mut out[to..][..n_rows * dtype.size()];
                    let size = base_slice.dtype.size();
                    let base_bytes = &chunk.bytes[base_slice.offset + start * size..][..n_rows * size];
                    if n_rows == PANEL
                        && decode.base == Base::Added
                        && add_in_place(z, base_bytes, base_slice.dtype, dtype, to)
                    {
                        continue;
                    }
                    let rows = &mut rows[..n_rows];
                    if n_blocks == BLOCKS && n_rows == PANEL {
                        rows.copy_from_slice(z);
                    } else {
                        for (to, line) in rows.chunks_mut(n_blocks).zip(z.chunks_exact(BLOCKS)) {
                            to.copy_from_slice(&line[..to.len()]);
                        }
                    }
                    if decode.base == Base::Added {
                        let base = &mut base[..n_rows];
                        widen(base_bytes, base_slice.dtype, base);
                        for (row, &base) in rows.iter_mut().zip(&*base) {
                            *row += base;
                        }
                    }
                    narrow(rows, dtype, to);
                }
                blocks_before += n_blocks;
            }
            segment_start += segment_rows * dtype.size();
        }
    }
}

/// out = z + base in one go, where both are f32 and lie as such; false where they do not.
#[inline(always)]
fn add_in_place(z: &[f32], base: &[u8], base_dtype: Dtype, dtype: Dtype, out: &mut [u8]) -> bool {
    if (base_dtype, dtype) != (Dtype::F32, Dtype::F32) || cfg!(target_endian = "big") {
        return false;
    }
    let (Ok(base), Ok(out)) = (bytemuck::try_cast_slice::<u8, f32>(base), bytemuck::try_cast_slice_mut::<u8, f32>(out))
    else {
        return false;
    };
    for ((out, z), base) in out.iter_mut().zip(z).zip(base) {
        *out = z + base;
    }
    true
}

/// sums_k += w_k·ŷ.
#[inline(always)]
fn add_column<S: Simd>(simd: S, stored: Stored<'_>, weights: &[f32], column: &mut [f32], sums: &mut [f32]) {
    match stored.rate {
        Rate::Signs => planes::<S, 1, 0>(simd, stored, weights, column, sums),
        Rate::Four => planes::<S, 2, 1>(simd, stored, weights, column, sums),
        Rate::Eight => planes::<S, 4, 2>(simd, stored, weights, column, sums),
        Rate::Sixteen => planes::<S, 8, 3>(simd, stored, weights, column, sums),
        Rate::Three => {
            // Signs and a plane of which elements are not zero.
            let mut words = [0; 16 * BLOCKS];
            digits_to_planes(stored.words, &mut words);
            planes::<S, 2, 1>(simd, Stored { words: &words, ..stored }, weights, column, sums);
        }
        Rate::Quarter | Rate::Half => {
            signs_of_a_part(stored, column);
            add_to_all(simd, weights, column, sums);
        }
        Rate::ThirtyTwo | Rate::SixtyFour | Rate::TwoFiveSix => {
            cells(simd, stored, column);
            add_to_all(simd, weights, column, sums);
        }
    }
}

#[inline(always)]
fn add_to_all<S: Simd>(simd: S, weights: &[f32], column: &[f32], sums: &mut [f32]) {
    for (&weight, sums) in weights.iter().zip(sums.chunks_exact_mut(PANEL)) {
        add_weighted(simd, weight, column, sums);
    }
}

/// Up to 16 levels: the level is picked by the planes' bits.
#[inline(always)]
fn planes<S: Simd, const N: usize, const BITS: usize>(
    simd: S,
    stored: Stored<'_>,
    weights: &[f32],
    column: &mut [f32],
    sums: &mut [f32],
) {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let mut level = [simd.splat_f32s(0.0); N];
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
        macro_rules! pick {
            ($mask:expr, $then:expr, $otherwise:expr) => {
                simd.select_f32s($mask, $then, $otherwise)
            };
        }
        for v in 0..per_line {
            // What each level comes to in these blocks.
            let mut scaled = level;
            for level in &mut scaled {
                *level = simd.mul_f32s(*level, scales[v]);
                if is_single {
                    *level = simd.mul_f32s(weight, *level);
                }
            }
            let level = scaled;
            for group in 0..8 {
                // From the last line on, whose bits are the highest.
                let mut left = [words[group * per_line + v]; 4];
                for (plane, left) in left.iter_mut().enumerate().take(BITS + 1) {
                    *left = words[(plane * 8 + group) * per_line + v];
                }
                for line in (32 * group..32 * (group + 1)).rev() {
                    let at = line * per_line + v;
                    let mut mask = [simd.greater_than_or_equal_u32s(left[BITS], sign); 3];
                    for (plane, mask) in mask.iter_mut().enumerate().take(BITS) {
                        *mask = simd.greater_than_or_equal_u32s(left[plane + 1], sign);
                    }
                    let value = match BITS {
                        0 => level[0],
                        1 => pick!(mask[0], level[1], level[0]),
                        2 => pick!(mask[0], pick!(mask[1], level[3], level[2]), pick!(mask[1], level[1], level[0])),
                        _ => {
                            let (middle, low) = (mask[1], mask[2]);
                            let upper = pick!(middle, pick!(low, level[7], level[6]), pick!(low, level[5], level[4]));
                            let lower = pick!(middle, pick!(low, level[3], level[2]), pick!(low, level[1], level[0]));
                            pick!(mask[0], upper, lower)
                        }
                    };
                    let value = simd.transmute_u32s_f32s(value);
                    let value = simd.transmute_f32s_u32s(simd.xor_u32s(value, simd.and_u32s(left[0], sign)));
                    if is_single {
                        sums[at] = simd.add_f32s(sums[at], value);
                    } else {
                        column[at] = value;
                    }
                    for left in left.iter_mut().take(BITS + 1) {
                        *left = simd.wrapping_dyn_shl_u32s(*left, one);
                    }
                }
            }
        }
    }
    if !is_single {
        add_to_all(simd, weights, column, sums);
    }
}

/// For each byte of five digits: which are not zero, and in the upper half which are minus.
const DIGITS: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut rest, mut at) = (byte, 0);
        while at < 5 {
            match rest % 3 {
                0 => {}
                1 => table[byte] |= 1 << at,
                _ => table[byte] |= (1 << at) | (1 << (8 + at)),
            }
            rest /= 3;
            at += 1;
        }
        byte += 1;
    }
    table
};

/// 13 words of 20 digits a block to a plane of signs and one of which elements are not zero.
#[inline(always)]
fn digits_to_planes(digits: &[u32], planes: &mut [u32; 16 * BLOCKS]) {
    for block in 0..BLOCKS {
        let (mut minus, mut set) = (0u64, 0u64);
        let (mut filled, mut group) = (0, 0);
        for word in 0..13 {
            for byte in digits[word * BLOCKS + block].to_le_bytes() {
                let found = DIGITS[usize::from(byte)];
                set |= u64::from(found & 0x1f) << filled;
                minus |= u64::from(found >> 8) << filled;
                filled += 5;
                if filled >= 32 && group < 8 {
                    planes[group * BLOCKS + block] = minus as u32;
                    planes[(8 + group) * BLOCKS + block] = set as u32;
                    (minus, set) = (minus >> 32, set >> 32);
                    filled -= 32;
                    group += 1;
                }
            }
        }
    }
}

/// Signs of some lines; the others are zero.
#[inline(always)]
fn signs_of_a_part(stored: Stored<'_>, column: &mut [f32]) {
    let Stored { rate, words, scales, part: (start, step) } = stored;
    column[..PANEL].fill(0.0);
    for at in 0..rate.n_lines() {
        let line = (start as usize + at * step as usize) % LINES;
        for block in 0..BLOCKS {
            let minus = (words[at / 32 * BLOCKS + block] >> (at % 32)) << 31;
            column[line * BLOCKS + block] = f32::from_bits(scales[block].to_bits() ^ minus);
        }
    }
}

/// 32 levels and more: the cells' numbers first, then one look-up an element.
#[inline(always)]
fn cells<S: Simd>(simd: S, stored: Stored<'_>, column: &mut [f32]) {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let n_planes = stored.rate.n_planes();
    let levels = stored.rate.levels();
    let words = S::as_simd_u32s(&stored.words[..n_planes * 8 * BLOCKS]).0;
    let one = simd.splat_u32s(1);
    {
        let cells = &mut S::as_mut_simd_u32s(bytemuck::cast_slice_mut(&mut column[..PANEL])).0[..n];
        for v in 0..per_line {
            for group in 0..8 {
                let mut left = [words[group * per_line + v]; 8];
                for (plane, left) in left.iter_mut().enumerate().take(n_planes) {
                    *left = words[(plane * 8 + group) * per_line + v];
                }
                for line in 32 * group..32 * (group + 1) {
                    let mut cell = simd.splat_u32s(0);
                    // The sign last, in the lowest bit.
                    for plane in (1..n_planes).chain([0]) {
                        cell = simd.or_u32s(simd.wrapping_dyn_shl_u32s(cell, one), simd.and_u32s(left[plane], one));
                        left[plane] = simd.wrapping_dyn_shr_u32s(left[plane], one);
                    }
                    cells[line * per_line + v] = cell;
                }
            }
        }
    }
    for line in column[..PANEL].as_chunks_mut::<BLOCKS>().0 {
        for (value, &scale) in line.iter_mut().zip(stored.scales) {
            let cell = value.to_bits();
            let level = levels[(cell as usize >> 1).min(levels.len() - 1)] * scale;
            *value = f32::from_bits(level.to_bits() ^ (cell << 31));
        }
    }
}
