//! reconstruct: the fused reconstruction θ0 + S·W into the output format.

use crate::check::{check_columns, check_weights};
use crate::chunk::{ChunkLayout, Columns, Dtype};
use crate::error::KernelError;
use crate::work::Work;

/// Edited rows of a chunk: out_k(x) = \[θ0(x) +\] Σ_c column_c(x)·W\[c,k\].
///
/// Output: bytes. For each output k in turn, the chunk's segments in order, tightly packed, each in its output format.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstruct {
    /// Weights W, row-major \[n_columns − 1, n_outputs\]; finite.
    pub weights: Vec<f32>,
    /// K, how many outputs are formed at once; at least 1.
    pub n_outputs: usize,
    /// What the columns beside the base hold.
    pub columns: Columns,
    /// What each output starts from.
    pub base: Base,
    /// Format of the outputs; `None` keeps each segment's base format. Rounding is to nearest, ties to even.
    pub dtype: Option<Dtype>,
}

/// What an output starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Output = θ0 + edit.
    Added,
    /// Output = edit.
    Left,
}

impl Reconstruct {
    /// Format of the outputs in one segment.
    pub(crate) fn row_dtype(&self, layout: &ChunkLayout, segment: usize) -> Dtype {
        self.dtype.unwrap_or_else(|| layout.slice(segment, 0).dtype)
    }
}

impl Work for Reconstruct {
    type Output = Vec<u8>;

    fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    fn runs_on_gpu(&self, layout: &ChunkLayout) -> bool {
        (0..layout.segments.len())
            .all(|at| layout.slice(at, 0).dtype != Dtype::F64 && self.row_dtype(layout, at) != Dtype::F64)
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        // θ0 alone, in another format, is a reconstruction too.
        check_columns(usize::from(self.base == Base::Left), n_tasks)?;
        check_weights(&self.weights, n_tasks, self.n_outputs)
    }
}
