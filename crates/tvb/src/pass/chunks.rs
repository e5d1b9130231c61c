//! The grid: which rows are read together.
//!
//! A *block* is at most [`BLOCK_ROWS`] rows of one tensor; a *chunk* is one or more whole blocks, read and worked on
//! together. Blocks depend on the tensors alone. How blocks are grouped into chunks is a matter of speed and memory: no
//! result depends on it, since digests are taken by block and sums are folded within [spans](crate::pass::Span) of blocks.
//!
//! Nothing is held for each block or chunk, of which there may be millions: blocks are numbered through all tensors, and
//! chunks of the same number of blocks, one after another, are one [`Run`]. A tensor adds two runs at most.

use super::block::Block;
use super::spans::SPAN_ROWS;
use crate::digest::BLOCK_ROWS;
use std::ops::Range;
use std::sync::Arc;

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

/// Every block of a plan, or of a part of it, and how they are grouped into chunks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Grid {
    tensors: Arc<Tensors>,
    runs: Vec<Run>,
    /// The number after that of the last block.
    end: usize,
    n_chunks: usize,
    chunk_size: ChunkSize,
}

/// Chunks one after another that hold the same number of blocks; the last one of a run may hold fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Number of its first chunk.
    first_chunk: usize,
    /// Number of the first block of that chunk.
    first_block: usize,
    /// Blocks of each chunk.
    n_blocks: usize,
}

/// The blocks of all tensors, numbered in order.
#[derive(Debug)]
struct Tensors {
    n_rows: Vec<usize>,
    /// \[n_tensors + 1\]: number of the first block of each tensor, and of all blocks.
    first_blocks: Vec<usize>,
    /// \[n_tensors + 1\]: rows of the tensors before each, and of all.
    first_rows: Vec<usize>,
}

impl Tensors {
    fn new(tensor_rows: impl IntoIterator<Item = usize>) -> Tensors {
        let n_rows: Vec<usize> = tensor_rows.into_iter().collect();
        let (mut first_blocks, mut first_rows) = (vec![0], vec![0]);
        let (mut n_blocks, mut n_rows_before) = (0, 0);
        for &n_rows in &n_rows {
            n_blocks += n_rows.div_ceil(BLOCK_ROWS);
            n_rows_before += n_rows;
            first_blocks.push(n_blocks);
            first_rows.push(n_rows_before);
        }
        Tensors { n_rows, first_blocks, first_rows }
    }

    fn n_blocks(&self) -> usize {
        self.first_blocks[self.n_rows.len()]
    }

    /// The tensor that block `number` lies in: the last one that begins there or before, which is never an empty one.
    fn tensor_of(&self, number: usize) -> usize {
        self.first_blocks.partition_point(|&first| first <= number) - 1
    }

    fn block(&self, tensor: usize, number: usize) -> Block {
        let first_row = (number - self.first_blocks[tensor]) * BLOCK_ROWS;
        Block { tensor, first_row, n_rows: BLOCK_ROWS.min(self.n_rows[tensor] - first_row) }
    }

    /// The blocks with these numbers.
    fn blocks(&self, numbers: Range<usize>) -> Vec<Block> {
        let mut tensor = if numbers.is_empty() { 0 } else { self.tensor_of(numbers.start) };
        let block = |number| {
            while self.first_blocks[tensor + 1] <= number {
                tensor += 1;
            }
            self.block(tensor, number)
        };
        numbers.map(block).collect()
    }

    /// Rows of all blocks before block `number`.
    fn rows_before(&self, number: usize) -> usize {
        if number >= self.n_blocks() {
            return self.first_rows[self.n_rows.len()];
        }
        let tensor = self.tensor_of(number);
        self.first_rows[tensor] + (number - self.first_blocks[tensor]) * BLOCK_ROWS
    }
}

impl Grid {
    /// Cuts tensors of `tensor_rows` rows into blocks and packs consecutive blocks into chunks.
    pub fn new(tensor_rows: impl IntoIterator<Item = usize>, chunk_size: ChunkSize) -> Grid {
        let tensors = Arc::new(Tensors::new(tensor_rows));
        let all = 0..tensors.n_blocks();
        Grid::pack(tensors, all, chunk_size)
    }

