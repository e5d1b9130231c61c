//! One rotated column of a panel into words and scales.
//!
//! Everything runs down the lines, on all blocks of the panel at once; a word collects 32 lines of one block, so packing is a
//! shift and an or, whatever the vector's length.

use super::rotate::{BLOCKS, BlockSums, LINES};
use crate::panel::{PANEL, scale_bits};
use crate::rate::{Book, COMPAND, INV_SQRT_6, Rate};
use pulp::Simd;

/// How the scale is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaling {
    /// ⟨x, x̂⟩ = ‖x‖².
    Unbiased,
    /// The least ‖x − x̂‖².
    LeastSquares,
}

/// One column of a panel on its way to its code.
pub(super) struct Column<'a> {
    pub(super) rate: Rate,
    pub(super) scaling: Scaling,
    /// Which lines a part of them is; see [`crate::signs::part_lines`].
    pub(super) part: (u32, u32),
    /// The rotated panel.
    pub(super) y: &'a [f32],
    pub(super) sums: &'a BlockSums,
    /// \[`rate.words()`, 16\].
    pub(super) words: &'a mut [u32],
    pub(super) scales: &'a mut [u16; BLOCKS],
    /// c: the magnitudes with their signs, before the scale. Signs alone may be left out: empty.
    pub(super) levels: &'a mut [f32],
}

const SIGN: u32 = 1 << 31;
/// 2²³: added to a small positive number, it leaves that number, rounded to an integer, in the lowest bits.
const TO_INTEGER: f32 = 8_388_608.0;

/// What the scales follow from: ⟨|y|, c⟩ and ⟨c, c⟩ of each block.
#[derive(Clone, Copy, Default)]
pub(super) struct Products {
    pub(super) with_y: [f32; BLOCKS],
    pub(super) squares: [f32; BLOCKS],
}

/// A panel's scales as they were stored, and what they followed from.
pub(super) struct Scaled {
    pub(super) scales: [f32; BLOCKS],
    pub(super) products: Products,
}

/// Codes the column; answers what its scales followed from.
#[inline(always)]
pub(super) fn quantise<S: Simd>(simd: S, column: Column<'_>) -> Products {
    match column.rate.book() {
        Book::Signs { n_lines: LINES } => signs(simd, column),
        Book::Signs { n_lines } => part(column, n_lines),
        Book::Search { levels, bounds } => match levels.len() {
            2 => search::<S, 2, 1>(simd, column, levels, bounds),
            4 => search::<S, 4, 2>(simd, column, levels, bounds),
            _ => search::<S, 8, 3>(simd, column, levels, bounds),
        },
        Book::Compand { levels } => compand(simd, column, levels),
    }
}

/// The scales as they are stored, from ‖y‖² and the products.
#[inline(always)]
fn scales(scaling: Scaling, energy: &[f32; BLOCKS], products: &Products, out: &mut [u16; BLOCKS]) {
    for block in 0..BLOCKS {
        let (over, under) = match scaling {
            Scaling::Unbiased => (energy[block], products.with_y[block]),
            Scaling::LeastSquares => (products.with_y[block], products.squares[block]),
        };
        out[block] = if under > 0.0 { scale_bits(over / under) } else { 0 };
    }
}

#[inline(always)]
fn signs<S: Simd>(simd: S, column: Column<'_>) -> Products {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let Column { scaling, y, sums, words, scales: out, levels, .. } = column;
    let products = Products { with_y: sums.magnitude, squares: [LINES as f32; BLOCKS] };
    scales(scaling, &sums.energy, &products, out);
    let y = &S::as_simd_f32s(&y[..PANEL]).0[..n];
    let lines = &mut S::as_mut_simd_u32s(&mut words[..8 * BLOCKS]).0[..8 * per_line];
    let (sign, shift) = (simd.splat_u32s(SIGN), simd.splat_u32s(1));
    let one = simd.transmute_u32s_f32s(simd.splat_f32s(1.0));
    for v in 0..per_line {
        for group in 0..8 {
            let mut word = simd.splat_u32s(0);
            for line in 32 * group..32 * (group + 1) {
                let at = line * per_line + v;
                let bit = simd.and_u32s(simd.transmute_u32s_f32s(y[at]), sign);
                word = simd.or_u32s(simd.wrapping_dyn_shr_u32s(word, shift), bit);
            }
            lines[group * per_line + v] = word;
        }
    }
    // They are what y's signs say: nobody needs them but for a shared column.
    if !levels.is_empty() {
        let levels = &mut S::as_mut_simd_f32s(&mut levels[..PANEL]).0[..n];
        for (level, y) in levels.iter_mut().zip(y) {
            let bit = simd.and_u32s(simd.transmute_u32s_f32s(*y), sign);
            *level = simd.transmute_f32s_u32s(simd.or_u32s(bit, one));
        }
    }
    keep(out, &mut words[..8 * BLOCKS]);
    products
}

