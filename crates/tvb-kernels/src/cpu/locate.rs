//! Finds the value behind a non-finite Gram, for an error message that names it.

use super::block::{Block, row_ranges};
use crate::check::check_slices;
use crate::chunk::{Chunk, Columns};

/// The first delta of a chunk that is not finite, as (segment, row within the segment, column).
///
/// The column is 0 where θ0 itself is not finite (as f32), else that of the task whose difference from it is not. Segments
/// are searched in order, then rows, then columns. `None` where every delta is finite, or where the layout does not fit.
pub fn locate_non_finite(chunk: Chunk<'_>) -> Option<(usize, usize, usize)> {
    check_slices(chunk.layout).ok()?;
    if chunk.bytes.len() < chunk.layout.n_bytes {
        return None;
    }
    let mut block = Block::default();
    for (at, segment) in chunk.layout.segments.iter().enumerate() {
        for range in row_ranges(at, segment.n_rows, 256) {
            let found = block.decode(chunk, range, Columns::Checkpoints);
            let columns = found.columns.chunks_exact(found.stride);
            let first_bad = std::iter::once(found.base)
                .chain(columns)
                .enumerate()
                .filter_map(|(column, rows)| {
                    Some((rows[..range.n_rows].iter().position(|value| !value.is_finite())?, column))
                })
                .min();
            if let Some((row, column)) = first_bad {
                return Some((at, range.start + row, column));
            }
        }
    }
    None
}
