//! code on the GPU: the tasks' codes and what they decode to; where there are shared columns, their codes from what the tasks' lack,
//! then what both decode to (code.wgsl). A column's bytes are read once, or with shared columns twice and once more for each. Words come back as they are stored, each scale in a word of its own, and an eighth of the sums of each run.

use super::book;
use super::panels::panels;
use super::plan::{Plan, Readback, Step};
use super::shader::Kernel;
use super::tables::{Tables, slices};
use super::variant::{Format, Shape};
use crate::chunk::ChunkLayout;
use crate::code::{Code, Codes, Measured};
use crate::error::KernelError;
use crate::limits::{CODED_TOGETHER, CODED_VALUES, MOST_GROUPS};
use crate::params::{CodeParams, Run};
use crate::work::OnGpu;
use std::ops::Range;

/// Where a chunk's codes lie in what is read back, in words.
#[derive(Debug)]
pub struct CodeParts {
    n_tasks: usize,
    n_segments: usize,
    words: Range<usize>,
    scales: Range<usize>,
    sums: Range<usize>,
    /// The segment of each run, in order.
    segments: Vec<u32>,
}

/// Sums of a run and a task.
const SUMS: usize = 3;

impl OnGpu for Code {
    type Parts = CodeParts;

    fn plan(&self, layout: &ChunkLayout, _: Shape, stamp: u32) -> Result<Plan<CodeParts>, KernelError> {
        let too_large = || KernelError::TooLarge { what: "codes" };
        let (n_tasks, n_kept) = (layout.n_tasks(), self.n_kept);
        let runs: Vec<Run> = panels(layout, self.seed).flat_map(|panel| panel.runs(panel.blocks_before, 0)).collect();
        let words = Code::words_per_column(self.rate, layout);
        let kept_words = Code::words_per_column(self.kept_rate, layout);
        let n_scales = Code::scales_per_column(layout);

        // The output, part after part; each within 32 bits.
        let mut end = 0u32;
        let mut part = |n: usize, each: usize| -> Result<Range<usize>, KernelError> {
            let start = end;
            let n_words = n.checked_mul(each).and_then(|n| u32::try_from(n).ok());
            end = n_words.and_then(|n| start.checked_add(n)).ok_or_else(too_large)?;
            Ok(start as usize..end as usize)
        };
        let task_words = part(n_tasks, words)?;
        let shared_words = part(n_kept, kept_words)?;
        let scales = part(n_tasks + n_kept, n_scales)?;
        let sums = part(runs.len() * SUMS, n_tasks)?;
        let format = Format::of(&layout.slices);
        // Each kernel with its columns, and the tasks that it goes through.
        let mut stages = vec![(Kernel::Code(format), n_tasks, 0..n_tasks)];
        if n_kept > 0 {
            let batches = (0..n_tasks).step_by(CODED_TOGETHER);
            let batches = batches.map(|first| first..n_tasks.min(first + CODED_TOGETHER));
            stages.extend(batches.map(|tasks| (Kernel::CodeKept(format), n_kept, tasks)));
            stages.push((Kernel::Measure(format), n_tasks, 0..n_tasks));
        }
        let marks = part(runs.len(), stages.iter().map(|(_, n_columns, _)| n_columns).sum())?;
        let n_words = marks.end;
        // What is not read back.
        let n_waiting = if n_tasks > CODED_TOGETHER { n_kept * CODED_VALUES } else { 0 };
        let waiting = part(runs.len(), n_waiting)?;

        let mut tables = Tables::default();
        let mut steps = Vec::new();
        let mut marks_at = marks.start;
        for (kernel, n_columns, tasks) in stages {
            for first_run in (0..runs.len()).step_by(MOST_GROUPS) {
                let params = tables.push_params(CodeParams {
                    n_tasks: n_tasks as u32,
                    n_kept: n_kept as u32,
                    first_run: first_run as u32,
                    n_runs: runs.len() as u32,
                    rate: book::rate_number(self.rate),
                    kept_rate: book::rate_number(self.kept_rate),
                    words: words as u32,
                    kept_words: kept_words as u32,
                    n_scales: n_scales as u32,
                    kept_at: shared_words.start as u32,
                    scales_at: scales.start as u32,
                    sums_at: sums.start as u32,
                    marks: marks_at as u32,
                    stamp,
                    kept: book::n_words() as u32,
                    first_task: tasks.start as u32,
                    end_task: tasks.end as u32,
                    lacking_at: waiting.start as u32,
                });
                let n_groups = MOST_GROUPS.min(runs.len() - first_run) as u32;
                steps.push(Step::Dispatch { kernel, params, groups: [n_groups, n_columns as u32, 1] });
            }
            marks_at += runs.len() * n_columns;
        }
        if !steps.is_empty() {
            steps.push(Step::Copy { from: 0, to: 0, n_words });
        }
        let slices = tables.push(&slices(layout)?);
        let segments = runs.iter().map(|run| run.segment).collect();
        let runs = tables.push(&runs);
        Ok(Plan {
            tables: tables.finish(),
            slices,
            runs,
            folds: None,
            steps,
            out_words: waiting.end,
            readback_words: n_words,
            marks: vec![marks],
            stamp,
            parts: CodeParts {
                n_tasks,
                n_segments: layout.segments.len(),
                words: task_words.start..shared_words.end,
                scales,
                sums,
                segments,
            },
        })
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        let mut book = book::rates();
        book.extend(&self.kept);
        Ok(book)
    }