/// Signs of some lines; the others decode to nothing. In plain steps: a rate for when nothing else fits.
#[inline(always)]
fn part(column: Column<'_>, n_lines: usize) -> Products {
    let Column { scaling, part: (start, step), y, sums, words, scales: out, levels, .. } = column;
    let line_of = |at: usize| (start as usize + at * step as usize) % LINES;
    let mut products = Products { with_y: [0.0; BLOCKS], squares: [n_lines as f32; BLOCKS] };
    words[..n_lines / 32 * BLOCKS].fill(0);
    for at in 0..n_lines {
        for block in 0..BLOCKS {
            let value = y[line_of(at) * BLOCKS + block];
            products.with_y[block] += value.abs();
            words[at / 32 * BLOCKS + block] |= (value.to_bits() >> 31) << (at % 32);
        }
    }
    scales(scaling, &sums.energy, &products, out);
    keep(out, &mut words[..n_lines / 32 * BLOCKS]);
    levels[..PANEL].fill(0.0);
    for at in 0..n_lines {
        for block in 0..BLOCKS {
            let at = line_of(at) * BLOCKS + block;
            levels[at] = 1f32.copysign(y[at]);
        }
    }
    products
}

/// A magnitude's level by search among N − 1 bounds, with the bits of its number, the highest first. Macros in place of
/// closures: those were not inlined where registers ran short, and then cost thirty times as much.
#[inline(always)]
fn find<S: Simd, const N: usize, const BITS: usize>(
    simd: S,
    magnitude: S::f32s,
    bounds: &[S::f32s; 7],
    levels: &[S::f32s; N],
) -> ([S::m32s; BITS], S::f32s) {
    macro_rules! above {
        ($bound:expr) => {
            simd.greater_than_or_equal_f32s(magnitude, $bound)
        };
    }
    macro_rules! pick {
        ($mask:expr, $then:expr, $otherwise:expr) => {
            simd.select_f32s($mask, $then, $otherwise)
        };
    }
    let high = above!(bounds[N / 2 - 1]);
    let mut bits = [high; BITS];
    let level = match N {
        2 => pick!(high, levels[1], levels[0]),
        4 => {
            let low = above!(pick!(high, bounds[2], bounds[0]));
            bits[1] = low;
            pick!(high, pick!(low, levels[3], levels[2]), pick!(low, levels[1], levels[0]))
        }
        _ => {
            let middle = above!(pick!(high, bounds[5], bounds[1]));
            let upper = pick!(middle, bounds[6], bounds[4]);
            let low = above!(pick!(high, upper, pick!(middle, bounds[2], bounds[0])));
            (bits[1], bits[2]) = (middle, low);
            let upper = pick!(middle, pick!(low, levels[7], levels[6]), pick!(low, levels[5], levels[4]));
            let lower = pick!(middle, pick!(low, levels[3], levels[2]), pick!(low, levels[1], levels[0]));
            pick!(high, upper, lower)
        }
    };
    (bits, level)
}

