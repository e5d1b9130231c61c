//! A block: a few hundred rows of every column, decoded, with the base taken off, small enough to stay in the cache.
//!
//! ```text
//! [column 1: rows … zeros to a multiple of 64][gap][column 2: …][gap] …      stride = rows + gap
//! ```
//! Rows beyond the last are zeros, so that kernels run over whole vectors and their sums do not change. Columns start on
//! cache lines; the gap keeps columns off each other's cache sets, which they would share at a stride of a power of two.

use super::floats::Floats;
use super::low_rank::form_rows;
use super::rows::{widen, widen_f64, widen_f64_less_base, widen_less_base};
use crate::chunk::{Chunk, Columns};

/// Rows of a block come in multiples of this; a multiple of every vector length times every unrolling below.
pub(super) const ROW_MULTIPLE: usize = 64;
/// Floats between one column's rows and the next one's.
const GAP: usize = 16;

/// Which rows of a chunk a block holds.
#[derive(Clone, Copy)]
pub(super) struct RowRange {
    /// The segment.
    pub(super) segment: usize,
    /// First row within it.
    pub(super) start: usize,
    /// Number of rows.
    pub(super) n_rows: usize,
}

impl RowRange {
    /// Bytes of one column's rows.
    #[inline(always)]
    fn bytes<'a>(self, chunk: Chunk<'a>, column: usize) -> &'a [u8] {
        let slice = chunk.layout.slice(self.segment, column);
        let size = slice.dtype.size();
        &chunk.bytes[slice.offset + self.start * size..][..self.n_rows * size]
    }
}

/// The block's memory, reused from one block to the next.
#[derive(Default)]
pub(super) struct Block {
    base: Floats,
    columns: Floats,
    base_f64: Vec<f64>,
    columns_f64: Vec<f64>,
    /// Factors as floats, and rows formed from them.
    factors: Floats,
    formed: Floats,
}

/// A decoded block.
#[derive(Clone, Copy)]
pub(super) struct Decoded<'a> {
    /// θ0, padded like the columns.
    pub(super) base: &'a [f32],
    /// The columns, `stride` apart, padded with zeros to `n_padded` rows.
    pub(super) columns: &'a [f32],
    /// Floats from one column's first row to the next one's.
    pub(super) stride: usize,
    /// Rows with their padding: a multiple of [`ROW_MULTIPLE`].
    pub(super) n_padded: usize,
}

/// A decoded block whose columns may be changed.
pub(super) struct DecodedMut<'a> {
    pub(super) base: &'a [f32],
    pub(super) columns: &'a mut [f32],
    pub(super) stride: usize,
}

/// A block decoded to f64, without padding: column c's rows start at c · n_rows.
#[derive(Clone, Copy)]
pub(super) struct DecodedF64<'a> {
    pub(super) base: &'a [f64],
    pub(super) columns: &'a [f64],
}

impl Block {
    /// Decodes `range` of every column to f32; `Checkpoints` become deltas.
    #[inline(always)]
    pub(super) fn decode(&mut self, chunk: Chunk<'_>, range: RowRange, kind: Columns) -> Decoded<'_> {
        let n_tasks = chunk.layout.n_tasks();
        let n_rows = range.n_rows;
        let n_padded = n_rows.next_multiple_of(ROW_MULTIPLE);
        let stride = n_padded + GAP;
        let base = self.base.at_least(n_padded);
        widen(range.bytes(chunk, 0), chunk.layout.slice(range.segment, 0).dtype, &mut base[..n_rows]);
        base[n_rows..].fill(0.0);
        let columns = self.columns.at_least(n_tasks * stride);
        for (at, rows) in columns.chunks_exact_mut(stride).enumerate() {
            let (rows, padding) = rows[..n_padded].split_at_mut(n_rows);
            padding.fill(0.0);
            if let Some(factors) = chunk.layout.factors_of(range.segment, at + 1) {
                form_rows(chunk, factors, range.start, &mut self.factors, rows);
                continue;
            }
            let (bytes, slice) = (range.bytes(chunk, at + 1), chunk.layout.slice(range.segment, at + 1));
            match kind {
                Columns::Checkpoints if !slice.is_delta => widen_less_base(bytes, slice.dtype, base, rows),
                Columns::Checkpoints | Columns::Deltas => widen(bytes, slice.dtype, rows),
            }
        }
        Decoded { base, columns, stride, n_padded }
    }

    /// The same, with columns that may be changed.
    #[inline(always)]
    pub(super) fn decode_mut(&mut self, chunk: Chunk<'_>, range: RowRange, kind: Columns) -> DecodedMut<'_> {
        let Decoded { stride, n_padded, .. } = self.decode(chunk, range, kind);
        let base = &*self.base.at_least(n_padded);
        let columns = self.columns.at_least(chunk.layout.n_tasks() * stride);
        DecodedMut { base, columns, stride }
    }

    /// Decodes `range` of every column to f64; `Checkpoints` become deltas, formed in f64.
    #[inline(always)]
    pub(super) fn decode_f64(&mut self, chunk: Chunk<'_>, range: RowRange, kind: Columns) -> DecodedF64<'_> {
        let (n_tasks, n_rows) = (chunk.layout.n_tasks(), range.n_rows);
        self.base_f64.resize(n_rows, 0.0);
        self.columns_f64.resize(n_tasks * n_rows, 0.0);
        let (base, columns) = (&mut self.base_f64, &mut self.columns_f64);
        widen_f64(range.bytes(chunk, 0), chunk.layout.slice(range.segment, 0).dtype, base);
        for (at, rows) in columns.chunks_exact_mut(n_rows).enumerate() {
            if let Some(factors) = chunk.layout.factors_of(range.segment, at + 1) {
                let formed = self.formed.at_least(n_rows);
                form_rows(chunk, factors, range.start, &mut self.factors, formed);
                rows.iter_mut().zip(formed).for_each(|(row, formed)| *row = f64::from(*formed));
                continue;
            }
            let (bytes, slice) = (range.bytes(chunk, at + 1), chunk.layout.slice(range.segment, at + 1));
            match kind {
                Columns::Checkpoints if !slice.is_delta => widen_f64_less_base(bytes, slice.dtype, base, rows),
                Columns::Checkpoints | Columns::Deltas => widen_f64(bytes, slice.dtype, rows),
            }
        }
        DecodedF64 { base, columns }
    }
}

/// The blocks of one segment in row order, each of at most `most_rows` rows.
#[inline(always)]
pub(super) fn row_ranges(segment: usize, n_rows: usize, most_rows: usize) -> impl Iterator<Item = RowRange> {
    (0..n_rows).step_by(most_rows).map(move |start| RowRange { segment, start, n_rows: most_rows.min(n_rows - start) })
}