    fn collect(parts: &CodeParts, readback: Readback<'_>, out: &mut Codes) -> Result<(), KernelError> {
        let Codes { words, scales, measured, lost } = out;
        lost.clear();
        words.clear();
        words.extend(readback.words(parts.words.clone())?.iter().map(|word| u32::from_le_bytes(*word)));
        scales.clear();
        let scale_words = readback.words(parts.scales.clone())?;
        scales.extend(scale_words.iter().map(|[low, high, ..]| u16::from_le_bytes([*low, *high])));
        measured.clear();
        measured.resize(parts.n_segments * parts.n_tasks, Measured::default());
        let sums = readback.words(parts.sums.clone())?.as_chunks::<SUMS>().0;
        for (&segment, sums) in parts.segments.iter().zip(sums.chunks_exact(parts.n_tasks.max(1))) {
            let measured = &mut measured[segment as usize * parts.n_tasks..][..parts.n_tasks];
            for (measured, sums) in measured.iter_mut().zip(sums) {
                // The shader gives an eighth.
                let [energy, product, decoded] = sums.map(|sum| 8.0 * f64::from(f32::from_le_bytes(sum)));
                measured.energy += energy;
                measured.product += product;
                measured.decoded += decoded;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Dtype, Segment, Slice};
    use crate::rate::Rate;

    /// Every run of every kernel is dispatched once, and each workgroup has a mark of its own.
    #[test]
    fn dispatches_take_every_run_once() {
        let (n_segments, n_tasks) = (66_000, 40);
        let layout = ChunkLayout {
            n_columns: n_tasks + 1,
            segments: vec![Segment::new(1); n_segments],
            slices: vec![Slice::new(0, Dtype::F32); n_segments * (n_tasks + 1)],
            n_bytes: 4,
            ..ChunkLayout::default()
        };
        let code = Code {
            rate: Rate::Signs,
            kept_rate: Rate::Four,
            kept: vec![0.0; 2 * n_tasks],
            n_kept: 2,
            n_carried: 0,
            seed: 1,
        };
        let plan = code.plan(&layout, Shape::LARGE, 1).expect("a sound layout");
        let mut dispatches = Vec::new();
        let mut n_marks = 0;
        for step in &plan.steps {
            let Step::Dispatch { kernel, params, groups } = step else { continue };
            let bytes = &plan.tables[*params as usize..][..size_of::<CodeParams>()];
            let params: CodeParams = bytemuck::pod_read_unaligned(bytes);
            if params.first_run == 0 {
                assert_eq!(params.marks as usize, plan.marks[0].start + n_marks);
                n_marks += n_segments * groups[1] as usize;
            }
            dispatches.push((kernel.entry_point(), params.first_run, groups[0], params.first_task..params.end_task));
        }
        assert_eq!(n_marks, plan.marks[0].len());
        let (first, rest) = (MOST_GROUPS as u32, (n_segments - MOST_GROUPS) as u32);
        let twice = |kernel, tasks: Range<u32>| [(kernel, 0, first, tasks.clone()), (kernel, first, rest, tasks)];
        let expected =
            [twice("code", 0..40), twice("code_kept", 0..32), twice("code_kept", 32..40), twice("measure", 0..40)];
        assert_eq!(dispatches, expected.concat());
        // What waits for the second dispatch of code_kept is behind what is read back.
        assert_eq!(plan.out_words, plan.readback_words + n_segments * 2 * CODED_VALUES);
    }
}
