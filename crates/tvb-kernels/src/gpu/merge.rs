//! merge on the GPU: one workgroup for each run of rows (merge.wgsl).
//!
//! In the shader's output every segment starts on a word, so that no two threads share one; the host closes the gaps.

use super::combine::Rows;
use super::plan::{Plan, Readback, Step};
use super::shader::Kernel;
use super::tables::{Tables, dtype_code, slices};
use super::variant::{Format, Shape};
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::limits::{BLOCK_ROWS, MOST_GROUPS};
use crate::merge::{Consensus, Edge, Keep, Merge, MergeTask};
use crate::params::{MergeParams, Run};
use crate::work::OnGpu;

/// The shader's numbers of rules.
const SUM: u32 = 0;
const ELECTED: u32 = 1;
const DIVIDED: u32 = 2;
const ERASED: u32 = 3;
const NEEDED: u32 = 4;
const NEEDED_BY: u32 = 5;
const LARGEST: u32 = 6;
const LARGEST_FOR: u32 = 7;

/// The shader's numbers of what is kept.
const KEEP_ALL: u32 = 0;
const KEEP_BAND: u32 = 1;
const KEEP_BELOW: u32 = 2;
const KEEP_RANDOM: u32 = 3;

/// An edge as three words. Places beyond 32 bits are those of no chunk that comes here.
fn edge(edge: &Edge) -> [u32; 3] {
    let place = |place: u64| u32::try_from(place).unwrap_or(u32::MAX);
    [edge.bits, place(edge.ties.start), place(edge.ties.end)]
}

/// A task as the shader reads it.
fn task(task: &MergeTask) -> [u32; 9] {
    let (kind, [a, b, c], [d, e, f]) = match &task.keep {
        Keep::All => (KEEP_ALL, [0; 3], [0; 3]),
        Keep::Band { low, high: None } => (KEEP_BAND, edge(low), [0; 3]),
        Keep::Band { low, high: Some(high) } => (KEEP_BELOW, edge(low), edge(high)),
        Keep::Random { key, chance } => (KEEP_RANDOM, [*key, *chance, 0], [0; 3]),
    };
    [task.factor.to_bits(), task.weight.to_bits(), kind, a, b, c, d, e, f]
}

/// A rule, its number, and its bound.
fn rule(consensus: Consensus) -> (u32, u32, f32) {
    match consensus {
        Consensus::Sum => (SUM, 0, 0.0),
        Consensus::Elected { divides: false } => (ELECTED, 0, 0.0),
        Consensus::Elected { divides: true } => (DIVIDED, 0, 0.0),
        Consensus::Erased { floor } => (ERASED, 0, floor),
        Consensus::Needed { k, lambda } => (NEEDED, k, lambda),
        Consensus::NeededBy { task, lambda } => (NEEDED_BY, task, lambda),
        Consensus::Largest => (LARGEST, 0, 0.0),
        Consensus::LargestFor { task } => (LARGEST_FOR, task, 0.0),
    }
}

impl OnGpu for Merge {
    type Parts = Rows;

    fn plan(&self, layout: &ChunkLayout, _: Shape, stamp: u32) -> Result<Plan<Rows>, KernelError> {
        let too_large = KernelError::TooLarge { what: "output rows" };
        let mut n_words = 0usize;
        let mut runs = Vec::new();
        let mut parts = Vec::new();
        for (at, segment) in layout.segments.iter().enumerate() {
            let dtype = self.row_dtype(layout, at);
            let code = dtype_code(dtype)?;
            let first = u32::try_from(segment.place.first_row).map_err(|_| KernelError::NotOnGpu)?;
            for start in (0..segment.n_rows).step_by(BLOCK_ROWS) {
                runs.push(Run {
                    segment: at as u32,
                    start: start as u32,
                    n_rows: BLOCK_ROWS.min(segment.n_rows - start) as u32,
                    place: (n_words + start * dtype.size() / 4) as u32,
                    dtype: code,
                    key: first.checked_add(start as u32).ok_or(KernelError::NotOnGpu)?,
                    ..Run::default()
                });
            }
            let n_bytes = segment.n_rows * dtype.size();
            parts.push(n_words * 4..n_words * 4 + n_bytes);
            n_words = n_words.checked_add(n_bytes.div_ceil(4)).ok_or(too_large.clone())?;
        }
        let marks = n_words;
        let out_words = marks.checked_add(runs.len()).filter(|words| u32::try_from(*words).is_ok());
        let out_words = out_words.ok_or(too_large)?;
        let (rule, number, bound) = rule(self.consensus);
        let [variance, variance_from, variance_to] = self.variance.as_ref().map_or([0; 3], edge);
        let kernel = Kernel::Merge(Format::of(&layout.slices));
        let mut tables = Tables::default();
        let mut steps = Vec::new();
        for first_run in (0..runs.len()).step_by(MOST_GROUPS) {
            let params = tables.push_params(MergeParams {
                n_tasks: layout.n_tasks() as u32,
                first_run: first_run as u32,
                marks: marks as u32,
                stamp,
                rule,
                number,
                bound: bound.to_bits(),
                base: self.base.to_bits(),
                lambda: self.lambda.to_bits(),
                has_variance: u32::from(self.variance.is_some()),
                variance,
                variance_from,
                variance_to,
            });
            let n_runs = MOST_GROUPS.min(runs.len() - first_run) as u32;
            steps.push(Step::Dispatch { kernel, params, groups: [1, n_runs, 1] });
        }
        if !steps.is_empty() {
            steps.push(Step::Copy { from: 0, to: 0, n_words: out_words });
        }
        let n_runs = runs.len();
        let slices = tables.push(&slices(layout)?);
        let runs = tables.push(&runs);
        let is_there = n_runs > 0;
        Ok(Plan {
            tables: tables.finish(),
            slices,
            runs,
            folds: None,
            out_words: if is_there { out_words } else { 0 },
            readback_words: if is_there { out_words } else { 0 },
            marks: is_there.then_some(marks..out_words).into_iter().collect(),
            steps,
            stamp,
            parts: Rows::new(parts),
        })
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        // Words on their way as floats: they are only copied.
        Ok(self.tasks.iter().flat_map(task).map(f32::from_bits).collect())
    }

    fn collect(rows: &Rows, readback: Readback<'_>, out: &mut Vec<u8>) -> Result<(), KernelError> {
        rows.collect(readback, out)
    }
}
