//! What a merge must know of a tensor before it can form an element: how many values lie where, and a few sums.
//!
//! Counts are taken between two magnitudes (a [`Bracket`]): values above it are counted, those in it are listed, or counted in
//! bins where there are too many. Most values lie outside, and cost two comparisons and a store. (A test of eight values at a time, and
//! a loop over those of which some are inside, took three times as long: nobody can foresee which.)

use super::block::{DecodedMut, row_ranges};
use super::combine::block_rows;
use super::engine::CpuEngine;
use super::merge::{MAGNITUDE, first_row, keep, variance};
use super::scratch::Scratch;
use crate::check::check;
use crate::chunk::{Chunk, Columns};
use crate::error::KernelError;
use crate::merge::{Consensus, Keep, Merge, MergeTask};
use pulp::{Simd, WithSimd};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// The magnitude of one task's value.
    Magnitude {
        /// The task.
        task: usize,
    },
    /// The variance over the tasks.
    Variance,
}

/// Magnitudes from `low` to `high`, without it, as bits of positive f32 values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// What is compared.
    pub score: Score,
    /// The first that is inside.
    pub low: u32,
    /// The first above.
    pub high: u32,
    /// Count those inside in bins of 2^shift magnitudes; `None` lists them.
    pub shift: Option<u32>,
    /// Most that are listed; where there are more, only their number is known.
    pub most_listed: usize,
}

/// What was found of a [`Bracket`], added up over chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Values above it.
    pub n_above: u64,
    /// Values in it.
    pub n_inside: u64,
    /// Magnitudes of those in it, unless they are counted in bins or were too many.
    pub listed: Vec<u32>,
    /// What is in each bin.
    pub bins: Vec<Bin>,
}

/// Values of a few magnitudes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// How many.
    pub n: u64,
    /// The magnitude of one of them.
    pub bits: u32,
    /// Whether not all of them have it.
    pub is_mixed: bool,
}

impl Bin {
    #[inline(always)]
    fn add(&mut self, other: Bin) {
        // Of the bin that is empty nothing counts.
        self.is_mixed |= other.is_mixed || (self.n > 0 && other.n > 0 && self.bits != other.bits);
        self.bits = if other.n > 0 { other.bits } else { self.bits };
        self.n += other.n;
    }
}

impl Found {
    /// Adds what was found elsewhere; of more than `most` no list is kept.
    pub fn add(&mut self, other: Found, most: usize) {
        self.n_above += other.n_above;
        self.n_inside += other.n_inside;
        if self.n_inside > most as u64 {
            self.listed = Vec::new();
        } else {
            self.listed.extend_from_slice(&other.listed);
        }
        if self.bins.len() < other.bins.len() {
            self.bins.resize(other.bins.len(), Bin::default());
        }
        self.bins.iter_mut().zip(other.bins).for_each(|(own, other)| own.add(other));
    }
}

/// Sums over the rows of a chunk, one of each for every task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeSums {
    /// Σ |τ|.
    pub l1: Vec<f64>,
    /// Σ |v| of the values that stay, times their factors.
    pub kept_l1: Vec<f64>,
    /// Σ v² of those, where the rule weighs tasks by it ([`Consensus::Erased`]); else zero.
    pub kept_squares: Vec<f64>,
    /// Σ |m| where the task's value has the sign that is elected, m the largest of those that have it.
    pub elected_l1: Vec<f64>,
    /// Of base and tasks: lower triangle of the inner products of \[θ0, τ1 … τT\], row by row.
    pub products: Vec<f64>,
}

impl MergeSums {
    /// Adds the sums of other rows.
    pub fn add(&mut self, other: &MergeSums) {
        let add = |own: &mut Vec<f64>, other: &[f64]| {
            if own.len() < other.len() {
                own.resize(other.len(), 0.0);
            }
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        };
        add(&mut self.l1, &other.l1);
        add(&mut self.kept_l1, &other.kept_l1);
        add(&mut self.kept_squares, &other.kept_squares);
        add(&mut self.elected_l1, &other.elected_l1);
        add(&mut self.products, &other.products);
    }
}

