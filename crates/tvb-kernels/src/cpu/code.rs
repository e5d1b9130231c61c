//! code: a chunk's task vectors into codes, panel by panel; see [`crate::code`].

use super::floats::Floats;
use super::low_rank::form_rows;
use super::panels::{Panels, add_weighted, spread_rows, spread_signs};
use super::quantise::{Column, Scaled, Scaling, quantise};
use super::rotate::{BLOCKS, BlockSums, LINES, rotate, rotate_difference};
use super::rows::{widen, widen_less_base};
use super::scratch::Scratch;
use crate::chunk::{Chunk, Dtype, Segment, Slice};
use crate::code::{Code, Codes, Measured};
use crate::error::KernelError;
use crate::panel::{PANEL, n_blocks, scale_bits, scale_from_bits};
use crate::rate::{MOST_WORDS, Rate};
use crate::signs::part_lines;
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

/// Magnitudes of a block, added up, whose squares and their sums are sure to be normal f32s.
const EASY: std::ops::Range<f32> = 1.0e-12..1.0e18;

impl OnCpu for Code {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        out: &mut Codes,
    ) -> Result<(), KernelError> {
        let n_tasks = chunk.layout.n_tasks().saturating_sub(self.n_carried);
        let (words, kept_words) =
            (Code::words_per_column(self.rate, chunk.layout), Code::words_per_column(self.kept_rate, chunk.layout));
        let scales = Code::scales_per_column(chunk.layout);
        let too_large = || KernelError::TooLarge { what: "codes" };
        let n_words = words.checked_mul(n_tasks).and_then(|n| n.checked_add(kept_words.checked_mul(self.n_kept)?));
        let n_scales = scales.checked_mul(n_tasks + self.n_kept).ok_or_else(too_large)?;
        out.words.resize(n_words.ok_or_else(too_large)?, 0);
        out.scales.resize(n_scales, 0);
        out.measured.clear();
        out.measured.resize(chunk.layout.segments.len() * n_tasks, Measured::default());
        out.lost.clear();
        out.lost.resize(chunk.layout.segments.len() * (n_tasks + self.n_kept), 0.0);
        arch.dispatch(CodeChunk { code: self, chunk, panels: &mut scratch.panels, words, kept_words, scales, out });
        Ok(())
    }
}

struct CodeChunk<'a> {
    code: &'a Code,
    chunk: Chunk<'a>,
    panels: &'a mut Panels,
    /// Words of one task's column, and of one shared column.
    words: usize,
    kept_words: usize,
    /// Scales of one column.
    scales: usize,
    out: &'a mut Codes,
}

/// One panel of a segment.
#[derive(Clone, Copy)]
struct Panel {
    segment: usize,
    /// First row within the segment, and how many.
    start: usize,
    n_rows: usize,
    /// Blocks, the last one perhaps not full.
    n_blocks: usize,
    /// Blocks of the chunk before it.
    blocks_before: usize,
}

impl WithSimd for CodeChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut blocks_before = 0;
        for (segment, &Segment { n_rows, place }) in self.chunk.layout.segments.iter().enumerate() {
            for start in (0..n_rows).step_by(PANEL) {
                let n_rows = PANEL.min(n_rows - start);
                let panel = Panel { segment, start, n_rows, n_blocks: n_blocks(n_rows), blocks_before };
                let key = place.panel_key(self.code.seed, start);
                spread_signs(simd, key, panel.n_blocks, &mut self.panels.signs);
                self.panel(simd, panel, part_lines(key));
                blocks_before += panel.n_blocks;
            }
        }
    }
}