/// 1/x, or 0 where x is 0 or its inverse too large.
#[inline(always)]
fn inverse_of(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The inverse of each block's standard deviation. Levels for it are within 1 % of the best: one more sweep for a deviation that fits the
/// levels themselves gained 0.1 to 0.6 % of the noise and cost a third of the speed.
#[inline(always)]
fn inverse_deviations(sums: &BlockSums) -> [f32; BLOCKS] {
    sums.energy.map(|energy| inverse_of((energy / LINES as f32).sqrt()))
}

#[inline(always)]
fn search<S: Simd, const N: usize, const BITS: usize>(
    simd: S,
    column: Column<'_>,
    levels: &[f32],
    bounds: &[f32],
) -> Products {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let Column { rate, scaling, y, sums, words, scales: out, levels: signed, .. } = column;
    let mut level = [simd.splat_f32s(0.0); N];
    let mut bound = [simd.splat_f32s(f32::MAX); 7];
    for (to, &from) in level.iter_mut().zip(levels) {
        *to = simd.splat_f32s(from);
    }
    for (to, &from) in bound.iter_mut().zip(bounds) {
        *to = simd.splat_f32s(from);
    }
    let inverse = inverse_deviations(sums);
    let mut products = Products::default();
    {
        let y = &S::as_simd_f32s(&y[..PANEL]).0[..n];
        let inverse = S::as_simd_f32s(&inverse).0;
        let signed = &mut S::as_mut_simd_f32s(&mut signed[..PANEL]).0[..n];
        let words = S::as_mut_simd_u32s(&mut words[..rate.words() * BLOCKS]).0;
        let with_y = S::as_mut_simd_f32s(&mut products.with_y).0;
        let squares = S::as_mut_simd_f32s(&mut products.squares).0;
        let (sign, one, none) = (simd.splat_u32s(SIGN), simd.splat_u32s(1), simd.splat_u32s(0));
        let zero = simd.splat_f32s(0.0);
        for v in 0..per_line {
            let mut digits = none;
            let (mut all_with_y, mut all_squares) = (zero, zero);
            for group in 0..8 {
                let mut signs = none;
                let mut planes = [none; BITS];
                let (mut part_with_y, mut part_squares) = (zero, zero);
                for line in 32 * group..32 * (group + 1) {
                    let at = line * per_line + v;
                    let bit = simd.and_u32s(simd.transmute_u32s_f32s(y[at]), sign);
                    let magnitude = simd.abs_f32s(y[at]);
                    let (bits, level) = find::<S, N, BITS>(simd, simd.mul_f32s(magnitude, inverse[v]), &bound, &level);
                    part_with_y = simd.add_f32s(part_with_y, simd.mul_f32s(magnitude, level));
                    part_squares = simd.add_f32s(part_squares, simd.mul_f32s(level, level));
                    signed[at] = simd.transmute_f32s_u32s(simd.or_u32s(bit, simd.transmute_u32s_f32s(level)));
                    if rate == Rate::Three {
                        let (word, place) = (line / 20, 1 << (8 * (line % 20 / 5)));
                        let place = place * 3u32.pow(line as u32 % 5);
                        let minus = simd.greater_than_or_equal_u32s(bit, sign);
                        let digit = simd.select_u32s(minus, simd.splat_u32s(2 * place), simd.splat_u32s(place));
                        digits = simd.add_u32s(digits, simd.select_u32s(bits[0], digit, none));
                        if line % 20 == 19 || line == LINES - 1 {
                            words[word * per_line + v] = digits;
                            digits = none;
                        }
                        continue;
                    }
                    signs = simd.or_u32s(simd.wrapping_dyn_shr_u32s(signs, one), bit);
                    for (plane, bit) in planes.iter_mut().zip(bits) {
                        let bit = simd.select_u32s(bit, sign, none);
                        *plane = simd.or_u32s(simd.wrapping_dyn_shr_u32s(*plane, one), bit);
                    }
                }
                all_with_y = simd.add_f32s(all_with_y, part_with_y);
                all_squares = simd.add_f32s(all_squares, part_squares);
                if rate != Rate::Three {
                    words[group * per_line + v] = signs;
                    for (plane, word) in planes.into_iter().enumerate() {
                        words[((plane + 1) * 8 + group) * per_line + v] = word;
                    }
                }
            }
            with_y[v] = all_with_y;
            squares[v] = all_squares;
        }
    }
    scales(scaling, &sums.energy, &products, out);
    keep(out, &mut words[..rate.words() * BLOCKS]);
    products
}

/// Blocks of zeros have no code, whatever the signs of their zeros.
#[inline(always)]
fn keep(scales: &[u16; BLOCKS], words: &mut [u32]) {
    if scales.iter().all(|&scale| scale != 0) {
        return;
    }
    for words in words.chunks_exact_mut(BLOCKS) {
        for (word, &scale) in words.iter_mut().zip(scales) {
            *word = if scale == 0 { 0 } else { *word };
        }
    }
}

/// The number of the cell that a magnitude in deviations falls into: see [`crate::rate`].
#[inline(always)]
fn cell<S: Simd>(simd: S, magnitude: S::f32s, n_cells: usize) -> S::u32s {
    let one = simd.splat_f32s(1.0);
    let x = simd.mul_f32s(magnitude, simd.splat_f32s(INV_SQRT_6));
    // Multiplied and added one by one, so that engines with and without fused steps agree.
    let mut t = simd.splat_f32s(COMPAND[3]);
    for coefficient in [COMPAND[2], COMPAND[1], COMPAND[0], 1.0] {
        t = simd.add_f32s(simd.mul_f32s(t, x), simd.splat_f32s(coefficient));
    }
    let t2 = simd.mul_f32s(t, t);
    let share = simd.sub_f32s(one, simd.div_f32s(one, simd.mul_f32s(t2, t2)));
    let cell = simd.sub_f32s(simd.mul_f32s(share, simd.splat_f32s(n_cells as f32)), simd.splat_f32s(0.5));
    // Not below 0 and not beyond the last one, where the share rounds to 1.
    let cell = simd.min_f32s(simd.max_f32s(cell, simd.splat_f32s(0.0)), simd.splat_f32s((n_cells - 1) as f32));
    let bits = simd.transmute_u32s_f32s(simd.add_f32s(cell, simd.splat_f32s(TO_INTEGER)));
    simd.and_u32s(bits, simd.splat_u32s((1 << 23) - 1))
}

#[inline(always)]
fn compand<S: Simd>(simd: S, column: Column<'_>, levels: &[f32]) -> Products {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let Column { rate, scaling, y, sums, words, scales: out, levels: signed, .. } = column;
    let y_lines = &S::as_simd_f32s(&y[..PANEL]).0[..n];
    let inverse = inverse_deviations(sums);
    let inverse_lines = S::as_simd_f32s(&inverse).0;
    {
        // The cells first, in the place of what they decode to.
        let cells = &mut S::as_mut_simd_u32s(bytemuck::cast_slice_mut(&mut signed[..PANEL])).0[..n];
        for at in 0..n {
            let magnitude = simd.mul_f32s(simd.abs_f32s(y_lines[at]), inverse_lines[at % per_line]);
            cells[at] = cell(simd, magnitude, levels.len());
        }
        let n_bits = rate.n_planes() - 1;
        let words = S::as_mut_simd_u32s(&mut words[..rate.words() * BLOCKS]).0;
        let (sign, one) = (simd.splat_u32s(SIGN), simd.splat_u32s(1));
        for v in 0..per_line {
            for group in 0..8 {
                let mut signs = simd.splat_u32s(0);
                for line in 32 * group..32 * (group + 1) {
                    let bit = simd.and_u32s(simd.transmute_u32s_f32s(y_lines[line * per_line + v]), sign);
                    signs = simd.or_u32s(simd.wrapping_dyn_shr_u32s(signs, one), bit);
                }
                words[group * per_line + v] = signs;
                for plane in 0..n_bits {
                    // The highest bit of the cell's number first.
                    let up = simd.splat_u32s((32 - n_bits + plane) as u32);
                    let mut word = simd.splat_u32s(0);
                    for line in 32 * group..32 * (group + 1) {
                        let bit = simd.and_u32s(simd.wrapping_dyn_shl_u32s(cells[line * per_line + v], up), sign);
                        word = simd.or_u32s(simd.wrapping_dyn_shr_u32s(word, one), bit);
                    }
                    words[((plane + 1) * 8 + group) * per_line + v] = word;
                }
            }
        }
    }
    // One table look-up an element.
    for value in signed[..PANEL].iter_mut() {
        *value = levels[(value.to_bits() as usize).min(levels.len() - 1)];
    }
    let mut products = Products::default();
    {
        let signed = &mut S::as_mut_simd_f32s(&mut signed[..PANEL]).0[..n];
        let sign = simd.splat_u32s(SIGN);
        let with_y = S::as_mut_simd_f32s(&mut products.with_y).0;
        let squares = S::as_mut_simd_f32s(&mut products.squares).0;
        for v in 0..per_line {
            let zero = simd.splat_f32s(0.0);
            let (mut all_with_y, mut all_squares) = (zero, zero);
            for p in 0..16 {
                let (mut part_with_y, mut part_squares) = (zero, zero);
                for q in 0..16 {
                    let at = (16 * p + q) * per_line + v;
                    let level = signed[at];
                    let bit = simd.and_u32s(simd.transmute_u32s_f32s(y_lines[at]), sign);
                    signed[at] = simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(level), bit));
                    let product = simd.mul_f32s(simd.abs_f32s(y_lines[at]), level);
                    part_with_y = simd.add_f32s(part_with_y, product);
                    part_squares = simd.add_f32s(part_squares, simd.mul_f32s(level, level));
                }
                all_with_y = simd.add_f32s(all_with_y, part_with_y);
                all_squares = simd.add_f32s(all_squares, part_squares);
            }
            with_y[v] = all_with_y;
            squares[v] = all_squares;
        }
    }
    scales(scaling, &sums.energy, &products, out);
    keep(out, &mut words[..rate.words() * BLOCKS]);
    products
}
