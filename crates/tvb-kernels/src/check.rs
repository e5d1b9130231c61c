//! The one place where a chunk and its work are checked before any byte is read or any buffer is made.
//!
//! Engines call [`check`] once a call; after it, every slice lies within the chunk's bytes and every product of sizes
//! below has been seen not to overflow.

use crate::{Base, Chunk, ChunkLayout, Dtype, KernelError, Project, Reconstruct, Work, triangle_len};

/// The most columns beside the base (T) that an engine takes.
pub const MAX_TASKS: usize = 1024;

/// Checks a layout and its bytes against the work.
pub(crate) fn check(work: &Work, chunk: Chunk<'_>) -> Result<(), KernelError> {
    check_layout(work, chunk.layout)?;
    let (expected, found) = (chunk.layout.n_bytes, chunk.bytes.len());
    if found < expected {
        return Err(KernelError::ChunkShort { expected, found });
    }
    Ok(())
}

/// Checks a layout against the work; the bytes need not be there yet.
pub(crate) fn check_layout(work: &Work, layout: &ChunkLayout) -> Result<(), KernelError> {
    check_slices(layout)?;
    check_work(work, layout.n_columns - 1)
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
    for (segment, (found, slices)) in layout.segments.iter().zip(layout.slices.chunks_exact(n_columns)).enumerate() {
        let n_rows = found.n_rows;
        for (column, slice) in slices.iter().enumerate() {
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

fn check_work(work: &Work, n_tasks: usize) -> Result<(), KernelError> {
    let (least, weights, n_outputs) = match work {
        Work::Gram => (1, None, 1),
        Work::Project(Project { encode, n_atoms, .. }) => (1, Some(encode), *n_atoms),
        // θ0 alone, in another format, is a reconstruction too.
        Work::Reconstruct(Reconstruct { weights, n_outputs, base, .. }) => {
            (usize::from(*base == Base::Left), Some(weights), *n_outputs)
        }
    };
    if n_tasks < least {
        return Err(KernelError::ColumnCount { least, most: MAX_TASKS, n_columns: n_tasks + 1 });
    }
    if n_outputs == 0 {
        return Err(KernelError::NoOutputs);
    }
    let Some(weights) = weights else { return Ok(()) };
    let expected = n_tasks.checked_mul(n_outputs).ok_or(KernelError::TooLarge { what: "weights" })?;
    if weights.len() != expected {
        return Err(KernelError::WeightCount { expected, found: weights.len() });
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(at) => Err(KernelError::WeightNotFinite { column: at / n_outputs, output: at % n_outputs }),
        None => Ok(()),
    }
}

impl Work {
    /// Format of this work's rows in one segment (the Gram's are f64 sums, not rows).
    pub fn row_dtype(&self, layout: &ChunkLayout, segment: usize) -> Dtype {
        match self {
            Work::Gram => Dtype::F64,
            Work::Project(project) => project.dtype,
            Work::Reconstruct(reconstruct) => reconstruct.dtype.unwrap_or_else(|| layout.slice(segment, 0).dtype),
        }
    }

    /// Bytes of one output (one atom, one edited copy) of a chunk: its segments in order, tightly packed. 0 for a Gram.
    pub(crate) fn bytes_per_output(&self, layout: &ChunkLayout) -> Result<usize, KernelError> {
        if *self == Work::Gram {
            return Ok(0);
        }
        let mut n_bytes = 0usize;
        for (at, segment) in layout.segments.iter().enumerate() {
            let more = segment.n_rows.checked_mul(self.row_dtype(layout, at).size());
            n_bytes =
                more.and_then(|more| n_bytes.checked_add(more)).ok_or(KernelError::TooLarge { what: "output rows" })?;
        }
        Ok(n_bytes)
    }
}

/// The slot of each group of consecutive segments with the same slot, and each segment's group.
pub(crate) fn gram_groups(layout: &ChunkLayout) -> (Vec<usize>, Vec<usize>) {
    let mut slots = Vec::new();
    let mut group_of_segment = Vec::with_capacity(layout.segments.len());
    for segment in &layout.segments {
        if slots.last() != Some(&segment.slot) {
            slots.push(segment.slot);
        }
        group_of_segment.push(slots.len() - 1);
    }
    (slots, group_of_segment)
}

/// Makes `values` `n_groups` zeroed lower triangles of order `n_tasks`, keeping its memory.
pub(crate) fn clear_triangles(values: &mut Vec<f64>, n_groups: usize, n_tasks: usize) -> Result<(), KernelError> {
    let n_values = n_groups.checked_mul(triangle_len(n_tasks)).ok_or(KernelError::TooLarge { what: "Gram part" })?;
    values.clear();
    values.try_reserve_exact(n_values).map_err(|_| KernelError::TooLarge { what: "Gram part" })?;
    values.resize(n_values, 0.0);
    Ok(())
}

/// Makes `rows` `n_bytes` long, keeping its memory; the contents are about to be overwritten.
pub(crate) fn size_rows(rows: &mut Vec<u8>, n_bytes: usize) -> Result<(), KernelError> {
    let more = n_bytes.saturating_sub(rows.len());
    rows.try_reserve_exact(more).map_err(|_| KernelError::TooLarge { what: "output rows" })?;
    rows.resize(n_bytes, 0);
    Ok(())
}
