//! The stream's grid: which rows are read together, and the reading of one chunk of every column.
//!
//! A *block* is at most [`BLOCK_ROWS`] rows of one tensor; a *chunk* is one or more whole blocks. The grid depends on the
//! plan and a row count alone, never on threads or memory, so that sums folded in chunk order repeat bit for bit.
//! Where the files share one layout, the blocks of a chunk lie one behind the other and are fetched by one long read.

use crate::checkpoint::Place;
use crate::columns::plan::Plan;
use crate::digest::{BLOCK_ROWS, Digest};
use crate::error::Result;
use crate::pass::kept::{BlockKey, KeptBlock};
use tvb_kernels::{Chunk, ChunkLayout, Segment, Slice};

/// A run of rows of one planned tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Index into [`Plan::tensors`].
    pub tensor: usize,
    /// First row (element) inside the tensor; a multiple of [`BLOCK_ROWS`].
    pub first_row: usize,
    /// Number of rows, at most [`BLOCK_ROWS`].
    pub n_rows: usize,
}

impl Block {
    /// Which block of its tensor it is.
    pub fn index(&self) -> usize {
        self.first_row / BLOCK_ROWS
    }

    /// What it is kept under.
    pub(crate) fn key(&self, plan: &Plan) -> BlockKey {
        (plan.tensors[self.tensor].columns[0], self.first_row)
    }
}

/// Every block of a plan, and how they are grouped into chunks.
#[derive(Clone, Debug)]
pub struct Grid {
    blocks: Vec<Block>,
    /// Chunk c holds blocks `ends[c-1]..ends[c]`.
    ends: Vec<usize>,
}

impl Grid {
    /// Cuts the tensors into blocks and packs consecutive blocks into chunks of at most `rows_per_chunk` rows (at least
    /// one block each).
    pub fn new(tensor_rows: impl IntoIterator<Item = usize>, rows_per_chunk: usize) -> Grid {
        let mut blocks = Vec::new();
        for (tensor, n_rows) in tensor_rows.into_iter().enumerate() {
            for first_row in (0..n_rows).step_by(BLOCK_ROWS) {
                blocks.push(Block { tensor, first_row, n_rows: BLOCK_ROWS.min(n_rows - first_row) });
            }
        }
        let mut ends = Vec::new();
        let mut rows_in_chunk = 0;
        for (index, block) in blocks.iter().enumerate() {
            if rows_in_chunk > 0 && rows_in_chunk + block.n_rows > rows_per_chunk {
                ends.push(index);
                rows_in_chunk = 0;
            }
            rows_in_chunk += block.n_rows;
        }
        if rows_in_chunk > 0 {
            ends.push(blocks.len());
        }
        Grid { blocks, ends }
    }

    /// The same grid without its first `n_chunks` chunks, for a pass that is taken up there.
    #[must_use]
    pub fn after(mut self, n_chunks: usize) -> Grid {
        let n_chunks = n_chunks.min(self.ends.len());
        let n_blocks = if n_chunks == 0 { 0 } else { self.ends[n_chunks - 1] };
        self.blocks.drain(..n_blocks);
        self.ends.drain(..n_chunks);
        self.ends.iter_mut().for_each(|end| *end -= n_blocks);
        self
    }

    /// The same chunks without the blocks of the tensors that `keep` answers false for; the others are renumbered.
    #[must_use]
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Grid {
        let mut only = Grid { blocks: Vec::new(), ends: Vec::new() };
        // Tensors come in order: the number of the one at hand among those that stay.
        let (mut n_kept, mut next) = (0, 0);
        for chunk in 0..self.n_chunks() {
            for block in self.blocks(chunk) {
                while next <= block.tensor {
                    n_kept += usize::from(keep(next));
                    next += 1;
                }
                if keep(block.tensor) {
                    only.blocks.push(Block { tensor: n_kept - 1, ..*block });
                }
            }
            if only.blocks.len() > only.ends.last().copied().unwrap_or(0) {
                only.ends.push(only.blocks.len());
            }
        }
        only
    }

    /// Number of chunks.
    pub fn n_chunks(&self) -> usize {
        self.ends.len()
    }

    /// The blocks of chunk `chunk`.
    pub fn blocks(&self, chunk: usize) -> &[Block] {
        let first = if chunk == 0 { 0 } else { self.ends[chunk - 1] };
        &self.blocks[first..self.ends[chunk]]
    }
}

