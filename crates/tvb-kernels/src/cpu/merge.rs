//! merge: out(x) = base·θ0(x) + λ·m(x), m(x) formed from the values of all tasks at x that stay.
//!
//! Numerics: f32, tasks in order, rounded once to the output format. Where a segment's base or output is f64, only what is
//! added is f32: the base keeps its precision.
//!
//! A block's columns are overwritten with what stays of them, times their factors; then each rule goes over the tasks, a
//! whole block of rows at a time, so that every loop is over rows and becomes vectors.

use super::block::{DecodedMut, RowRange, row_ranges};
use super::combine::block_rows;
use super::output::size_rows;
use super::rows::{narrow, narrow_f64, widen_f64};
use super::scratch::Scratch;
use crate::check::bytes_per_output;
use crate::chunk::{Chunk, Columns, Dtype};
use crate::error::KernelError;
use crate::merge::{Consensus, Edge, Keep, Merge, MergeTask, random_word};
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

/// All bits of an f32 but the sign.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

impl OnCpu for Merge {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let n_bytes = bytes_per_output(chunk.layout, |segment| self.row_dtype(chunk.layout, segment))?;
        size_rows(rows, 1, n_bytes)?;
        arch.dispatch(MergeChunk { merge: self, chunk, scratch, rows });
        Ok(())
    }
}

struct MergeChunk<'a> {
    merge: &'a Merge,
    chunk: Chunk<'a>,
    scratch: &'a mut Scratch,
    rows: &'a mut [u8],
}

impl WithSimd for MergeChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { merge, chunk, scratch, rows } = self;
        let mut segment_start = 0;
        for (at, segment) in chunk.layout.segments.iter().enumerate() {
            let dtype = merge.row_dtype(chunk.layout, at);
            let base_dtype = chunk.layout.slice(at, 0).dtype;
            for range in row_ranges(at, segment.n_rows, block_rows(chunk.layout.n_tasks())) {
                let n_rows = range.n_rows;
                let mut block = scratch.block.decode_mut(chunk, range, Columns::Checkpoints);
                let (merged, faults) = scratch.merged.at_least(4 * n_rows).split_at_mut(3 * n_rows);
                find_faults(&block, faults);
                keep(merge, &mut block, first_row(chunk, range), n_rows, &mut scratch.rows);
                reduce(merge, &block, n_rows, merged);
                merged.iter_mut().zip(&*faults).for_each(|(merged, fault)| *merged += fault);
                let start = segment_start + range.start * dtype.size();
                let out = &mut rows[start..start + n_rows * dtype.size()];
                if dtype == Dtype::F64 || base_dtype == Dtype::F64 {
                    scratch.rows_f64.resize(n_rows, 0.0);
                    let slice = chunk.layout.slice(at, 0);
                    let bytes = &chunk.bytes[slice.offset + range.start * slice.dtype.size()..];
                    widen_f64(&bytes[..n_rows * slice.dtype.size()], slice.dtype, &mut scratch.rows_f64);
                    for (row, merged) in scratch.rows_f64.iter_mut().zip(&merged[..n_rows]) {
                        *row = *row * f64::from(merge.base) + f64::from(*merged) * f64::from(merge.lambda);
                    }
                    narrow_f64(&scratch.rows_f64, dtype, out);
                } else {
                    let base = &block.base[..n_rows];
                    for (merged, base) in merged[..n_rows].iter_mut().zip(base) {
                        *merged = base * merge.base + *merged * merge.lambda;
                    }
                    narrow(&merged[..n_rows], dtype, out);
                }
            }
            segment_start += segment.n_rows * dtype.size();
        }
    }
}

/// Zero for each row where all values are finite, else not a number.
#[inline(always)]
fn find_faults(block: &DecodedMut<'_>, faults: &mut [f32]) {
    faults.fill(0.0);
    for column in block.columns.chunks_exact(block.stride) {
        faults.iter_mut().zip(column).for_each(|(fault, value)| *fault += value * 0.0);
    }
}

/// The place in its tensor of the first row of a block.
#[inline(always)]
pub(super) fn first_row(chunk: Chunk<'_>, range: RowRange) -> u64 {
    chunk.layout.segments[range.segment].place.first_row + range.start as u64
}

