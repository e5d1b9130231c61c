//! decode: edits straight from codes, out_k = θ0 + Σ_c w_ck·x̂_c, combined in the rotated domain, with one transform back for each
//! block and output; see [`code`](crate::code).

use crate::check::check_weights;
use crate::chunk::{ChunkLayout, Dtype};
use crate::error::KernelError;
use crate::panel::n_blocks;
use crate::rate::Rate;
use crate::reconstruct::Base;
use crate::work::Work;

/// Edited rows of a chunk from codes: out_k(x) = \[θ0(x) +\] Σ_c x̂_c(x)·W\[c,k\].
///
/// Output: bytes, as [`Reconstruct`](crate::Reconstruct)'s: for each output k in turn, the chunk's segments in order, tightly
/// packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Decode {
    /// The rate of each coded column.
    pub rates: Vec<Rate>,
    /// Weights W, row-major \[n_columns, n_outputs\]; finite.
    pub weights: Vec<f32>,
    /// K, at least 1.
    pub n_outputs: usize,
    /// What each output starts from.
    pub base: Base,
    /// Format of the outputs; `None` keeps each segment's base format.
    pub dtype: Option<Dtype>,
    /// Where the signs come from.
    pub seed: u64,
}

impl Decode {
    /// Format of the outputs in one segment.
    pub(crate) fn row_dtype(&self, layout: &ChunkLayout, segment: usize) -> Dtype {
        self.dtype.unwrap_or_else(|| layout.slice(segment, 0).dtype)
    }
}

impl Work for Decode {
    type Output = Vec<u8>;

    fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    fn runs_on_gpu(&self, layout: &ChunkLayout) -> bool {
        (0..layout.segments.len())
            .all(|at| layout.slice(at, 0).dtype != Dtype::F64 && self.row_dtype(layout, at) != Dtype::F64)
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        // The coded columns lie apart from those of floats.
        if n_tasks != 0 {
            return Err(KernelError::ColumnCount { least: 0, most: 0, n_columns: n_tasks + 1 });
        }
        check_weights(&self.weights, self.rates.len(), self.n_outputs)
    }

    fn check_codes(&self, layout: &ChunkLayout) -> Result<(), KernelError> {
        let expected = layout.segments.len().checked_mul(self.rates.len());
        if expected != Some(layout.codes.len()) {
            let (expected, found) = (expected.unwrap_or(usize::MAX), layout.codes.len());
            return Err(KernelError::SliceCount { expected, found });
        }
        for (at, slice) in layout.codes.iter().enumerate() {
            let (segment, column) = (at / self.rates.len(), at % self.rates.len());
            let n_blocks = n_blocks(layout.segments[segment].n_rows);
            let ends = |offset: usize, size: usize, n: usize| n.checked_mul(size).and_then(|n| n.checked_add(offset));
            let words = ends(slice.words, 4 * self.rates[column].words(), n_blocks);
            let scales = ends(slice.scales, 2, n_blocks);
            let is_outside = |end: Option<usize>| end.is_none_or(|end| end > layout.n_bytes);
            if is_outside(words) || is_outside(scales) || slice.words % 4 != 0 || slice.scales % 2 != 0 {
                return Err(KernelError::CodesOutside { segment, column, chunk_bytes: layout.n_bytes });
            }
        }
        Ok(())
    }
}