    /// A chunk takes blocks until the next one would be too much.
    fn pack(tensors: Arc<Tensors>, numbers: Range<usize>, chunk_size: ChunkSize) -> Grid {
        let mut packing = Packing { first_block: numbers.start, ..Packing::default() };
        // Chunks of whole blocks hold this many.
        let n_whole = (chunk_size.n_rows / BLOCK_ROWS).min(chunk_size.n_blocks).max(1);
        let first_tensor = if numbers.is_empty() { tensors.n_rows.len() } else { tensors.tensor_of(numbers.start) };
        let mut number = numbers.start;
        for tensor in first_tensor..tensors.n_rows.len() {
            let end = tensors.first_blocks[tensor + 1].min(numbers.end);
            while number < end {
                let n_rows = tensors.block(tensor, number).n_rows;
                let left = tensors.n_rows[tensor] - (number - tensors.first_blocks[tensor]) * BLOCK_ROWS;
                let n_chunks = (left / BLOCK_ROWS).min(end - number) / n_whole;
                let is_full = packing.n_blocks > 0
                    && (packing.n_rows + n_rows > chunk_size.n_rows || packing.n_blocks >= chunk_size.n_blocks);
                if is_full {
                    packing.close(number);
                }
                if packing.n_blocks == 0 && n_chunks > 1 {
                    // All but the last, which may take something of the next tensor.
                    packing.runs.push(Run { first_chunk: packing.n_chunks, first_block: number, n_blocks: n_whole });
                    packing.n_chunks += n_chunks - 1;
                    number += (n_chunks - 1) * n_whole;
                    packing.first_block = number;
                    continue;
                }
                packing.n_rows += n_rows;
                packing.n_blocks += 1;
                number += 1;
            }
        }
        if packing.n_blocks > 0 {
            packing.close(number);
        }
        Grid { tensors, runs: packing.runs, end: numbers.end, n_chunks: packing.n_chunks, chunk_size }
    }

    /// The number of the first block.
    fn start(&self) -> usize {
        self.runs.first().map_or(self.end, |run| run.first_block)
    }

    /// Part `part` of `n_parts` of the same blocks, cut where spans end: about as many rows each. The parts, one after
    /// another, are the whole; some may be empty.
    #[must_use]
    pub fn part(&self, part: usize, n_parts: usize) -> Grid {
        let numbers = self.part_start(part, n_parts)..self.part_start(part + 1, n_parts);
        Grid::pack(Arc::clone(&self.tensors), numbers, self.chunk_size)
    }

    /// The first block of a part. A span belongs to the part in which its first row lies.
    fn part_start(&self, part: usize, n_parts: usize) -> usize {
        let tensors = &self.tensors;
        let first_row = tensors.rows_before(self.start());
        let n_rows = tensors.rows_before(self.end) - first_row;
        let row = first_row + (part as u128 * n_rows as u128).div_ceil(n_parts.max(1) as u128) as usize;
        // The first span that begins at this row or after it.
        let tensor = tensors.first_rows.partition_point(|&first| first <= row).saturating_sub(1);
        let Some(&n_own) = tensors.n_rows.get(tensor) else { return self.end };
        let span_row = (row - tensors.first_rows[tensor]).next_multiple_of(SPAN_ROWS).min(n_own);
        (tensors.first_blocks[tensor] + span_row.div_ceil(BLOCK_ROWS)).clamp(self.start(), self.end)
    }

    /// The same grid without its first `n_chunks` chunks, for a pass that resumes there.
    #[must_use]
    pub fn after(mut self, n_chunks: usize) -> Grid {
        let n_chunks = n_chunks.min(self.n_chunks);
        if n_chunks == self.n_chunks {
            return Grid { runs: Vec::new(), n_chunks: 0, ..self };
        }
        let at = self.run_of(n_chunks);
        self.runs.drain(..at);
        if let Some(first) = self.runs.first_mut() {
            first.first_block += (n_chunks - first.first_chunk) * first.n_blocks;
            first.first_chunk = n_chunks;
        }
        self.runs.iter_mut().for_each(|run| run.first_chunk -= n_chunks);
        self.n_chunks -= n_chunks;
        self
    }

    /// The same chunks without the blocks of the tensors that `keep` answers false for; the others are renumbered.
    #[must_use]
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Grid {
        let all = &self.tensors;
        let kept: Vec<bool> = (0..all.n_rows.len()).map(keep).collect();
        let own = || all.n_rows.iter().zip(&kept);
        let tensors = Tensors::new(own().filter(|(_, kept)| **kept).map(|(n_rows, _)| *n_rows));
        // For each tensor, the number of its first block among those that stay.
        let mut end = 0;
        let firsts: Vec<usize> = own()
            .map(|(n_rows, kept)| {
                end += if *kept { n_rows.div_ceil(BLOCK_ROWS) } else { 0 };
                end - if *kept { n_rows.div_ceil(BLOCK_ROWS) } else { 0 }
            })
            .collect();
        let renumbered = |number: usize| match all.tensor_of(number) {
            tensor if tensor >= kept.len() => end,
            tensor if kept[tensor] => firsts[tensor] + (number - all.first_blocks[tensor]),
            tensor => firsts[tensor],
        };
        let mut runs = Vec::with_capacity(self.runs.len());
        let mut n_chunks = 0;
        for (at, run) in self.runs.iter().enumerate() {
            let next = self.runs.get(at + 1);
            let n_own_chunks = next.map_or(self.n_chunks, |next| next.first_chunk) - run.first_chunk;
            let blocks = renumbered(run.first_block)..renumbered(next.map_or(self.end, |next| next.first_block));
            // Several chunks are of one tensor, which stays or goes; a single one may lose some of its blocks.
            if !blocks.is_empty() {
                let n_blocks = if n_own_chunks > 1 { run.n_blocks } else { blocks.len() };
                runs.push(Run { first_chunk: n_chunks, first_block: blocks.start, n_blocks });
                n_chunks += n_own_chunks;
            }
        }
        let end = renumbered(self.end);
        Grid { tensors: Arc::new(tensors), runs, end, n_chunks, chunk_size: self.chunk_size }
    }

