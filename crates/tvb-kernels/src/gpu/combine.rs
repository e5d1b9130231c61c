//! What project and reconstruct share on the GPU: weighted sums of columns over blocks of rows, two rows a thread.
//!
//! A workgroup has as few rows as it has threads for, since it takes many workgroups to keep a large card busy: of 1,024 rows each, a
//! quarter of a gigabyte of 256 columns made 170, for the 132 processors of an H100.
//!
//! Up to 32 outputs are formed from one read of the columns; more are other workgroups' right behind, which find the columns in a
//! cache. Not built: tiles of columns and weights in workgroup memory. Every thread wants the same weights at the same time, so
//! AMD's compiler fetches them into scalar registers (8 loads for 64 products a thread and column), there is nothing to wait for at
//! a barrier, and software adapters read workgroup memory lane by lane. On a card this is not measured yet.
//!
//! Seen on lavapipe (Mesa 22.3): f32 with few outputs takes 3 to 4 ms more a dispatch, whatever the chunk's size, in the driver and not in the
//! shader. Questions of FORMAT that stand first in `load` did not change that.
//!
//! In the shader's output every segment starts on a word, so that no two threads share one; the host closes the gaps.

use super::plan::{Plan, Readback, Step};
use super::shader::Kernel;
use super::tables::{Tables, dtype_code, slices};
use super::variant::Format;
use crate::chunk::{ChunkLayout, Dtype};
use crate::error::KernelError;
use crate::limits::{BLOCK_ROWS, MOST_GROUPS, OUTPUTS};
use crate::params::{CombineParams, Run};
use std::ops::Range;

/// What the two kernels differ in.
pub(super) struct Combine<'a> {
    /// Row-major [n_columns, n_outputs].
    pub(super) weights: &'a [f32],
    pub(super) n_outputs: usize,
    pub(super) subtract_base: bool,
    pub(super) add_base: bool,
    /// The kernel's variant: format, outputs at a time, whether some weight is 0.
    pub(super) kernel: fn(Format, u32, bool) -> Kernel,
}

/// Where a chunk's output rows lie in what is read back.
#[derive(Debug)]
pub struct Rows {
    n_bytes: usize,
    /// Byte ranges to put one after another.
    parts: Vec<Range<usize>>,
}

impl Rows {
    /// Rows at these bytes, one after another.
    pub(super) fn new(parts: Vec<Range<usize>>) -> Rows {
        Rows { n_bytes: parts.iter().map(Range::len).sum(), parts }
    }

    /// The rows, tightly packed.
    pub(super) fn collect(&self, readback: Readback<'_>, rows: &mut Vec<u8>) -> Result<(), KernelError> {
        rows.clear();
        rows.try_reserve_exact(self.n_bytes).map_err(|_| KernelError::TooLarge { what: "output rows" })?;
        for part in &self.parts {
            rows.extend_from_slice(readback.bytes(part.clone())?);
        }
        Ok(())
    }
}

