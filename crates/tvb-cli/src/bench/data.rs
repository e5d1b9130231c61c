//! Data that lies in memory before a measurement: chunks of equal shape, one after another.

use super::values::Values;
use tvb::digest::BLOCK_ROWS;
use tvb_kernels::{Chunk, ChunkLayout, Code, CodeSlice, Codes, Segment, Slice, n_blocks};

/// Rows come in multiples of this, so that every slice lies on a cache line in every format.
const ROW_MULTIPLE: usize = 64;

/// How data is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// As the stream cuts it for the CPU engine: [`BLOCK_ROWS`] rows at a time.
    Blocks,
    /// One chunk, which lies in a device's memory as a whole.
    Whole,
}

/// Chunks of equal shape.
#[derive(Debug)]
pub(super) struct Data {
    /// What they hold.
    pub(super) values: Values,
    /// Rows of all chunks together.
    pub(super) n_rows: usize,
    layout: ChunkLayout,
    bytes: Vec<u8>,
}

impl Data {
    /// About `n_bytes` of a base and `n_tasks` columns, filled by `n_threads` threads.
    pub(super) fn new(values: Values, n_tasks: usize, n_bytes: u64, cut: Cut, n_threads: usize) -> Data {
        let (n_columns, size) = (n_tasks + 1, values.dtype.size());
        let most_rows = usize::try_from(n_bytes).unwrap_or(usize::MAX) / (n_columns * size);
        let (n_chunks, chunk_rows) = match cut {
            Cut::Blocks if most_rows > BLOCK_ROWS => (most_rows / BLOCK_ROWS, BLOCK_ROWS),
            Cut::Blocks | Cut::Whole => (1, (most_rows / ROW_MULTIPLE).max(1) * ROW_MULTIPLE),
        };
        let column_bytes = chunk_rows * size;
        let layout = ChunkLayout {
            n_columns,
            segments: vec![Segment::new(chunk_rows)],
            slices: (0..n_columns).map(|at| Slice::new(at * column_bytes, values.dtype)).collect(),
            n_bytes: n_columns * column_bytes,
            ..ChunkLayout::default()
        };
        let mut bytes = vec![0; n_chunks * layout.n_bytes];
        let columns: Vec<&mut [u8]> = bytes.chunks_exact_mut(column_bytes).collect();
        super::threads::for_each(n_threads, columns, |at, out| {
            values.store(at % n_columns, at / n_columns * chunk_rows, out);
        });
        Data { values, n_rows: n_chunks * chunk_rows, layout, bytes }
    }

    /// The base and, in place of the other columns, what was coded of each chunk.
    pub(super) fn coded(&self, code: &Code, codes: &[Codes]) -> Data {
        let chunk_rows = self.chunk_rows();
        let base_bytes = chunk_rows * self.values.dtype.size();
        let n_blocks = n_blocks(chunk_rows);
        let n_tasks = self.layout.n_tasks();
        let words_of = |rate: tvb_kernels::Rate| 4 * rate.words() * n_blocks;
        let (own, shared) = (words_of(code.rate), words_of(code.kept_rate));
        let scales = base_bytes + n_tasks * own + code.n_kept * shared;
        let slice = |column: usize| CodeSlice {
            words: base_bytes + column.min(n_tasks) * own + column.saturating_sub(n_tasks) * shared,
            scales: scales + column * 2 * n_blocks,
        };
        let layout = ChunkLayout {
            n_columns: 1,
            segments: self.layout.segments.clone(),
            slices: vec![Slice::new(0, self.values.dtype)],
            codes: (0..n_tasks + code.n_kept).map(slice).collect(),
            factors: Vec::new(),
            n_bytes: scales + (n_tasks + code.n_kept) * 2 * n_blocks,
        };
        let mut bytes = Vec::with_capacity(codes.len() * layout.n_bytes);
        for (chunk, codes) in self.chunks().zip(codes) {
            bytes.extend(&chunk.bytes[..base_bytes]);
            bytes.extend(codes.words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(codes.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        }
        Data { values: self.values, n_rows: self.n_rows, layout, bytes }
    }

    /// Every chunk, in row order.
    pub(super) fn chunks(&self) -> impl ExactSizeIterator<Item = Chunk<'_>> {
        self.bytes.chunks_exact(self.layout.n_bytes).map(|bytes| Chunk { layout: &self.layout, bytes })
    }

    /// Rows of one chunk.
    pub(super) fn chunk_rows(&self) -> usize {
        self.layout.n_rows()
    }

    /// Bytes of all columns.
    pub(super) fn n_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
