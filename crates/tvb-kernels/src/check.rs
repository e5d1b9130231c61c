//! The one place where a chunk and its work are checked before any byte is read or any buffer is made.
//!
//! Engines call [`check`] once a call; after it, every slice lies within the chunk's bytes and every product of sizes
//! below has been seen not to overflow.

use crate::chunk::{Chunk, ChunkLayout, Dtype, FactorSlice};
use crate::error::KernelError;
use crate::limits::MAX_TASKS;
use crate::work::Work;

/// Checks a layout and its bytes against the work.
pub(crate) fn check<W: Work>(work: &W, chunk: Chunk<'_>) -> Result<(), KernelError> {
    check_layout(work, chunk.layout)?;
    let (expected, found) = (chunk.layout.n_bytes, chunk.bytes.len());
    if found < expected {
        return Err(KernelError::ChunkShort { expected, found });
    }
    Ok(())
}

/// Checks a layout against the work; the bytes need not be there yet.
pub(crate) fn check_layout<W: Work>(work: &W, layout: &ChunkLayout) -> Result<(), KernelError> {
    check_slices(layout)?;
    work.check(layout.n_columns - 1)?;
    work.check_codes(layout)
}

/// Checks that a layout's slices lie within its bytes.
pub(crate) fn check_slices(layout: &ChunkLayout) -> Result<(), KernelError> {
    let n_columns = layout.n_columns;
    if n_columns == 0 || n_columns > MAX_TASKS + 1 {
        return Err(KernelError::ColumnCount { least: 0, most: MAX_TASKS, n_columns });
    }
    let expected =
        layout.segments.len().checked_mul(n_columns).ok_or(KernelError::TooLarge { what: "chunk layout" })?;
    if layout.slices.len() != expected {
        return Err(KernelError::SliceCount { expected, found: layout.slices.len() });
    }
    if !layout.factors.is_empty() && layout.factors.len() != expected {
        return Err(KernelError::SliceCount { expected, found: layout.factors.len() });
    }
    for (segment, (found, slices)) in layout.segments.iter().zip(layout.slices.chunks_exact(n_columns)).enumerate() {
        let n_rows = found.n_rows;
        for (column, slice) in slices.iter().enumerate() {
            if let Some(factors) = layout.factors_of(segment, column) {
                check_factors(factors, n_rows, layout.n_bytes)?;
                continue;
            }
            let (offset, dtype) = (slice.offset, slice.dtype);
            let end = n_rows.checked_mul(dtype.size()).and_then(|bytes| bytes.checked_add(offset));
            if end.is_none_or(|end| end > layout.n_bytes) {
                let chunk_bytes = layout.n_bytes;
                return Err(KernelError::SliceOutside { segment, column, offset, n_rows, dtype, chunk_bytes });
            }
            if offset % dtype.size() != 0 {
                return Err(KernelError::SliceMisaligned { segment, column, offset, dtype });
            }
        }
    }
    Ok(())
}

/// Checks that the factors of a segment of `n_rows` rows lie within the chunk's bytes.
fn check_factors(factors: FactorSlice, n_rows: usize, chunk_bytes: usize) -> Result<(), KernelError> {
    let FactorSlice { left, right, rank, n_columns, first, .. } = factors;
    let ends = |start: usize, n_bytes: Option<usize>| {
        start.is_multiple_of(4) && n_bytes.and_then(|n| n.checked_add(start)).is_some_and(|end| end <= chunk_bytes)
    };
    let fits =
        rank > 0 && first < n_columns && ends(left, factors.left_bytes(n_rows)) && ends(right, factors.right_bytes());
    if fits { Ok(()) } else { Err(KernelError::FactorsOutside { n_rows, chunk_bytes }) }
}

/// Checks that there are at least `least` columns beside the base.
pub(crate) fn check_columns(least: usize, n_tasks: usize) -> Result<(), KernelError> {
    match n_tasks < least {
        true => Err(KernelError::ColumnCount { least, most: MAX_TASKS, n_columns: n_tasks.saturating_add(1) }),
        false => Ok(()),
    }
}

/// Checks row-major [n_tasks, n_outputs] weights.
pub(crate) fn check_weights(weights: &[f32], n_tasks: usize, n_outputs: usize) -> Result<(), KernelError> {
    if n_outputs == 0 {
        return Err(KernelError::NoOutputs);
    }
    let expected = n_tasks.checked_mul(n_outputs).ok_or(KernelError::TooLarge { what: "weights" })?;
    if weights.len() != expected {
        return Err(KernelError::WeightCount { expected, found: weights.len() });
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(at) => Err(KernelError::WeightNotFinite { column: at / n_outputs, output: at % n_outputs }),
        None => Ok(()),
    }
}

/// Bytes of one output (one atom, one edited copy) of a chunk whose segments have the formats that `row_dtype` gives.
pub(crate) fn bytes_per_output(layout: &ChunkLayout, row_dtype: impl Fn(usize) -> Dtype) -> Result<usize, KernelError> {
    let mut n_bytes = 0usize;
    for (at, segment) in layout.segments.iter().enumerate() {
        let more = segment.n_rows.checked_mul(row_dtype(at).size());
        n_bytes =
            more.and_then(|more| n_bytes.checked_add(more)).ok_or(KernelError::TooLarge { what: "output rows" })?;
    }
    Ok(n_bytes)
}