/// Overwrites the columns with what stays of them, times their factors.
#[inline(always)]
pub(super) fn keep(
    merge: &Merge,
    block: &mut DecodedMut<'_>,
    first: u64,
    n_rows: usize,
    variances: &mut super::floats::Floats,
) {
    for (task, column) in merge.tasks.iter().zip(block.columns.chunks_exact_mut(block.stride)) {
        keep_of_task(task, &mut column[..n_rows], first);
    }
    if let Some(edge) = &merge.variance {
        let variances = variances.at_least(n_rows);
        variance(block.columns, block.stride, n_rows, variances);
        let equals = equals_stay(edge, first, n_rows);
        for column in block.columns.chunks_exact_mut(block.stride) {
            let rows = column[..n_rows].iter_mut().zip(&*variances);
            match equals {
                Some(stay) => {
                    let least = edge.bits.saturating_add(u32::from(!stay));
                    rows.for_each(|(value, variance)| {
                        *value = if variance.to_bits() >= least { *value } else { 0.0 };
                    });
                }
                None => rows.enumerate().for_each(|(at, (value, variance))| {
                    *value = if is_above(edge, variance.to_bits(), first + at as u64) { *value } else { 0.0 };
                }),
            }
        }
    }
}

#[inline(always)]
fn keep_of_task(task: &MergeTask, rows: &mut [f32], first: u64) {
    let factor = task.factor;
    match &task.keep {
        Keep::All => rows.iter_mut().for_each(|row| *row *= factor),
        Keep::Band { low, high } => keep_band(low, high.as_ref(), factor, rows, first),
        Keep::Random { key, chance } => {
            if first + (rows.len() as u64) <= u64::from(u32::MAX) {
                // The same words, counted in 32 bits, so that the loop becomes vectors.
                let first = first as u32;
                for (at, row) in rows.iter_mut().enumerate() {
                    let word = random_word(*key, u64::from(first + at as u32));
                    *row = if word < *chance { *row * factor } else { 0.0 };
                }
            } else {
                for (at, row) in rows.iter_mut().enumerate() {
                    let word = random_word(*key, first + at as u64);
                    *row = if word < *chance { *row * factor } else { 0.0 };
                }
            }
        }
    }
}

#[inline(always)]
fn keep_band(low: &Edge, high: Option<&Edge>, factor: f32, rows: &mut [f32], first: u64) {
    let at_low = equals_stay(low, first, rows.len());
    let at_high = high.map_or(Some(true), |high| equals_stay(high, first, rows.len()));
    if let (Some(at_low), Some(at_high)) = (at_low, at_high) {
        // From least to most, without it.
        let least = low.bits.saturating_add(u32::from(!at_low));
        let most = high.map_or(u32::MAX, |high| high.bits.saturating_add(u32::from(at_high)));
        for row in rows {
            let bits = row.to_bits() & MAGNITUDE;
            *row = if bits >= least && bits < most { *row * factor } else { 0.0 };
        }
        return;
    }
    for (at, row) in rows.iter_mut().enumerate() {
        let (bits, x) = (row.to_bits() & MAGNITUDE, first + at as u64);
        let stays = is_above(low, bits, x) && high.is_none_or(|high| is_below(high, bits, x));
        *row = if stays { *row * factor } else { 0.0 };
    }
}

/// Whether values that equal an edge stay, where that is the same for all rows from `first` on.
#[inline(always)]
fn equals_stay(edge: &Edge, first: u64, n_rows: usize) -> Option<bool> {
    let end = first + n_rows as u64;
    if edge.ties.start <= first && end <= edge.ties.end {
        Some(true)
    } else if edge.ties.end <= first || end <= edge.ties.start {
        Some(false)
    } else {
        None
    }
}

#[inline(always)]
fn is_above(edge: &Edge, bits: u32, x: u64) -> bool {
    bits > edge.bits || bits == edge.bits && edge.ties.contains(&x)
}

#[inline(always)]
fn is_below(edge: &Edge, bits: u32, x: u64) -> bool {
    bits < edge.bits || bits == edge.bits && edge.ties.contains(&x)
}