impl CpuEngine {
    /// Counts the values of a chunk that lie in and above each bracket, on the calling thread. `found` \[n_brackets\] is added to.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes, or a bracket is about a task that is not there.
    pub fn count(
        &self,
        chunk: Chunk<'_>,
        brackets: &[Bracket],
        scratch: &mut Scratch,
        found: &mut [Found],
    ) -> Result<(), KernelError> {
        check(&every_value(chunk.layout.n_tasks()), chunk)?;
        let n_tasks = chunk.layout.n_tasks();
        let is_there = |score: Score| !matches!(score, Score::Magnitude { task } if task >= n_tasks);
        if brackets.len() != found.len() || !brackets.iter().all(|bracket| is_there(bracket.score)) {
            return Err(KernelError::WeightCount { expected: brackets.len(), found: found.len() });
        }
        for (bracket, found) in brackets.iter().zip(&mut *found) {
            if let Some(shift) = bracket.shift {
                let n_bins = (bracket.high.saturating_sub(bracket.low) as usize).div_ceil(1 << shift.min(31));
                if found.bins.len() < n_bins {
                    found.bins.resize(n_bins, Bin::default());
                }
            }
        }
        self.arch().dispatch(Count { chunk, brackets, scratch, found });
        Ok(())
    }

    /// Sums over the rows of a chunk: of all values and of those that stay, or, where asked, the inner products of base and tasks
    /// alone. On the calling thread; f64.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work.
    pub fn merge_sums(
        &self,
        merge: &Merge,
        with_products: bool,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
    ) -> Result<MergeSums, KernelError> {
        check(merge, chunk)?;
        Ok(self.arch().dispatch(Sums { merge, with_products, chunk, scratch }))
    }
}

/// A merge that keeps every value.
fn every_value(n_tasks: usize) -> Merge {
    let task = MergeTask { factor: 1.0, weight: 1.0, keep: Keep::All };
    Merge { tasks: vec![task; n_tasks], variance: None, consensus: Consensus::Sum, base: 1.0, lambda: 1.0, dtype: None }
}

struct Count<'a> {
    chunk: Chunk<'a>,
    brackets: &'a [Bracket],
    scratch: &'a mut Scratch,
    found: &'a mut [Found],
}

impl WithSimd for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { chunk, brackets, scratch, found } = self;
        for (at, segment) in chunk.layout.segments.iter().enumerate() {
            for range in row_ranges(at, segment.n_rows, block_rows(chunk.layout.n_tasks())) {
                let n_rows = range.n_rows;
                let DecodedMut { columns, stride, .. } = scratch.block.decode_mut(chunk, range, Columns::Checkpoints);
                for (bracket, found) in brackets.iter().zip(&mut *found) {
                    let rows = match bracket.score {
                        Score::Magnitude { task } => &columns[task * stride..][..n_rows],
                        Score::Variance => {
                            let rows = scratch.rows.at_least(n_rows);
                            variance(columns, stride, n_rows, rows);
                            &*rows
                        }
                    };
                    count_rows(rows, bracket, found);
                }
            }
        }
    }
}

/// Rows that are gone through at a time: at least as many as a block has.
const RUN: usize = 512;

#[inline(always)]
fn count_rows(rows: &[f32], bracket: &Bracket, found: &mut Found) {
    let (low, high) = (bracket.low, bracket.high);
    let width = high.saturating_sub(low);
    let mut inside = [0u32; RUN];
    for rows in rows.chunks(RUN) {
        let mut n_above = 0u32;
        for row in rows {
            n_above += u32::from(row.to_bits() & MAGNITUDE >= high);
        }
        found.n_above += u64::from(n_above);
        // Each is written, and overwritten where it is outside: no branch that nobody can foresee.
        let mut n = 0;
        for row in rows {
            let above_low = (row.to_bits() & MAGNITUDE).wrapping_sub(low);
            inside[n % RUN] = above_low;
            n += usize::from(above_low < width);
        }
        found.n_inside += n as u64;
        let inside = &inside[..n];
        match bracket.shift {
            Some(shift) => {
                for above_low in inside {
                    found.bins[(above_low >> shift) as usize].add(Bin { n: 1, bits: above_low + low, is_mixed: false });
                }
            }
            None if found.n_inside <= bracket.most_listed as u64 => {
                found.listed.extend(inside.iter().map(|above_low| above_low + low));
            }
            None => {}
        }
    }
}

