//! decode on the GPU: one workgroup for each run of blocks and output (decode.wgsl).
//!
//! In the shader's output every segment starts on a word, and so do the 16-bit results of a last panel with an odd number of
//! blocks, each in a word of its own: two workgroups would share words else. The host closes the gaps.

use super::book;
use super::panels::panels;
use super::plan::{Plan, Readback, Step};
use super::shader::Kernel;
use super::tables::{Tables, dtype_code, slices};
use super::variant::{Format, Shape};
use crate::check::bytes_per_output;
use crate::chunk::ChunkLayout;
use crate::decode::Decode;
use crate::error::KernelError;
use crate::limits::{CODED_TOGETHER, CODED_VALUES, MOST_GROUPS};
use crate::params::{DecodeParams, Slice};
use crate::reconstruct::Base;
use crate::work::OnGpu;

/// Where a chunk's output rows lie in what is read back.
#[derive(Debug)]
pub struct DecodedRows {
    n_bytes: usize,
    n_outputs: usize,
    words_per_output: usize,
    /// Of one output: what to put one after another.
    parts: Vec<Part>,
}

/// Neighbouring rows of an output.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// First word within the output.
    word: usize,
    /// Bytes of the rows.
    n_bytes: usize,
    /// Whether each of them, of two bytes, has a word of its own.
    alone: bool,
}

impl OnGpu for Decode {
    type Parts = DecodedRows;

    fn plan(&self, layout: &ChunkLayout, _: Shape, stamp: u32) -> Result<Plan<DecodedRows>, KernelError> {
        let too_large = || KernelError::TooLarge { what: "output rows" };
        let (n_columns, n_outputs) = (self.rates.len(), self.n_outputs);
        // Outputs are a dimension of the dispatch, as runs are.
        if n_outputs > MOST_GROUPS {
            return Err(KernelError::Limit { what: "outputs", found: n_outputs as u64, most: MOST_GROUPS as u64 });
        }
        let mut words_per_output = 0usize;
        let mut runs = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        for panel in panels(layout, self.seed) {
            let dtype = self.row_dtype(layout, panel.segment);
            let alone = dtype.size() == 2 && panel.n_blocks % 2 == 1;
            let n_bytes = panel.n_rows * dtype.size();
            runs.extend(panel.runs(words_per_output, dtype_code(dtype)?));
            match parts.last_mut() {
                // Panels that fill their words go on from the ones before.
                Some(last) if panel.start > 0 && !alone => last.n_bytes += n_bytes,
                _ => parts.push(Part { word: words_per_output, n_bytes, alone }),
            }
            let n_words = if alone { panel.n_rows } else { n_bytes.div_ceil(4) };
            words_per_output = words_per_output.checked_add(n_words).ok_or_else(too_large)?;
        }
        // Columns of each dispatch; a base alone takes one too.
        let batches = (0..n_columns.max(1)).step_by(CODED_TOGETHER);
        let batches = batches.map(|first| first..n_columns.min(first + CODED_TOGETHER));
        let n_groups = runs.len().checked_mul(n_outputs).ok_or_else(too_large)?;
        let n_marks = n_groups.checked_mul(batches.len()).ok_or_else(too_large)?;
        let marks = words_per_output.checked_mul(n_outputs).ok_or_else(too_large)?;
        let n_words = marks.checked_add(n_marks).ok_or_else(too_large)?;
        // What is not read back.
        let n_waiting = if n_columns > CODED_TOGETHER { CODED_VALUES } else { 0 };
        let waiting = n_groups.checked_mul(n_waiting).and_then(|n| n_words.checked_add(n));
        let out_words = waiting.filter(|n| u32::try_from(*n).is_ok()).ok_or_else(too_large)?;

        let format = Format::of(&layout.slices);
        let mut tables = Tables::default();
        let mut steps = Vec::new();
        for (at, columns) in batches.enumerate() {
            for first_run in (0..runs.len()).step_by(MOST_GROUPS) {
                let params = tables.push_params(DecodeParams {
                    n_columns: n_columns as u32,
                    n_outputs: n_outputs as u32,
                    first_run: first_run as u32,
                    n_runs: runs.len() as u32,
                    words_per_output: words_per_output as u32,
                    marks: (marks + at * n_groups) as u32,
                    stamp,
                    add_base: u32::from(self.base == Base::Added),
                    rates: book::n_words() as u32,
                    weights: (book::n_words() + n_columns) as u32,
                    first_column: columns.start as u32,
                    end_column: columns.end as u32,
                    sums_at: n_words as u32,
                });
                let groups = [MOST_GROUPS.min(runs.len() - first_run) as u32, n_outputs as u32, 1];
                steps.push(Step::Dispatch { kernel: Kernel::Decode(format), params, groups });
            }
        }
        if !steps.is_empty() {
            steps.push(Step::Copy { from: 0, to: 0, n_words });
        }
        let slices = tables.push(&all_slices(layout, n_columns)?);
        let n_bytes = bytes_per_output(layout, |segment| self.row_dtype(layout, segment))?;
        let runs = tables.push(&runs);
        Ok(Plan {
            tables: tables.finish(),
            slices,
            runs,
            folds: None,
            steps,
            out_words,
            readback_words: n_words,
            marks: std::iter::once(marks..n_words).collect(),
            stamp,
            parts: DecodedRows {
                n_bytes: n_bytes.checked_mul(n_outputs).ok_or_else(too_large)?,
                n_outputs,
                words_per_output,
                parts,
            },
        })
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        let mut book = book::rates();
        book.extend(self.rates.iter().map(|&rate| f32::from_bits(book::rate_number(rate))));
        book.extend(&self.weights);
        Ok(book)
    }