impl CodeChunk<'_> {
    #[inline(always)]
    fn panel<S: Simd>(&mut self, simd: S, panel: Panel, part: (u32, u32)) {
        let code = self.code;
        let (n_columns, n_kept) = (self.chunk.layout.n_tasks(), code.n_kept);
        let n_tasks = n_columns.saturating_sub(code.n_carried);
        let Panels {
            base,
            zeros,
            factors: factor_floats,
            formed,
            rows,
            spread,
            signs,
            rotated,
            levels: decoded,
            scales: task_scales,
            scaled,
            words,
        } = &mut *self.panels;
        let rotated = rotated.at_least((n_columns + n_kept) * PANEL);
        let decoded = decoded.at_least((n_tasks + n_kept) * PANEL);
        let (tasks, lacking) = rotated.split_at_mut(n_columns * PANEL);
        lacking.fill(0.0);
        let nothing = &zeros.at_least(PANEL)[..panel.n_rows];
        let base = &mut base.at_least(PANEL)[..panel.n_rows];
        let slice = |column: usize| {
            let slice = self.chunk.layout.slice(panel.segment, column);
            let size = slice.dtype.size();
            (&self.chunk.bytes[slice.offset + panel.start * size..][..panel.n_rows * size], slice)
        };
        let (bytes, Slice { dtype, .. }) = slice(0);
        widen(bytes, dtype, base);
        let base = &*base;
        let rows = rows.at_least(PANEL);
        let spread = spread.at_least(PANEL);
        task_scales.clear();
        let mut coded = Coded { simd, part, panel, scaled, words };
        for task in 0..n_columns {
            let (bytes, Slice { dtype, is_delta, .. }) = match self.chunk.layout.factors_of(panel.segment, task + 1) {
                Some(factors) => {
                    let formed = &mut formed.at_least(PANEL)[..panel.n_rows];
                    form_rows(self.chunk, factors, panel.start, factor_floats, formed);
                    // As the bytes of a file.
                    formed.iter_mut().for_each(|row| *row = f32::from_bits(row.to_bits().to_le()));
                    (bytemuck::cast_slice(formed), Slice::of_delta(0))
                }
                None => slice(task + 1),
            };
            let base = if is_delta { nothing } else { base };
            let y = &mut tasks[task * PANEL..][..PANEL];
            let floats = if dtype == Dtype::F32 { bytemuck::try_cast_slice::<u8, f32>(bytes).ok() } else { None };
            let sums = match (panel.n_rows, floats) {
                (PANEL, Some(floats)) if cfg!(target_endian = "little") => {
                    rotate_difference(simd, floats, base, signs, y)
                }
                (PANEL, _) => {
                    widen_less_base(bytes, dtype, base, rows);
                    rotate(simd, rows, signs, y)
                }
                (n_rows, _) => {
                    widen_less_base(bytes, dtype, base, &mut rows[..n_rows]);
                    spread_rows(&rows[..n_rows], panel.n_blocks, spread);
                    rotate(simd, spread, signs, y)
                }
            };
            if task >= n_tasks {
                for (kept, lacking) in lacking.chunks_exact_mut(PANEL).enumerate() {
                    add_weighted(simd, code.kept[task * n_kept + kept], y, lacking);
                }
                continue;
            }
            let is_signs = code.rate == Rate::Signs;
            let levels = &mut decoded[task * PANEL..][..if is_signs { 0 } else { PANEL }];
            let to = Target {
                words: &mut self.out.words[task * self.words..][..self.words],
                scales: &mut self.out.scales[task * self.scales..][..self.scales],
            };
            let scaled = coded.column(code.rate, Scaling::Unbiased, y, &sums, levels, to);
            self.out.lost[panel.segment * (n_tasks + n_kept) + task] += scaled.lost(&sums.energy);
            let energy = sums.energy[..panel.n_blocks].iter().map(|&energy| f64::from(energy)).sum::<f64>();
            for (kept, lacking) in lacking.chunks_exact_mut(PANEL).enumerate() {
                let weight = code.kept[task * n_kept + kept];
                match is_signs {
                    true => add_weighted_difference::<S, true>(simd, weight, y, levels, &scaled.scales, lacking),
                    false => add_weighted_difference::<S, false>(simd, weight, y, levels, &scaled.scales, lacking),
                }
            }
            task_scales.push((scaled, energy));
        }
        let (levels, kept_hats) = decoded.split_at_mut(n_tasks * PANEL);
        for (kept, (y, hat)) in lacking.chunks_exact(PANEL).zip(kept_hats.chunks_exact_mut(PANEL)).enumerate() {
            let sums = block_sums(simd, y);
            let words = &mut self.out.words[n_tasks * self.words + kept * self.kept_words..][..self.kept_words];
            let scales = &mut self.out.scales[(n_tasks + kept) * self.scales..][..self.scales];
            let to = Target { words, scales };
            let scaled = coded.column(code.kept_rate, Scaling::LeastSquares, y, &sums, hat, to);
            self.out.lost[panel.segment * (n_tasks + n_kept) + n_tasks + kept] += scaled.lost(&sums.energy);
            for line in hat.chunks_exact_mut(BLOCKS) {
                for (value, scale) in line.iter_mut().zip(scaled.scales) {
                    *value *= scale;
                }
            }
        }
        for task in 0..n_tasks {
            let (scaled, energy) = &task_scales[task];
            let (y, levels) = (&tasks[task * PANEL..][..PANEL], &levels[task * PANEL..][..PANEL]);
            let (weight, shared) = match (&code.kept[task * n_kept..][..n_kept], &*kept_hats) {
                ([], _) => (0.0, &[][..]),
                ([weight], shared) => (*weight, shared),
                (weights, all) => {
                    let shared = &mut spread[..PANEL];
                    shared.fill(0.0);
                    for (&weight, kept_hat) in weights.iter().zip(all.chunks_exact(PANEL)) {
                        add_weighted(simd, weight, kept_hat, shared);
                    }
                    (1.0, &*shared)
                }
            };
            let along = match (shared.is_empty(), code.rate) {
                (true, _) => Along::default(),
                (false, Rate::Signs) => along::<S, true>(simd, y, levels, shared),
                (false, _) => along::<S, false>(simd, y, levels, shared),
            };
            let measured = &mut self.out.measured[panel.segment * n_tasks + task];
            measured.energy += energy;
            measured.add(scaled, weight, &along);
        }
    }
}