/// Reads chunks, one after another, into one reused buffer.
#[derive(Debug, Default)]
pub struct ChunkReader {
    buffer: Vec<u8>,
    layout: ChunkLayout,
    /// [n_blocks, n_columns]
    digests: Vec<Digest>,
    extents: Vec<Extent>,
}

/// Bytes fetched by one read.
#[derive(Clone, Copy, Debug)]
struct Extent {
    column: usize,
    block: usize,
    start: usize,
    n_bytes: usize,
    /// For contiguous tensors, the file and where in it; otherwise the tensor is asked for its rows.
    file: Option<(usize, u64)>,
}

/// Slices start at multiples of this unless they continue a longer read; it covers every element size.
const ALIGNMENT: usize = 16;

impl ChunkReader {
    /// Fetches `blocks` of every column. `slot_of` gives the Gram slot of a planned tensor.
    pub fn read(&mut self, plan: &Plan, blocks: &[Block], slot_of: impl Fn(usize) -> usize) -> Result<()> {
        self.lay_out(plan, blocks, slot_of);
        if self.buffer.len() < self.layout.n_bytes {
            self.buffer.resize(self.layout.n_bytes, 0);
        }
        if self.take_kept(plan, blocks) {
            return Ok(());
        }
        for extent in &self.extents {
            let out = &mut self.buffer[extent.start..extent.start + extent.n_bytes];
            let checkpoint = plan.column_checkpoint(extent.column);
            let read = match extent.file {
                Some((file, offset)) => checkpoint.files()[file].read_at(offset, out),
                None => {
                    let block = blocks[extent.block];
                    let tensor = plan.column_tensor(&plan.tensors[block.tensor], extent.column);
                    checkpoint.read(tensor, (block.first_row * tensor.dtype.size()) as u64, out)
                }
            };
            read.map_err(|error| {
                let tensor = &plan.tensors[blocks[extent.block].tensor].name;
                error.context(format!("{}, tensor {tensor}", plan.column_name(extent.column)))
            })?;
        }
        plan.count_read(self.extents.iter().map(|extent| extent.n_bytes as u64).sum());
        self.take_digests(blocks);
        self.keep(plan, blocks);
        Ok(())
    }

    /// Copies the blocks from where an earlier pass has kept all of them; false where it has not.
    fn take_kept(&mut self, plan: &Plan, blocks: &[Block]) -> bool {
        let keys = blocks.iter().map(|block| block.key(plan));
        let Some(found) = plan.kept().and_then(|kept| kept.find(keys)) else { return false };
        let n_columns = self.layout.n_columns;
        self.digests.clear();
        for (index, kept) in found.iter().enumerate() {
            let mut rest = kept.bytes.as_slice();
            for slice in &self.layout.slices[index * n_columns..(index + 1) * n_columns] {
                let (column, others) = rest.split_at(blocks[index].n_rows * slice.dtype.size());
                self.buffer[slice.offset..slice.offset + column.len()].copy_from_slice(column);
                rest = others;
            }
            self.digests.extend_from_slice(&kept.digests);
        }
        true
    }

    /// Keeps what was read, where the plan says so.
    fn keep(&self, plan: &Plan, blocks: &[Block]) {
        let Some(kept) = plan.kept() else { return };
        let n_columns = self.layout.n_columns;
        for (index, block) in blocks.iter().enumerate() {
            let slices = &self.layout.slices[index * n_columns..(index + 1) * n_columns];
            let column = |slice: &Slice| &self.buffer[slice.offset..slice.offset + block.n_rows * slice.dtype.size()];
            let n_bytes = slices.iter().map(|slice| column(slice).len()).sum();
            let mut bytes = Vec::with_capacity(n_bytes);
            slices.iter().for_each(|slice| bytes.extend_from_slice(column(slice)));
            let digests = self.digests[index * n_columns..(index + 1) * n_columns].to_vec();
            kept.keep(block.key(plan), KeptBlock { bytes, digests });
        }
    }