/// The variance over the tasks of each row: Σ (v − mean)² / T, never negative.
#[inline(always)]
pub(super) fn variance(columns: &[f32], stride: usize, n_rows: usize, out: &mut [f32]) {
    // A run of rows at a time, so that its means stay in the nearest cache for the second pass.
    let n_tasks = (columns.len() / stride) as f32;
    const RUN: usize = 64;
    let mut means = [0.0f32; RUN];
    for start in (0..n_rows).step_by(RUN) {
        let n = RUN.min(n_rows - start);
        means.fill(0.0);
        for column in columns.chunks_exact(stride) {
            means.iter_mut().zip(&column[start..start + n]).for_each(|(mean, value)| *mean += value);
        }
        means.iter_mut().for_each(|mean| *mean /= n_tasks);
        let out = &mut out[start..start + n];
        out.fill(0.0);
        for column in columns.chunks_exact(stride) {
            for ((out, value), mean) in out.iter_mut().zip(&column[start..start + n]).zip(&means) {
                *out += (value - mean) * (value - mean);
            }
        }
        out.iter_mut().for_each(|out| *out /= n_tasks);
    }
}

/// Makes one value of each row's: the first `n_rows` of `merged`, whose other two thirds are room.
#[inline(always)]
pub(super) fn reduce(merge: &Merge, block: &DecodedMut<'_>, n_rows: usize, merged: &mut [f32]) {
    let (out, rest) = merged.split_at_mut(n_rows);
    let (sums, counts) = rest.split_at_mut(n_rows);
    let columns = || block.columns.chunks_exact(block.stride).map(|column| &column[..n_rows]);
    out.fill(0.0);
    if merge.consensus == Consensus::Sum {
        add_up(columns(), out);
        return;
    }
    sums.fill(0.0);
    counts.fill(0.0);
    add_up(columns(), sums);
    match merge.consensus {
        Consensus::Sum => {}
        Consensus::Elected { divides } => {
            for (task, column) in merge.tasks.iter().zip(columns()) {
                for (((out, count), sum), value) in out.iter_mut().zip(&mut *counts).zip(&*sums).zip(column) {
                    let agrees = has_sign_of(*value, *sum);
                    *out += if agrees { *value } else { 0.0 };
                    *count += if agrees { task.weight } else { 0.0 };
                }
            }
            if divides {
                for (out, count) in out.iter_mut().zip(&*counts) {
                    *out /= if *count == 0.0 { 1.0 } else { *count };
                }
            }
        }
        Consensus::Erased { floor } => {
            for (task, column) in merge.tasks.iter().zip(columns()) {
                for (((out, count), sum), value) in out.iter_mut().zip(&mut *counts).zip(&*sums).zip(column) {
                    let weight = if has_sign_of(*value, *sum) { task.weight } else { 0.0 };
                    *out += *value * weight;
                    *count += weight;
                }
            }
            for (out, count) in out.iter_mut().zip(&*counts) {
                // Where nothing took part the sum is nothing too.
                *out = if *count == 0.0 { 0.0 } else { *out / count.max(floor) };
            }
        }
        Consensus::Needed { k, lambda } => {
            for column in columns() {
                for ((count, sum), value) in counts.iter_mut().zip(&*sums).zip(column) {
                    *count += if needs(*value, *sum, lambda) { 1.0 } else { 0.0 };
                }
            }
            let least = k as f32;
            for ((out, count), sum) in out.iter_mut().zip(&*counts).zip(&*sums) {
                *out = if *count >= least { *sum } else { 0.0 };
            }
        }
        Consensus::NeededBy { task, lambda } => {
            for column in columns().skip(task as usize).take(1) {
                for ((out, sum), value) in out.iter_mut().zip(&*sums).zip(column) {
                    *out = if needs(*value, *sum, lambda) { *sum } else { 0.0 };
                }
            }
        }
        Consensus::Largest => largest(columns(), sums, out),
        Consensus::LargestFor { task } => {
            largest(columns(), sums, out);
            for column in columns().skip(task as usize).take(1) {
                for ((out, sum), value) in out.iter_mut().zip(&*sums).zip(column) {
                    *out = if has_sign_of(*value, *sum) { *out } else { 0.0 };
                }
            }
        }
    }
}

#[inline(always)]
fn add_up<'a>(columns: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) {
    for column in columns {
        out.iter_mut().zip(column).for_each(|(out, value)| *out += value);
    }
}