/// Where a column's codes go, of all segments.
struct Target<'a> {
    words: &'a mut [u32],
    scales: &'a mut [u16],
}

/// What coding a column of a panel needs.
struct Coded<'a, S: Simd> {
    simd: S,
    part: (u32, u32),
    panel: Panel,
    scaled: &'a mut Floats,
    words: &'a mut Vec<u32>,
}

impl<S: Simd> Coded<'_, S> {
    #[inline(always)]
    fn column(
        &mut self,
        rate: Rate,
        scaling: Scaling,
        y: &[f32],
        sums: &BlockSums,
        levels: &mut [f32],
        to: Target<'_>,
    ) -> Scaled {
        let (simd, panel, part) = (self.simd, self.panel, self.part);
        let mut scales = [0; BLOCKS];
        self.words.resize(MOST_WORDS * BLOCKS, 0);
        let words = &mut self.words[..rate.words() * BLOCKS];
        // Very small and very large blocks are coded in other units, so that no square leaves the range of f32.
        let is_easy = |magnitude: f32| magnitude == 0.0 || EASY.contains(&magnitude);
        let products = if sums.magnitude.iter().all(|&magnitude| is_easy(magnitude)) {
            quantise(simd, Column { rate, scaling, part, y, sums, words, scales: &mut scales, levels })
        } else {
            let unit = sums.magnitude.map(|magnitude| if is_easy(magnitude) { 1.0 } else { unit_of(magnitude) });
            let scaled = self.scaled.at_least(PANEL);
            for (line, to) in y.chunks_exact(BLOCKS).zip(scaled.chunks_exact_mut(BLOCKS)) {
                for block in 0..BLOCKS {
                    to[block] = line[block] / unit[block];
                }
            }
            let sums = block_sums(simd, scaled);
            let column = Column { rate, scaling, part, y: scaled, sums: &sums, words, scales: &mut scales, levels };
            let mut products = quantise(simd, column);
            for block in 0..BLOCKS {
                let scale = scale_from_bits(scales[block]) * unit[block];
                scales[block] = scale_bits(scale);
                products.with_y[block] *= unit[block];
            }
            products
        };
        let n_words = rate.words() * panel.n_blocks;
        let out = &mut to.words[rate.words() * panel.blocks_before..][..n_words];
        for (line, out) in words.chunks_exact(BLOCKS).zip(out.chunks_exact_mut(panel.n_blocks)) {
            out.copy_from_slice(&line[..panel.n_blocks]);
        }
        to.scales[panel.blocks_before..][..panel.n_blocks].copy_from_slice(&scales[..panel.n_blocks]);
        Scaled { scales: scales.map(scale_from_bits), products }
    }
}