    /// Decides where in the buffer each slice goes, and which reads fetch them.
    fn lay_out(&mut self, plan: &Plan, blocks: &[Block], slot_of: impl Fn(usize) -> usize) {
        let n_columns = plan.n_columns();
        let layout = &mut self.layout;
        layout.n_columns = n_columns;
        layout.segments.clear();
        layout
            .segments
            .extend(blocks.iter().map(|block| Segment { n_rows: block.n_rows, slot: slot_of(block.tensor) }));
        layout.slices.clear();
        layout.slices.resize(blocks.len() * n_columns, Slice { offset: 0, dtype: tvb_kernels::Dtype::F32 });
        self.extents.clear();
        let mut end: usize = 0;
        for column in 0..n_columns {
            let mut continues = false;
            for (index, block) in blocks.iter().enumerate() {
                let tensor = plan.column_tensor(&plan.tensors[block.tensor], column);
                let dtype = tensor.dtype.float().unwrap_or(tvb_kernels::Dtype::F32);
                let n_bytes = block.n_rows * dtype.size();
                let file = match &tensor.place {
                    Place::Contiguous { file, offset } => {
                        Some((*file, offset + (block.first_row * dtype.size()) as u64))
                    }
                    Place::Strided { .. } | Place::Held(_) => None,
                };
                if continues
                    && end.is_multiple_of(dtype.size().min(ALIGNMENT))
                    && let (Some(last), Some((file, offset))) = (self.extents.last_mut(), file)
                    && last.file.is_some_and(|(f, o)| f == file && o + last.n_bytes as u64 == offset)
                {
                    last.n_bytes += n_bytes;
                } else {
                    end = end.next_multiple_of(ALIGNMENT);
                    self.extents.push(Extent { column, block: index, start: end, n_bytes, file });
                }
                continues = file.is_some();
                layout.slices[index * n_columns + column] = Slice { offset: end, dtype };
                end += n_bytes;
            }
        }
        layout.n_bytes = end.next_multiple_of(ALIGNMENT);
    }

    fn take_digests(&mut self, blocks: &[Block]) {
        let n_columns = self.layout.n_columns;
        self.digests.clear();
        for (index, block) in blocks.iter().enumerate() {
            for slice in &self.layout.slices[index * n_columns..(index + 1) * n_columns] {
                let bytes = &self.buffer[slice.offset..slice.offset + block.n_rows * slice.dtype.size()];
                self.digests.push(Digest::of(bytes));
            }
        }
    }

    /// The chunk that was read last.
    pub fn chunk(&self) -> Chunk<'_> {
        Chunk { layout: &self.layout, bytes: &self.buffer[..self.layout.n_bytes] }
    }

    /// Its digests, [n_blocks, n_columns] row-major.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grid_covers_every_row_once_and_in_order(
            rows in prop::collection::vec(0usize..70_000, 0..8),
            rows_per_chunk in 1usize..100_000,
        ) {
            let grid = Grid::new(rows.iter().copied(), rows_per_chunk);
            let mut next = vec![0usize; rows.len()];
            let mut last_tensor = 0;
            for chunk in 0..grid.n_chunks() {
                let blocks = grid.blocks(chunk);
                prop_assert!(!blocks.is_empty());
                let n_rows: usize = blocks.iter().map(|block| block.n_rows).sum();
                prop_assert!(n_rows <= rows_per_chunk || blocks.len() == 1);
                for block in blocks {
                    prop_assert!(block.tensor >= last_tensor);
                    last_tensor = block.tensor;
                    prop_assert_eq!(block.first_row, next[block.tensor]);
                    prop_assert_eq!(block.first_row % BLOCK_ROWS, 0);
                    next[block.tensor] += block.n_rows;
                }
            }
            prop_assert_eq!(&next, &rows);
            for first in 0..=grid.n_chunks().min(5) {
                let rest = grid.clone().after(first);
                prop_assert_eq!(rest.n_chunks(), grid.n_chunks() - first);
                for chunk in 0..rest.n_chunks() {
                    prop_assert_eq!(rest.blocks(chunk), grid.blocks(first + chunk));
                }
            }
            // Every second tensor left out: the blocks of a grid over the others, no chunk empty.
            let some = grid.only(|tensor| tensor % 2 == 0);
            let others = Grid::new(rows.iter().copied().step_by(2), rows_per_chunk);
            prop_assert_eq!(&some.blocks, &others.blocks);
            prop_assert!((0..some.n_chunks()).all(|chunk| !some.blocks(chunk).is_empty()));
            prop_assert_eq!(some.ends.last(), others.ends.last());
        }
    }
}
