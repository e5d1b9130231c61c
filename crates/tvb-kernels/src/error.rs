//! What can go wrong in the kernels: plain facts, which the host turns into a message with a file, a tensor and a task.

use crate::Dtype;
use std::fmt;

/// An error of an engine. Every variant carries what was expected and what was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// A layout has no base column, no column beside it, or more than [`MAX_TASKS`](crate::MAX_TASKS) beside it.
    ColumnCount {
        /// Columns beside the base that the work needs at least.
        least: usize,
        /// Columns beside the base that an engine takes at most.
        most: usize,
        /// Columns of the layout, the base counted.
        n_columns: usize,
    },
    /// A layout does not hold one slice for each segment and column.
    SliceCount {
        /// n_segments · n_columns.
        expected: usize,
        /// Slices in the layout.
        found: usize,
    },
    /// A slice does not lie within its chunk.
    SliceOutside {
        /// Which segment.
        segment: usize,
        /// Which column (0 is the base).
        column: usize,
        /// Bytes from the chunk's start.
        offset: usize,
        /// Rows of the segment.
        n_rows: usize,
        /// Format of the slice.
        dtype: Dtype,
        /// Bytes the layout gives the chunk.
        chunk_bytes: usize,
    },
    /// A slice's offset is not a multiple of its element size.
    SliceMisaligned {
        /// Which segment.
        segment: usize,
        /// Which column (0 is the base).
        column: usize,
        /// Bytes from the chunk's start.
        offset: usize,
        /// Format of the slice.
        dtype: Dtype,
    },
    /// A chunk holds fewer bytes than its layout says.
    ChunkShort {
        /// Bytes of the layout.
        expected: usize,
        /// Bytes of the chunk.
        found: usize,
    },
    /// Weights (encode B or reconstruction weights) have the wrong length for the layout.
    WeightCount {
        /// Columns beside the base · outputs.
        expected: usize,
        /// Weights given.
        found: usize,
    },
    /// Weights hold an infinity or a NaN.
    WeightNotFinite {
        /// Which column beside the base, from 0.
        column: usize,
        /// Which output.
        output: usize,
    },
    /// No output was asked for (`n_atoms` or `n_outputs` is 0).
    NoOutputs,
    /// The result, or the buffer for it, does not fit in memory.
    TooLarge {
        /// What was to be made.
        what: &'static str,
    },
    /// Matrices for the eigendecomposition have the wrong number of entries.
    MatrixSize {
        /// n_matrices · n².
        expected: usize,
        /// Entries given.
        found: usize,
    },
    /// A matrix for the eigendecomposition holds an infinity or a NaN.
    MatrixNotFinite {
        /// Which matrix of the batch.
        matrix: usize,
    },
    /// The eigendecomposition did not converge.
    EighFailed {
        /// Which matrix of the batch.
        matrix: usize,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::ColumnCount { least, most, n_columns } => {
                write!(f, "a chunk of {n_columns} columns: expected the base and {least} to {most} columns beside it")
            }
            KernelError::SliceCount { expected, found } => {
                write!(f, "a chunk layout with {found} slices: expected {expected} (segments × columns)")
            }
            KernelError::SliceOutside { segment, column, offset, n_rows, dtype, chunk_bytes } => write!(
                f,
                "segment {segment}, column {column}: {n_rows} {dtype:?} rows at byte {offset} do not lie within the \
                 chunk's {chunk_bytes} bytes"
            ),
            KernelError::SliceMisaligned { segment, column, offset, dtype } => write!(
                f,
                "segment {segment}, column {column}: byte {offset} is not a multiple of {} ({dtype:?})",
                dtype.size()
            ),
            KernelError::ChunkShort { expected, found } => {
                write!(f, "a chunk of {found} bytes: its layout needs {expected}")
            }
            KernelError::WeightCount { expected, found } => {
                write!(f, "{found} weights: expected {expected} (columns beside the base × outputs)")
            }
            KernelError::WeightNotFinite { column, output } => {
                write!(f, "the weight of column {column} for output {output} is not finite")
            }
            KernelError::NoOutputs => write!(f, "no output was asked for: expected at least one"),
            KernelError::TooLarge { what } => write!(f, "{what}: too large for this machine's memory"),
            KernelError::MatrixSize { expected, found } => {
                write!(f, "{found} matrix entries for an eigendecomposition: expected {expected}")
            }
            KernelError::MatrixNotFinite { matrix } => {
                write!(f, "matrix {matrix} of the eigendecomposition has a non-finite entry")
            }
            KernelError::EighFailed { matrix } => {
                write!(f, "the eigendecomposition of matrix {matrix} did not converge")
            }
        }
    }
}

impl std::error::Error for KernelError {}