/// A power of two that brings a block's magnitudes near 1; 1 for what is not finite.
fn unit_of(magnitude: f32) -> f32 {
    match magnitude.is_finite() {
        // Between the least and the largest power of two whose inverse is a normal f32 too.
        true => f32::from_bits((magnitude.to_bits() & 0x7f80_0000).clamp(1 << 23, 253 << 23)),
        false => 1.0,
    }
}

/// out += weight·(y − scale·c); `levels`, c, are left out where they are y's `SIGNS`.
#[inline(always)]
fn add_weighted_difference<S: Simd, const SIGNS: bool>(
    simd: S,
    weight: f32,
    y: &[f32],
    levels: &[f32],
    scale: &[f32; BLOCKS],
    out: &mut [f32],
) {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let weight = simd.splat_f32s(weight);
    let y = &S::as_simd_f32s(&y[..PANEL]).0[..n];
    let levels = if SIGNS { &[] } else { &S::as_simd_f32s(&levels[..PANEL]).0[..n] };
    let sign = simd.splat_u32s(1 << 31);
    let (out, scale) = (&mut S::as_mut_simd_f32s(&mut out[..PANEL]).0[..n], S::as_simd_f32s(scale).0);
    for v in 0..per_line {
        for line in 0..LINES {
            let at = line * per_line + v;
            let hat = if SIGNS {
                let bit = simd.and_u32s(simd.transmute_u32s_f32s(y[at]), sign);
                simd.transmute_f32s_u32s(simd.or_u32s(bit, simd.transmute_u32s_f32s(scale[v])))
            } else {
                simd.mul_f32s(levels[at], scale[v])
            };
            out[at] = simd.add_f32s(out[at], simd.mul_f32s(weight, simd.sub_f32s(y[at], hat)));
        }
    }
}

/// The sums that [`rotate`] gives, of a panel that is rotated already.
#[inline(always)]
fn block_sums<S: Simd>(simd: S, y: &[f32]) -> BlockSums {
    let per_line = BLOCKS / S::F32_LANES;
    let y = &S::as_simd_f32s(&y[..PANEL]).0[..LINES * per_line];
    let mut sums = BlockSums::default();
    let magnitude = S::as_mut_simd_f32s(&mut sums.magnitude).0;
    let energy = S::as_mut_simd_f32s(&mut sums.energy).0;
    for v in 0..per_line {
        let zero = simd.splat_f32s(0.0);
        let (mut all_magnitude, mut all_energy) = (zero, zero);
        for p in 0..16 {
            let (mut part_magnitude, mut part_energy) = (zero, zero);
            for q in 0..16 {
                let value = y[(16 * p + q) * per_line + v];
                part_magnitude = simd.add_f32s(part_magnitude, simd.abs_f32s(value));
                part_energy = simd.add_f32s(part_energy, simd.mul_f32s(value, value));
            }
            all_magnitude = simd.add_f32s(all_magnitude, part_magnitude);
            all_energy = simd.add_f32s(all_energy, part_energy);
        }
        magnitude[v] = all_magnitude;
        energy[v] = all_energy;
    }
    sums
}

