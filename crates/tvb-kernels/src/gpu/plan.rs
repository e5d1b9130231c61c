//! What one chunk's submit consists of: tables for the shaders, dispatches and copies, and how its result is read.

use super::shader::Kernel;
use super::variant::Shape;
use crate::limits::BINDING_ALIGNMENT;
use crate::{ChunkLayout, Dtype, GramPart, KernelError, Output, Work, params, triangle_len};
use std::ops::Range;

/// One command of a submit. Places and lengths in words.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Runs a kernel with the parameters at a byte of the tables.
    Dispatch { kernel: Kernel, params: u32, groups: [u32; 3] },
    /// Copies from the output to the readback buffer.
    Copy { from: usize, to: usize, n_words: usize },
}

/// Everything about one submit but the chunk's bytes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Parameters of every dispatch, then the tables below.
    pub(crate) tables: Vec<u8>,
    /// Byte range of the slices in `tables`.
    pub(crate) slices: Range<usize>,
    /// Byte range of the runs.
    pub(crate) runs: Range<usize>,
    /// Byte range of the folds, where there are any.
    pub(crate) folds: Option<Range<usize>>,
    /// The commands, in order; none where there is nothing to do.
    pub(crate) steps: Vec<Step>,
    /// Words of the output buffer.
    pub(crate) out_words: usize,
    /// Words read back.
    pub(crate) readback_words: usize,
    /// Where in them the marks lie, and what each must be.
    pub(crate) marks: Vec<Range<usize>>,
    pub(crate) stamp: u32,
    pub(crate) result: ResultPlan,
}

/// How the words read back become an [`Output`].
#[derive(Debug)]
pub(crate) enum ResultPlan {
    /// Partial triangles as (group, first word), in the order in which they are added up.
    Gram { slots: Vec<usize>, n_tasks: usize, parts: Vec<(usize, usize)> },
    /// Byte ranges to put one after another.
    Rows { n_bytes: usize, parts: Vec<Range<usize>> },
}

impl Plan {
    /// Name of the first kernel, for errors.
    pub(crate) fn kernel_name(&self) -> &'static str {
        self.steps
            .iter()
            .find_map(|step| match step {
                Step::Dispatch { kernel, .. } => Some(kernel.entry_point()),
                Step::Copy { .. } => None,
            })
            .unwrap_or("nothing")
    }

    /// Checks the marks and puts the result together.
    pub(crate) fn collect(&self, readback: &[u8]) -> Result<Output, KernelError> {
        let unfinished = || KernelError::Unfinished { kernel: self.kernel_name() };
        // The order of words in mapped memory is that of every platform wgpu runs on: little-endian.
        let words = readback.as_chunks::<4>().0;
        for marks in &self.marks {
            let found = words.get(marks.clone()).ok_or_else(unfinished)?;
            if found.iter().any(|mark| u32::from_le_bytes(*mark) != self.stamp) {
                return Err(unfinished());
            }
        }
        match &self.result {
            ResultPlan::Gram { slots, n_tasks, parts } => {
                let mut part = GramPart { slots: slots.clone(), values: Vec::new() };
                crate::check::clear_triangles(&mut part.values, slots.len(), *n_tasks)?;
                let n_values = triangle_len(*n_tasks);
                for (group, at) in parts {
                    let triangle = &mut part.values[group * n_values..][..n_values];
                    for (sum, word) in triangle.iter_mut().zip(words.get(*at..).ok_or_else(unfinished)?) {
                        *sum += f64::from(f32::from_le_bytes(*word));
                    }
                }
                Ok(Output::Gram(part))
            }
            ResultPlan::Rows { n_bytes, parts } => {
                let mut rows = Vec::new();
                rows.try_reserve_exact(*n_bytes).map_err(|_| KernelError::TooLarge { what: "output rows" })?;
                for part in parts {
                    rows.extend_from_slice(readback.get(part.clone()).ok_or_else(unfinished)?);
                }
                Ok(Output::Rows(rows))
            }
        }
    }
}

/// Builds the tables: each part on its own binding alignment.
#[derive(Default)]
pub(crate) struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends a part and returns its byte range.
    pub(crate) fn push<T: bytemuck::Pod>(&mut self, part: &[T]) -> Range<usize> {
        let start = self.bytes.len().next_multiple_of(BINDING_ALIGNMENT);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytemuck::cast_slice(part));
        start..self.bytes.len()
    }

    /// Appends the parameters of a dispatch and returns their byte.
    pub(crate) fn push_params<T: bytemuck::Pod>(&mut self, params: T) -> u32 {
        // Tables hold a few bytes per run and slice of a chunk that itself is below 4 GiB.
        self.push(&[params]).start as u32
    }

    /// The bytes; the last part padded, as every dispatch's parameters are bound with one fixed size.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let end = (self.bytes.len() + BINDING_ALIGNMENT).next_multiple_of(BINDING_ALIGNMENT);
        self.bytes.resize(end, 0);
        self.bytes
    }
}

/// The table of slices.
///
/// # Errors
/// [`KernelError::NotOnGpu`] for f64 rows; [`KernelError::Limit`] where an offset is beyond 32 bits.
pub(crate) fn slices(layout: &ChunkLayout) -> Result<Vec<params::Slice>, KernelError> {
    let too_far = KernelError::Limit { what: "chunk bytes", found: layout.n_bytes as u64, most: u64::from(u32::MAX) };
    u32::try_from(layout.n_bytes).map_err(|_| too_far)?;
    layout
        .slices
        .iter()
        .map(|slice| Ok(params::Slice { offset_bytes: slice.offset as u32, dtype: dtype_code(slice.dtype)? }))
        .collect()
}

/// A format's number in the shaders.
pub(crate) fn dtype_code(dtype: Dtype) -> Result<u32, KernelError> {
    match dtype {
        Dtype::F32 => Ok(params::F32),
        Dtype::F16 => Ok(params::F16),
        Dtype::Bf16 => Ok(params::BF16),
        Dtype::F64 => Err(KernelError::NotOnGpu),
    }
}

/// The plan of one chunk.
pub(crate) fn plan(work: &Work, layout: &ChunkLayout, shape: Shape, stamp: u32) -> Result<Plan, KernelError> {
    match work {
        Work::Gram => super::gram::plan(layout, shape, stamp),
        Work::Project(_) | Work::Reconstruct(_) => super::combine::plan(work, layout, stamp),
    }
}

/// Whether a chunk's work can be done on the GPU at all: no f64 result, no f64 base under a reconstruction.
pub(crate) fn is_gpu_work(work: &Work, layout: &ChunkLayout) -> bool {
    let segments = 0..layout.segments.len();
    match work {
        Work::Gram => true,
        Work::Project(project) => project.dtype != Dtype::F64,
        Work::Reconstruct(_) => segments
            .into_iter()
            .all(|at| layout.slice(at, 0).dtype != Dtype::F64 && work.row_dtype(layout, at) != Dtype::F64),
    }
}