/// Whether a value has the sign that a sum elects; zero has none, and a sum of zero is positive.
#[inline(always)]
fn has_sign_of(value: f32, sum: f32) -> bool {
    if sum >= 0.0 { value > 0.0 } else { value < 0.0 }
}

/// Whether a task needs an element of the sum: its own value outweighs what the others add.
#[inline(always)]
fn needs(value: f32, sum: f32, lambda: f32) -> bool {
    value.abs() > lambda * (sum - value).abs()
}

/// The largest of the values that have the sign of their sum.
#[inline(always)]
fn largest<'a>(columns: impl Iterator<Item = &'a [f32]>, sums: &[f32], out: &mut [f32]) {
    for column in columns {
        for ((out, sum), value) in out.iter_mut().zip(sums).zip(column) {
            *out = if has_sign_of(*value, *sum) && value.abs() > out.abs() { *value } else { *out };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkLayout, Segment, Slice};
    use crate::cpu::CpuEngine;
    use crate::signs::Place;

    /// Runs a merge over rows of a base and of tasks, in f32.
    fn run(merge: &Merge, base: &[f32], tasks: &[Vec<f32>], first_row: u64) -> Vec<f32> {
        let n = base.len();
        let bytes: Vec<u8> = std::iter::once(base)
            .chain(tasks.iter().map(Vec::as_slice))
            .flatten()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let layout = ChunkLayout {
            n_columns: tasks.len() + 1,
            segments: vec![Segment { n_rows: n, place: Place { tensor: 0, first_row } }],
            slices: (0..=tasks.len()).map(|column| Slice::new(column * 4 * n, Dtype::F32)).collect(),
            codes: Vec::new(),
            factors: Vec::new(),
            n_bytes: bytes.len(),
        };
        let mut results = Vec::new();
        for engine in CpuEngine::each() {
            let mut out = Vec::new();
            let chunk = Chunk { layout: &layout, bytes: &bytes };
            engine.run(merge, chunk, &mut engine.scratch(), &mut out).unwrap();
            results.push(out.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect::<Vec<_>>());
        }
        // Every instruction set gives the same bits.
        assert!(results.windows(2).all(|pair| pair[0].iter().zip(&pair[1]).all(|(a, b)| a.to_bits() == b.to_bits())));
        results.remove(0)
    }

    fn task(keep: Keep) -> MergeTask {
        MergeTask { factor: 1.0, weight: 1.0, keep }
    }

    fn merge(tasks: Vec<MergeTask>, consensus: Consensus) -> Merge {
        Merge { tasks, variance: None, consensus, base: 1.0, lambda: 1.0, dtype: None }
    }

    /// τ as whole fine-tunes over a base of nothing.
    const A: [f32; 5] = [1.0, -2.0, 3.0, -4.0, 0.0];
    const B: [f32; 5] = [0.5, 2.5, 1.0, -1.0, 0.0];

    #[test]
    fn signs_are_elected_and_the_agreeing_are_averaged() {
        let (all, tasks) = (|| vec![task(Keep::All), task(Keep::All)], [A.to_vec(), B.to_vec()]);
        let base = [0.0; 5];
        let mean = run(&merge(all(), Consensus::Elected { divides: true }), &base, &tasks, 0);
        assert_eq!(mean, [0.75, 2.5, 2.0, -2.5, 0.0]);
        let sum = run(&merge(all(), Consensus::Elected { divides: false }), &base, &tasks, 0);
        assert_eq!(sum, [1.5, 2.5, 4.0, -5.0, 0.0]);
        assert_eq!(run(&merge(all(), Consensus::Sum), &base, &tasks, 0), [1.5, 0.5, 4.0, -5.0, 0.0]);
        assert_eq!(run(&merge(all(), Consensus::Largest), &base, &tasks, 0), [1.0, 2.5, 3.0, -4.0, 0.0]);
        assert_eq!(run(&merge(all(), Consensus::LargestFor { task: 0 }), &base, &tasks, 0), [1.0, 0.0, 3.0, -4.0, 0.0]);
        // Both need an element where both outweigh 0.4 of the other.
        let needed = run(&merge(all(), Consensus::Needed { k: 2, lambda: 0.4 }), &base, &tasks, 0);
        assert_eq!(needed, [1.5, 0.5, 0.0, 0.0, 0.0]);
        let own = run(&merge(all(), Consensus::NeededBy { task: 1, lambda: 0.4 }), &base, &tasks, 0);
        assert_eq!(own, [1.5, 0.5, 0.0, 0.0, 0.0]);
        let erased = run(&merge(all(), Consensus::Erased { floor: 1e-6 }), &base, &tasks, 0);
        assert_eq!(erased, [0.75, 2.5, 2.0, -2.5, 0.0]);
    }

    #[test]
    fn bands_keep_what_lies_in_them_and_some_of_their_equals() {
        let values = vec![1.0f32, -1.0, 2.0, -1.0, 0.5, 3.0];
        let band = |low: Edge, high: Option<Edge>| merge(vec![task(Keep::Band { low, high })], Consensus::Sum);
        let one = 1.0f32.to_bits();
        let run = |merge: &Merge, first| run(merge, &[0.0; 6], std::slice::from_ref(&values), first);
        assert_eq!(run(&band(Edge::with_ties(one), None), 0), [1.0, -1.0, 2.0, -1.0, 0.0, 3.0]);
        assert_eq!(run(&band(Edge { bits: one, ties: 0..0 }, None), 0), [0.0, 0.0, 2.0, 0.0, 0.0, 3.0]);
        assert_eq!(run(&band(Edge { bits: one, ties: 7..9 }, None), 7), [1.0, -1.0, 2.0, 0.0, 0.0, 3.0]);
        let high = Edge { bits: 2.0f32.to_bits(), ties: 0..0 };
        assert_eq!(run(&band(Edge { bits: one, ties: 1..9 }, Some(high)), 0), [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_share_of_random_values_stays_the_same_wherever_chunks_begin() {
        let n = 40_000;
        let values = vec![1.0f32; n];
        let chance = (0.3 * 2f64.powi(32)) as u32;
        let work = merge(vec![MergeTask { factor: 2.0, ..task(Keep::Random { key: 77, chance }) }], Consensus::Sum);
        let whole = run(&work, &vec![0.0; n], std::slice::from_ref(&values), 0);
        let kept = whole.iter().filter(|value| **value == 2.0).count() as f64;
        let expected = 0.3 * n as f64;
        assert!((kept - expected).abs() < 5.0 * (expected * 0.7).sqrt(), "{kept} of {n}");
        let part = run(&work, &vec![0.0; 1000], &[values[..1000].to_vec()], 1234);
        assert_eq!(part, whole[1234..2234]);
        // Beyond what 32 bits count.
        let far = run(&work, &[0.0; 64], &[vec![1.0; 64]], u64::from(u32::MAX) - 20);
        let expected = |x: u64| if random_word(77, x) < chance { 2.0 } else { 0.0 };
        assert_eq!(far, (0..64).map(|at| expected(u64::from(u32::MAX) - 20 + at)).collect::<Vec<_>>());
    }

    #[test]
    fn variances_and_weights_of_the_base() {
        let weighed = Merge { base: 2.0, lambda: 0.5, ..merge(vec![task(Keep::All)], Consensus::Sum) };
        assert_eq!(run(&weighed, &[1.0; 3], &[vec![2.0, 3.0, 5.0]], 0), [2.5, 3.0, 4.0]);
        // Variances of A and B: 0.0625, 5.0625, 1, 2.25, 0.
        let edge = Some(Edge { bits: 1.0f32.to_bits(), ties: 0..0 });
        let varied = Merge { variance: edge, ..merge(vec![task(Keep::All), task(Keep::All)], Consensus::Sum) };
        assert_eq!(run(&varied, &[0.0; 5], &[A.to_vec(), B.to_vec()], 0), [0.0, 0.5, 0.0, -5.0, 0.0]);
    }

    /// A rule that would pass over it, or drop it, must not hide it.
    #[test]
    fn what_is_not_finite_is_never_dropped() {
        let none = Keep::Random { key: 1, chance: 0 };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for keep in [Keep::All, none.clone()] {
                let work = merge(vec![task(keep), task(Keep::All)], Consensus::Elected { divides: true });
                let out = run(&work, &[0.0; 3], &[vec![1.0, bad, 1.0], vec![1.0; 3]], 0);
                assert!(out[0].is_finite() && out[1].is_nan() && out[2].is_finite(), "{out:?}");
            }
        }
    }
}