impl Combine<'_> {
    /// Outputs formed together, and whether some weight is 0.
    fn variant(&self) -> (u32, bool) {
        let outputs = OUTPUTS.into_iter().find(|&outputs| outputs as usize >= self.n_outputs);
        (outputs.unwrap_or(OUTPUTS[OUTPUTS.len() - 1]), self.weights.contains(&0.0))
    }

    /// The weights as the shader reads them: [ceil(n_outputs / together), n_columns, together].
    pub(super) fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        let (n_outputs, together) = (self.n_outputs, self.variant().0 as usize);
        if n_outputs == 0 {
            return Ok(Vec::new());
        }
        let n_columns = self.weights.len() / n_outputs;
        let n_packed = n_outputs.div_ceil(together).checked_mul(n_columns * together);
        let mut packed = vec![0.0; n_packed.ok_or(KernelError::TooLarge { what: "weights" })?];
        for (column, row) in self.weights.chunks_exact(n_outputs).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                packed[(output / together * n_columns + column) * together + output % together] = weight;
            }
        }
        Ok(packed)
    }

    /// Plans one chunk's projection or reconstruction, whose segments' rows get the formats that `row_dtype` gives.
    pub(super) fn plan(
        &self,
        layout: &ChunkLayout,
        row_dtype: impl Fn(usize) -> Dtype,
        stamp: u32,
    ) -> Result<Plan<Rows>, KernelError> {
        let too_large = KernelError::TooLarge { what: "output rows" };
        let n_outputs = self.n_outputs;
        let (together, skip_zeros) = self.variant();
        let kernel = (self.kernel)(Format::of(&layout.slices), together, skip_zeros);
        // Word where each segment's rows begin in an output.
        let mut words_per_output = 0usize;
        let mut runs = Vec::new();
        let mut segments = Vec::new();
        for (at, segment) in layout.segments.iter().enumerate() {
            let dtype = row_dtype(at);
            let code = dtype_code(dtype)?;
            for start in (0..segment.n_rows).step_by(BLOCK_ROWS) {
                runs.push(Run {
                    segment: at as u32,
                    start: start as u32,
                    n_rows: BLOCK_ROWS.min(segment.n_rows - start) as u32,
                    place: (words_per_output + start * dtype.size() / 4) as u32,
                    dtype: code,
                    ..Run::default()
                });
            }
            let n_bytes = segment.n_rows * dtype.size();
            segments.push((words_per_output * 4, n_bytes));
            words_per_output = words_per_output.checked_add(n_bytes.div_ceil(4)).ok_or(too_large.clone())?;
        }
        // Workgroups with the same rows, each with outputs of its own.
        let n_groups = n_outputs.div_ceil(together as usize);
        if n_groups > MOST_GROUPS {
            let most = MOST_GROUPS as u64 * u64::from(together);
            return Err(KernelError::Limit { what: "outputs", found: n_outputs as u64, most });
        }
        let marks = words_per_output.checked_mul(n_outputs).ok_or(too_large.clone())?;
        let out_words = runs.len().checked_mul(n_groups).and_then(|n_marks| marks.checked_add(n_marks));
        let out_words = out_words.filter(|words| u32::try_from(*words).is_ok()).ok_or(too_large)?;

        let mut tables = Tables::default();
        let mut steps = Vec::new();
        for first_run in (0..runs.len()).step_by(MOST_GROUPS) {
            let params = tables.push_params(CombineParams {
                n_columns: layout.n_tasks() as u32,
                n_outputs: n_outputs as u32,
                first_run: first_run as u32,
                words_per_output: words_per_output as u32,
                marks: marks as u32,
                stamp,
                subtract_base: u32::from(self.subtract_base),
                add_base: u32::from(self.add_base),
            });
            let n_runs = MOST_GROUPS.min(runs.len() - first_run) as u32;
            steps.push(Step::Dispatch { kernel, params, groups: [n_groups as u32, n_runs, 1] });
        }
        if !steps.is_empty() {
            steps.push(Step::Copy { from: 0, to: 0, n_words: out_words });
        }
        let mut parts = Vec::with_capacity(n_outputs * segments.len());
        for output in 0..n_outputs {
            let first = output * words_per_output * 4;
            parts.extend(segments.iter().map(|&(at, n_bytes)| first + at..first + at + n_bytes));
        }
        let slices = tables.push(&slices(layout)?);
        let n_runs = runs.len();
        let runs = tables.push(&runs);
        let n_bytes = segments.iter().map(|(_, n_bytes)| n_bytes).sum::<usize>() * n_outputs;
        Ok(Plan {
            tables: tables.finish(),
            slices,
            runs,
            folds: None,
            out_words: if n_runs == 0 { 0 } else { out_words },
            readback_words: if n_runs == 0 { 0 } else { out_words },
            marks: (n_runs > 0).then_some(marks..out_words).into_iter().collect(),
            steps,
            stamp,
            parts: Rows { n_bytes, parts },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Segment, Slice};

    fn plan(n_segments: usize, n_outputs: usize) -> Result<Plan<Rows>, KernelError> {
        let layout = ChunkLayout {
            n_columns: 2,
            segments: vec![Segment::new(1); n_segments],
            slices: vec![Slice::new(0, Dtype::F32); n_segments * 2],
            n_bytes: 4,
            ..ChunkLayout::default()
        };
        let combine = Combine {
            weights: &vec![1.0; n_outputs],
            n_outputs,
            subtract_base: false,
            add_base: true,
            kernel: |format, outputs, skip_zeros| Kernel::Reconstruct { format, outputs, skip_zeros },
        };
        combine.plan(&layout, |_| Dtype::F32, 1)
    }

    /// Every run of every group of outputs is dispatched once, and each workgroup has a mark of its own.
    #[test]
    fn dispatches_take_every_run_and_output_once() {
        let n_segments = 66_000;
        for (n_outputs, together, n_groups) in
            [(1, 4, 1), (16, 16, 1), (17, 32, 1), (32, 32, 1), (33, 32, 2), (70, 32, 3)]
        {
            let plan = plan(n_segments, n_outputs).expect("a sound layout");
            let mut dispatches = Vec::new();
            for step in &plan.steps {
                let Step::Dispatch { kernel, params, groups } = step else { continue };
                assert!(matches!(kernel, Kernel::Reconstruct { outputs, .. } if *outputs == together), "{kernel:?}");
                let bytes = &plan.tables[*params as usize..][..size_of::<CombineParams>()];
                let params: CombineParams = bytemuck::pod_read_unaligned(bytes);
                dispatches.push((params.first_run, *groups));
            }
            let rest = (n_segments - MOST_GROUPS) as u32;
            let first = MOST_GROUPS as u32;
            assert_eq!(dispatches, [(0, [n_groups, first, 1]), (first, [n_groups, rest, 1])]);
            assert_eq!(plan.marks[0].len(), n_segments * n_groups as usize);
        }
    }

    #[test]
    fn more_outputs_than_a_dispatch_has_are_refused() {
        let refused = plan(1, 32 * MOST_GROUPS + 1).map(|plan| plan.steps.len());
        assert!(matches!(refused, Err(KernelError::Limit { what: "outputs", .. })), "{refused:?}");
    }
}
