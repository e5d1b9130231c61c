//! What project and reconstruct share on the GPU: weighted sums of columns over blocks of rows, two rows a thread.
//!
//! In the shader's output every segment starts on a word, so that no two threads share one; the host closes the gaps.

use super::plan::{Plan, ResultPlan, Step, Tables, dtype_code, slices};
use super::shader::Kernel;
use super::variant::Format;
use super::{project, reconstruct};
use crate::limits::{BLOCK_ROWS, MOST_GROUPS};
use crate::params::{CombineParams, Run};
use crate::{ChunkLayout, KernelError, Work};

/// Outputs a thread forms together, by how many there are.
pub(crate) const OUTPUTS: [u32; 3] = [4, 8, 16];

/// What the two kernels differ in.
pub(crate) struct Combine<'a> {
    /// Row-major [n_columns, n_outputs].
    pub(crate) weights: &'a [f32],
    pub(crate) n_outputs: usize,
    pub(crate) subtract_base: bool,
    pub(crate) add_base: bool,
    /// The kernel's variant: format, outputs at a time, whether some weight is 0.
    pub(crate) kernel: fn(Format, u32, bool) -> Kernel,
}

/// The work's weights and flags; `None` for a Gram.
pub(crate) fn of(work: &Work) -> Option<Combine<'_>> {
    match work {
        Work::Gram => None,
        Work::Project(work) => Some(project::combine(work)),
        Work::Reconstruct(work) => Some(reconstruct::combine(work)),
    }
}

/// Outputs formed together, and whether some weight is 0.
pub(crate) fn variant(weights: &[f32], n_outputs: usize) -> (u32, bool) {
    let outputs = OUTPUTS.into_iter().find(|&outputs| outputs as usize >= n_outputs);
    (outputs.unwrap_or(OUTPUTS[OUTPUTS.len() - 1]), weights.contains(&0.0))
}

/// The weights as the shader reads them: [ceil(n_outputs / together), n_columns, together].
pub(crate) fn pack_weights(weights: &[f32], n_outputs: usize) -> Result<Vec<f32>, KernelError> {
    let together = variant(weights, n_outputs).0 as usize;
    let n_columns = weights.len() / n_outputs;
    let n_packed = n_outputs.div_ceil(together).checked_mul(n_columns * together);
    let mut packed = vec![0.0; n_packed.ok_or(KernelError::TooLarge { what: "weights" })?];
    for (column, row) in weights.chunks_exact(n_outputs).enumerate() {
        for (output, &weight) in row.iter().enumerate() {
            packed[(output / together * n_columns + column) * together + output % together] = weight;
        }
    }
    Ok(packed)
}

/// Plans one chunk's projection or reconstruction.
pub(crate) fn plan(work: &Work, layout: &ChunkLayout, stamp: u32) -> Result<Plan, KernelError> {
    let combine = of(work).ok_or(KernelError::NoOutputs)?;
    let too_large = KernelError::TooLarge { what: "output rows" };
    let n_outputs = combine.n_outputs;
    let (together, skip_zeros) = variant(combine.weights, n_outputs);
    let kernel = (combine.kernel)(Format::of(layout), together, skip_zeros);
    // Word where each segment's rows begin in an output.
    let mut words_per_output = 0usize;
    let mut runs = Vec::new();
    let mut segments = Vec::new();
    for (at, segment) in layout.segments.iter().enumerate() {
        let dtype = work.row_dtype(layout, at);
        let code = dtype_code(dtype)?;
        for start in (0..segment.n_rows).step_by(BLOCK_ROWS) {
            runs.push(Run {
                segment: at as u32,
                start: start as u32,
                n_rows: BLOCK_ROWS.min(segment.n_rows - start) as u32,
                place: (words_per_output + start * dtype.size() / 4) as u32,
                dtype: code,
            });
        }
        let n_bytes = segment.n_rows * dtype.size();
        segments.push((words_per_output * 4, n_bytes));
        words_per_output = words_per_output.checked_add(n_bytes.div_ceil(4)).ok_or(too_large.clone())?;
    }
    let marks = words_per_output.checked_mul(n_outputs).ok_or(too_large.clone())?;
    let out_words = marks.checked_add(runs.len()).filter(|words| u32::try_from(*words).is_ok()).ok_or(too_large)?;

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
            subtract_base: u32::from(combine.subtract_base),
            add_base: u32::from(combine.add_base),
        });
        let n_groups = MOST_GROUPS.min(runs.len() - first_run) as u32;
        steps.push(Step::Dispatch { kernel, params, groups: [n_groups, 1, 1] });
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
        result: ResultPlan::Rows { n_bytes, parts },
    })
}