    fn collect(rows: &DecodedRows, readback: Readback<'_>, out: &mut Vec<u8>) -> Result<(), KernelError> {
        out.clear();
        out.try_reserve_exact(rows.n_bytes).map_err(|_| KernelError::TooLarge { what: "output rows" })?;
        for output in 0..rows.n_outputs {
            for part in &rows.parts {
                let word = output * rows.words_per_output + part.word;
                if part.alone {
                    let words = readback.words(word..word + part.n_bytes / 2)?;
                    out.extend(words.iter().flat_map(|[low, high, ..]| [*low, *high]));
                } else {
                    out.extend_from_slice(readback.bytes(4 * word..4 * word + part.n_bytes)?);
                }
            }
        }
        Ok(())
    }
}

/// Of each segment the base's rows, then the words and the scales of each coded column.
fn all_slices(layout: &ChunkLayout, n_columns: usize) -> Result<Vec<Slice>, KernelError> {
    let bases = slices(layout)?;
    let mut all = Vec::with_capacity(bases.len() + 2 * layout.codes.len());
    for (at, base) in bases.into_iter().enumerate() {
        all.push(base);
        for codes in layout.codes.iter().skip(at * n_columns).take(n_columns) {
            all.extend([codes.words, codes.scales].map(|offset| Slice { offset_bytes: offset as u32, dtype: 0 }));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{CodeSlice, Dtype, Segment, Slice as ChunkSlice};
    use crate::panel::PANEL;
    use crate::rate::Rate;

    fn layout(rows: &[usize], dtype: Dtype, n_columns: usize) -> ChunkLayout {
        ChunkLayout {
            n_columns: 1,
            segments: rows.iter().map(|&n_rows| Segment::new(n_rows)).collect(),
            slices: vec![ChunkSlice::new(0, dtype); rows.len()],
            codes: vec![CodeSlice { words: 0, scales: 0 }; rows.len() * n_columns],
            factors: Vec::new(),
            n_bytes: 1 << 20,
        }
    }

    fn decode(n_columns: usize, n_outputs: usize) -> Decode {
        Decode {
            rates: vec![Rate::Signs; n_columns],
            weights: vec![1.0; n_columns * n_outputs],
            n_outputs,
            base: Base::Added,
            dtype: None,
            seed: 1,
        }
    }

    #[test]
    fn dispatches_take_every_run_and_column_once() {
        let n_segments = 66_000;
        let plan = decode(40, 3).plan(&layout(&vec![1; n_segments], Dtype::F32, 40), Shape::LARGE, 1);
        let plan = plan.expect("a sound layout");
        let dispatches: Vec<(u32, [u32; 3], u32, u32, u32)> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Dispatch { params, groups, .. } => Some((params, *groups)),
                Step::Copy { .. } => None,
            })
            .map(|(params, groups)| {
                let bytes = &plan.tables[*params as usize..][..size_of::<DecodeParams>()];
                let params: DecodeParams = bytemuck::pod_read_unaligned(bytes);
                (params.first_run, groups, params.first_column, params.end_column, params.marks)
            })
            .collect();
        let marks = [0, 1].map(|batch| (plan.marks[0].start + batch * 3 * n_segments) as u32);
        let expected = [
            (0, [65_535, 3, 1], 0, 32, marks[0]),
            (65_535, [465, 3, 1], 0, 32, marks[0]),
            (0, [65_535, 3, 1], 32, 40, marks[1]),
            (65_535, [465, 3, 1], 32, 40, marks[1]),
        ];
        assert_eq!(dispatches, expected);
        assert_eq!(plan.marks[0].len(), 2 * 3 * n_segments);
    }

    /// Rows of 16 bits go on over whole panels, and stand alone in a last one of an odd number of blocks.
    #[test]
    fn parts_are_all_rows_in_order() {
        for (dtype, n_tail, parts) in [
            (Dtype::Bf16, 300, vec![(0, 2 * (2 * PANEL + 300), false), (PANEL + 150, 2, true)]),
            (Dtype::Bf16, 5, vec![(0, 4 * PANEL, false), (PANEL, 10, true), (PANEL + 5, 2, true)]),
            (Dtype::F32, 5, vec![(0, 4 * (2 * PANEL + 5), false), (2 * PANEL + 5, 4, false)]),
        ] {
            let layout = layout(&[2 * PANEL + n_tail, 1], dtype, 1);
            let plan = decode(1, 2).plan(&layout, Shape::LARGE, 1).expect("a sound layout");
            let found: Vec<_> = plan.parts.parts.iter().map(|part| (part.word, part.n_bytes, part.alone)).collect();
            assert_eq!(found, parts, "{dtype} {n_tail}");
            assert_eq!(found.iter().map(|part| 2 * part.1).sum::<usize>(), plan.parts.n_bytes);
        }
    }
}