    /// Blocks of the chunk with the most of them.
    pub fn most_blocks(&self) -> usize {
        self.runs.iter().map(|run| self.numbers(run.first_chunk).len()).max().unwrap_or(0)
    }

    /// Rows of the largest chunk.
    pub fn most_rows(&self) -> usize {
        // The first chunk of a run is its largest.
        let n_rows = |run: &Run| {
            let numbers = self.numbers(run.first_chunk);
            self.tensors.rows_before(numbers.end) - self.tensors.rows_before(numbers.start)
        };
        self.runs.iter().map(n_rows).max().unwrap_or(0)
    }

    /// Chunks among which are the largest of every tensor, whatever its rows are counted in: of each run the first.
    pub(super) fn largest_chunks(&self) -> impl Iterator<Item = Vec<Block>> {
        self.runs.iter().map(|run| self.blocks(run.first_chunk))
    }

    /// The rows of each tensor that its blocks hold, tensor by tensor; nothing of a tensor without any.
    pub fn tensor_rows(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let (start, end, all) = (self.start(), self.end, &self.tensors);
        let first = if start < end { all.tensor_of(start) } else { all.n_rows.len() };
        (first..all.n_rows.len())
            .map_while(move |tensor| {
                let own = all.first_blocks[tensor]..all.first_blocks[tensor + 1];
                let row = |number: usize| ((number - own.start) * BLOCK_ROWS).min(all.n_rows[tensor]);
                (own.start < end).then(|| (tensor, row(start.max(own.start))..row(end.min(own.end))))
            })
            .filter(|(_, rows)| !rows.is_empty())
    }

    /// Number of chunks.
    pub fn n_chunks(&self) -> usize {
        self.n_chunks
    }

    /// The blocks of chunk `chunk`; none where there is no such chunk.
    pub fn blocks(&self, chunk: usize) -> Vec<Block> {
        if chunk < self.n_chunks { self.tensors.blocks(self.numbers(chunk)) } else { Vec::new() }
    }

    /// The place in `runs` of the run that chunk `chunk` belongs to.
    fn run_of(&self, chunk: usize) -> usize {
        self.runs.partition_point(|run| run.first_chunk <= chunk).saturating_sub(1)
    }

    /// The numbers of a chunk's blocks.
    fn numbers(&self, chunk: usize) -> Range<usize> {
        let at = self.run_of(chunk);
        let Some(run) = self.runs.get(at) else { return self.end..self.end };
        let start = run.first_block + (chunk - run.first_chunk) * run.n_blocks;
        let run_end = self.runs.get(at + 1).map_or(self.end, |next| next.first_block);
        start..(start + run.n_blocks).min(run_end)
    }
}

/// Runs as they are packed, and the chunk that is open.
#[derive(Default)]
struct Packing {
    runs: Vec<Run>,
    n_chunks: usize,
    /// Of the open chunk.
    first_block: usize,
    n_blocks: usize,
    n_rows: usize,
}