struct Sums<'a> {
    merge: &'a Merge,
    with_products: bool,
    chunk: Chunk<'a>,
    scratch: &'a mut Scratch,
}

/// Sums that are formed together, so that they become vectors.
const LANES: usize = 8;

/// Σ f(x) in f64, in the same order on every machine.
#[inline(always)]
fn sum(rows: &[f32], of: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (groups, rest) = rows.as_chunks::<LANES>();
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, row)| *lane += of(*row));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, row)| *lane += of(*row));
    lanes.iter().sum()
}

#[inline(always)]
fn product(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a, rest_of_a) = a.as_chunks::<LANES>();
    let (b, rest_of_b) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(*a) * f64::from(*b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(rest_of_a).zip(rest_of_b) {
        *lane += f64::from(*a) * f64::from(*b);
    }
    lanes.iter().sum()
}

impl WithSimd for Sums<'_> {
    type Output = MergeSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> MergeSums {
        let Self { merge, with_products, chunk, scratch } = self;
        let n_tasks = chunk.layout.n_tasks();
        let mut sums = MergeSums {
            l1: vec![0.0; n_tasks],
            kept_l1: vec![0.0; n_tasks],
            kept_squares: vec![0.0; n_tasks],
            elected_l1: vec![0.0; n_tasks],
            products: vec![0.0; if with_products { (n_tasks + 1) * (n_tasks + 2) / 2 } else { 0 }],
        };
        let squares = matches!(merge.consensus, Consensus::Erased { .. });
        let elects = matches!(merge.consensus, Consensus::Largest | Consensus::LargestFor { .. });
        for (at, segment) in chunk.layout.segments.iter().enumerate() {
            for range in row_ranges(at, segment.n_rows, block_rows(n_tasks)) {
                let n_rows = range.n_rows;
                let mut block = scratch.block.decode_mut(chunk, range, Columns::Checkpoints);
                let stride = block.stride;
                if with_products {
                    let column = |at: usize| match at.checked_sub(1) {
                        None => &block.base[..n_rows],
                        Some(task) => &block.columns[task * stride..][..n_rows],
                    };
                    let mut place = 0;
                    for row in 0..=n_tasks {
                        for other in 0..=row {
                            sums.products[place] += product(column(row), column(other));
                            place += 1;
                        }
                    }
                    // Nobody asks for both.
                    continue;
                }
                for (sum_of, column) in sums.l1.iter_mut().zip(block.columns.chunks_exact(stride)) {
                    *sum_of += sum(&column[..n_rows], |value| f64::from(value.abs()));
                }
                keep(merge, &mut block, first_row(chunk, range), n_rows, &mut scratch.rows);
                for (task, column) in block.columns.chunks_exact(stride).enumerate() {
                    sums.kept_l1[task] += sum(&column[..n_rows], |value| f64::from(value.abs()));
                    if squares {
                        sums.kept_squares[task] += sum(&column[..n_rows], |value| f64::from(value) * f64::from(value));
                    }
                }
                if elects {
                    let largest = scratch.merged.at_least(3 * n_rows);
                    for task in 0..n_tasks {
                        let own = Merge { consensus: Consensus::LargestFor { task: task as u32 }, ..every_value(0) };
                        super::merge::reduce(&own, &block, n_rows, largest);
                        sums.elected_l1[task] += sum(&largest[..n_rows], |value| f64::from(value.abs()));
                    }
                }
            }
        }
        sums
    }
}
