//! The grid: which rows are read together.
//!
//! A *block* is at most [`BLOCK_ROWS`] rows of one tensor; a *chunk* is one or more whole blocks, read and worked on
//! together. Blocks depend on the tensors alone. How blocks are grouped into chunks is a matter of speed and memory: no
//! result depends on it, since digests are taken by block and sums are folded within [spans](crate::pass::Span) of blocks.

use super::kept::BlockKey;
use super::spans::Span;
use crate::columns::plan::Plan;
use crate::digest::BLOCK_ROWS;

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

/// The most that one chunk may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize {
    /// Rows, of all its blocks together. A chunk always holds one block at least.
    pub n_rows: usize,
    /// Blocks: what an operation yields for each of them must be held until it is folded.
    pub n_blocks: usize,
}

impl ChunkSize {
    /// One block for each chunk, or a few small ones.
    pub const ONE_BLOCK: ChunkSize = ChunkSize { n_rows: BLOCK_ROWS, n_blocks: 1024 };
}

/// Every block of a plan, or of a part of it, and how they are grouped into chunks.
#[derive(Clone, Debug)]
pub struct Grid {
    blocks: Vec<Block>,
    /// Chunk c holds blocks `ends[c-1]..ends[c]`.
    ends: Vec<usize>,
    chunk_size: ChunkSize,
}

impl Grid {
    /// Cuts tensors of `tensor_rows` rows into blocks and packs consecutive blocks into chunks.
    pub fn new(tensor_rows: impl IntoIterator<Item = usize>, chunk_size: ChunkSize) -> Grid {
        let mut blocks = Vec::new();
        for (tensor, n_rows) in tensor_rows.into_iter().enumerate() {
            for first_row in (0..n_rows).step_by(BLOCK_ROWS) {
                blocks.push(Block { tensor, first_row, n_rows: BLOCK_ROWS.min(n_rows - first_row) });
            }
        }
        Grid::pack(blocks, chunk_size)
    }

    fn pack(blocks: Vec<Block>, chunk_size: ChunkSize) -> Grid {
        let mut ends = Vec::new();
        let (mut n_rows, mut n_blocks) = (0, 0);
        for (index, block) in blocks.iter().enumerate() {
            if n_blocks > 0 && (n_rows + block.n_rows > chunk_size.n_rows || n_blocks >= chunk_size.n_blocks) {
                ends.push(index);
                (n_rows, n_blocks) = (0, 0);
            }
            n_rows += block.n_rows;
            n_blocks += 1;
        }
        if n_blocks > 0 {
            ends.push(blocks.len());
        }
        Grid { blocks, ends, chunk_size }
    }

    /// Part `part` of `n_parts` of the same blocks, cut where spans end: about as many rows each. The parts, one after
    /// another, are the whole; some may be empty.
    #[must_use]
    pub fn part(&self, part: usize, n_parts: usize) -> Grid {
        let n_rows: usize = self.blocks.iter().map(|block| block.n_rows).sum();
        // A span belongs to the part in which its first row lies.
        let (mut rows_before, mut owner, mut last) = (0, 0, None);
        let mut blocks = Vec::new();
        for block in &self.blocks {
            if last != Some(Span::of(block)) {
                last = Some(Span::of(block));
                owner = (rows_before as u128 * n_parts as u128 / n_rows.max(1) as u128) as usize;
            }
            if owner == part {
                blocks.push(*block);
            }
            rows_before += block.n_rows;
        }
        Grid::pack(blocks, self.chunk_size)
    }

    /// The same grid without its first `n_chunks` chunks, for a pass that resumes there.
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
        let mut only = Grid { blocks: Vec::new(), ends: Vec::new(), chunk_size: self.chunk_size };
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

    /// Rows of the largest chunk.
    pub fn most_rows(&self) -> usize {
        let rows = |chunk| self.blocks(chunk).iter().map(|block: &Block| block.n_rows).sum();
        (0..self.n_chunks()).map(rows).max().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grid_covers_every_row_once_and_in_order(
            rows in prop::collection::vec(0usize..70_000, 0..8),
            rows_per_chunk in 1usize..100_000,
            n_blocks in 1usize..5,
            n_parts in 1usize..6,
        ) {
            let chunk_size = ChunkSize { n_rows: rows_per_chunk, n_blocks };
            let grid = Grid::new(rows.iter().copied(), chunk_size);
            let mut next = vec![0usize; rows.len()];
            let mut last_tensor = 0;
            for chunk in 0..grid.n_chunks() {
                let blocks = grid.blocks(chunk);
                prop_assert!(!blocks.is_empty());
                let n_rows: usize = blocks.iter().map(|block| block.n_rows).sum();
                prop_assert!(n_rows <= rows_per_chunk && blocks.len() <= n_blocks || blocks.len() == 1);
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
            let others = Grid::new(rows.iter().copied().step_by(2), chunk_size);
            prop_assert_eq!(&some.blocks, &others.blocks);
            prop_assert!((0..some.n_chunks()).all(|chunk| !some.blocks(chunk).is_empty()));
            prop_assert_eq!(some.ends.last(), others.ends.last());
            // The parts are the whole, and no span lies in two of them.
            let parts: Vec<Grid> = (0..n_parts).map(|part| grid.part(part, n_parts)).collect();
            let joined: Vec<Block> = parts.iter().flat_map(|part| part.blocks.iter().copied()).collect();
            prop_assert_eq!(&joined, &grid.blocks);
            for pair in parts.windows(2) {
                if let (Some(last), Some(first)) = (pair[0].blocks.last(), pair[1].blocks.first()) {
                    prop_assert_ne!(Span::of(last), Span::of(first));
                }
            }
        }
    }
}