impl Packing {
    /// Ends the open chunk before block `next`.
    fn close(&mut self, next: usize) {
        let Packing { first_block, n_blocks, n_chunks, .. } = *self;
        self.runs.push(Run { first_chunk: n_chunks, first_block, n_blocks });
        *self = Packing {
            runs: std::mem::take(&mut self.runs),
            n_chunks: n_chunks + 1,
            first_block: next,
            n_blocks: 0,
            n_rows: 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Span;
    use proptest::prelude::*;

    fn chunks(grid: &Grid) -> Vec<Vec<Block>> {
        (0..grid.n_chunks()).map(|chunk| grid.blocks(chunk)).collect()
    }

    /// Blocks one by one, each into the open chunk where it fits.
    fn packed_one_by_one(rows: &[usize], chunk_size: ChunkSize) -> Vec<Vec<Block>> {
        let mut chunks: Vec<Vec<Block>> = Vec::new();
        for (tensor, &n_rows) in rows.iter().enumerate() {
            for first_row in (0..n_rows).step_by(BLOCK_ROWS) {
                let block = Block { tensor, first_row, n_rows: BLOCK_ROWS.min(n_rows - first_row) };
                let fits = |open: &&mut Vec<Block>| {
                    open.iter().map(|block| block.n_rows).sum::<usize>() + block.n_rows <= chunk_size.n_rows
                        && open.len() < chunk_size.n_blocks
                };
                match chunks.last_mut().filter(fits) {
                    Some(open) => open.push(block),
                    None => chunks.push(vec![block]),
                }
            }
        }
        chunks
    }

    proptest! {
        #[test]
        fn grid_covers_every_row_once_and_in_order(
            rows in prop::collection::vec(prop_oneof![0usize..70_000, 0usize..20, 1_000_000usize..3_000_000], 0..8),
            rows_per_chunk in 1usize..100_000,
            n_blocks in 1usize..5,
            n_parts in 1usize..6,
        ) {
            let chunk_size = ChunkSize { n_rows: rows_per_chunk, n_blocks };
            let grid = Grid::new(rows.iter().copied(), chunk_size);
            let expected = packed_one_by_one(&rows, chunk_size);
            prop_assert_eq!(&chunks(&grid), &expected);
            let most = expected.iter().map(|blocks| blocks.iter().map(|block| block.n_rows).sum::<usize>()).max();
            prop_assert_eq!(grid.most_rows(), most.unwrap_or(0));
            prop_assert!(grid.blocks(grid.n_chunks()).is_empty());
            let n_chunks = grid.n_chunks();
            for first in [0, 1, 2, 3, 5, n_chunks / 2, n_chunks.saturating_sub(1), n_chunks] {
                let rest = grid.clone().after(first);
                prop_assert_eq!(chunks(&rest), &expected[first.min(n_chunks)..]);
            }
            // Every second tensor left out: the same chunks without its blocks, no chunk empty.
            let some = chunks(&grid.only(|tensor| tensor % 2 == 0));
            let kept = |blocks: &Vec<Block>| -> Vec<Block> {
                let own = blocks.iter().filter(|block| block.tensor % 2 == 0);
                own.map(|block| Block { tensor: block.tensor / 2, ..*block }).collect()
            };
            let others: Vec<Vec<Block>> = expected.iter().map(kept).filter(|blocks| !blocks.is_empty()).collect();
            prop_assert_eq!(&some, &others);
            let resumed = chunks(&grid.only(|tensor| tensor % 2 == 0).after(2));
            prop_assert_eq!(&resumed[..], others.get(2..).unwrap_or_default());
            // The parts are the whole, about as many rows each, and no span lies in two of them.
            let parts: Vec<Vec<Block>> =
                (0..n_parts).map(|part| chunks(&grid.part(part, n_parts)).into_iter().flatten().collect()).collect();
            let all: Vec<Block> = expected.into_iter().flatten().collect();
            prop_assert_eq!(&parts.concat(), &all);
            let n_rows: usize = rows.iter().sum();
            for part in &parts {
                let n_own: usize = part.iter().map(|block| block.n_rows).sum();
                prop_assert!(n_own <= n_rows / n_parts + SPAN_ROWS + 1);
            }
            for pair in parts.windows(2) {
                if let (Some(last), Some(first)) = (pair[0].last(), pair[1].first()) {
                    prop_assert_ne!(Span::of(last), Span::of(first));
                }
            }
        }
    }

    #[test]
    fn a_grid_takes_no_memory_for_its_chunks() {
        // 70 billion parameters in one tensor, then in four hundred, with small ones between them.
        let many = (0..400).flat_map(|_| [175_000_000, 5_120, 1]);
        let cases: [Vec<usize>; 2] = [vec![70_000_000_000], many.collect()];
        for rows in cases {
            for chunk_size in [ChunkSize::ONE_BLOCK, ChunkSize { n_rows: 5 * BLOCK_ROWS, n_blocks: 64 }] {
                let n_rows: usize = rows.iter().sum();
                let grid = Grid::new(rows.iter().copied(), chunk_size);
                assert!(grid.n_chunks() > 800_000 && grid.runs.len() <= 3 * rows.len(), "{} runs", grid.runs.len());
                let last = grid.blocks(grid.n_chunks() - 1);
                let end = last.last().expect("blocks");
                assert_eq!((end.tensor, end.first_row + end.n_rows), (rows.len() - 1, rows[rows.len() - 1]));
                let rest = grid.clone().after(grid.n_chunks() - 1);
                assert_eq!(rest.blocks(0), last);
                let half = grid.part(1, 2);
                let n_half = half.tensors.rows_before(half.end) - half.tensors.rows_before(half.start());
                assert!(n_half.abs_diff(n_rows / 2) <= SPAN_ROWS && half.runs.len() <= 3 * rows.len());
            }
        }
    }
}