/// Inner products of a panel's shared column ê with a task over each block: ⟨y, ê⟩, ⟨c, ê⟩ and ⟨ê, ê⟩.
#[derive(Default)]
struct Along {
    y: [f32; BLOCKS],
    levels: [f32; BLOCKS],
    itself: [f32; BLOCKS],
}

/// Forms them; `levels` are left out where they are y's `SIGNS`.
#[inline(always)]
fn along<S: Simd, const SIGNS: bool>(simd: S, y: &[f32], levels: &[f32], shared: &[f32]) -> Along {
    let per_line = BLOCKS / S::F32_LANES;
    let n = LINES * per_line;
    let y = &S::as_simd_f32s(&y[..PANEL]).0[..n];
    let levels = &S::as_simd_f32s(&levels[..PANEL]).0[..n];
    let shared = &S::as_simd_f32s(&shared[..PANEL]).0[..n];
    let mut found = Along::default();
    let with_y = S::as_mut_simd_f32s(&mut found.y).0;
    let with_levels = S::as_mut_simd_f32s(&mut found.levels).0;
    let itself = S::as_mut_simd_f32s(&mut found.itself).0;
    let (zero, sign) = (simd.splat_f32s(0.0), simd.splat_u32s(1 << 31));
    for v in 0..per_line {
        for p in 0..16 {
            let mut part = [zero; 3];
            for q in 0..16 {
                let at = (16 * p + q) * per_line + v;
                let hat = shared[at];
                part[0] = simd.add_f32s(part[0], simd.mul_f32s(y[at], hat));
                let signed = if SIGNS {
                    let bit = simd.and_u32s(simd.transmute_u32s_f32s(y[at]), sign);
                    simd.transmute_f32s_u32s(simd.xor_u32s(simd.transmute_u32s_f32s(hat), bit))
                } else {
                    simd.mul_f32s(levels[at], hat)
                };
                part[1] = simd.add_f32s(part[1], signed);
                part[2] = simd.add_f32s(part[2], simd.mul_f32s(hat, hat));
            }
            with_y[v] = simd.add_f32s(with_y[v], part[0]);
            with_levels[v] = simd.add_f32s(with_levels[v], part[1]);
            itself[v] = simd.add_f32s(itself[v], part[2]);
        }
    }
    found
}

impl Scaled {
    /// ‖y − s·c‖² = ‖y‖² − 2s⟨y, c⟩ + s²⟨c, c⟩ of all blocks, with the squared lengths of y. The sums of each block were formed in
    /// f32, which may leave a code that loses nothing a little below zero.
    fn lost(&self, energy: &[f32; BLOCKS]) -> f64 {
        let lost = |block: usize| {
            let scale = f64::from(self.scales[block]);
            let [energy, with_y, squares] =
                [energy[block], self.products.with_y[block], self.products.squares[block]].map(f64::from);
            (energy - 2.0 * scale * with_y + scale * scale * squares).max(0.0)
        };
        (0..BLOCKS).map(lost).sum()
    }
}

impl Measured {
    /// Adds a panel's blocks with ŷ = s·c + w·ê: ⟨y, ŷ⟩ = s⟨y, c⟩ + w⟨y, ê⟩, ‖ŷ‖² = s²⟨c, c⟩ + 2sw⟨c, ê⟩ + w²⟨ê, ê⟩. The sums of
    /// each block were formed in f32.
    fn add(&mut self, scaled: &Scaled, weight: f32, along: &Along) {
        let weight = f64::from(weight);
        for block in 0..BLOCKS {
            let scale = f64::from(scaled.scales[block]);
            let (with_y, squares) =
                (f64::from(scaled.products.with_y[block]), f64::from(scaled.products.squares[block]));
            let [y, levels, itself] = [along.y, along.levels, along.itself].map(|sums| f64::from(sums[block]));
            self.product += scale * with_y + weight * y;
            self.decoded += scale * (scale * squares + 2.0 * weight * levels) + weight * weight * itself;
        }
    }
}
