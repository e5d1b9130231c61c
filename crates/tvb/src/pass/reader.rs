//! Reads one chunk of every column, and takes digests of what it read.
//!
//! Where the files share one layout, the blocks of a chunk lie one after another and are fetched by one long read.

use super::block::Block;
use super::kept::KeptBlock;
use super::op::ReadChunk;
use super::reads::Reads;
use crate::checkpoint::{LowRank, Place};
use crate::columns::coded::{CODES, block_bytes};
use crate::columns::plan::Plan;
use crate::digest::{Digest, of_factors, of_unmoved};
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use std::ops::Range;
use tvb_kernels::{Chunk, ChunkLayout, CodeSlice, FactorSlice, Place as Lies, Rate, Segment, Slice, n_blocks};

/// Reads chunks, one after another, into one reused buffer.
#[derive(Debug, Default)]
pub struct ChunkReader {
    pub(super) buffer: Vec<Line>,
    pub(super) layout: ChunkLayout,
    /// [n_blocks, n_digests]
    pub(super) digests: Vec<Digest>,
    pub(super) extents: Vec<Extent>,
    /// Whether rows of low rank are left to the engine, where their factors are smaller.
    leaves_factors: bool,
    /// Factors that go into the chunk.
    pub(super) factors: Vec<Held>,
    /// (entry of the layout's factors, which of these it is formed from).
    pub(super) formed_from: Vec<(usize, usize)>,
}

/// Factors that go into the chunk.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) factors: LowRank,
    /// Rows of the left factor.
    pub(super) rows: Range<usize>,
    /// Bytes from the chunk's start, of both.
    pub(super) left: usize,
    pub(super) right: usize,
}

/// Bytes of a cache line, beginning on one.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; ALIGNMENT]);

/// Bytes fetched by one read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Columns that are read as codes come after the others.
    pub(super) column: usize,
    pub(super) block: usize,
    pub(super) start: usize,
    pub(super) n_bytes: usize,
    /// For contiguous tensors, the file and where in it; otherwise the tensor is asked for its rows.
    pub(super) file: Option<(usize, u64)>,
}

/// Slices start at multiples of this unless they continue a longer read: a cache line, so that no vector lies across two.
const ALIGNMENT: usize = 64;

impl ChunkReader {
    /// A reader that puts factors into the chunk in place of the rows that they form, where they take less room: for a GPU, which
    /// forms them where it uses them. On the CPU rows are formed once for each chunk, which costs less than copying factors.
    pub fn leaving_factors() -> ChunkReader {
        ChunkReader { leaves_factors: true, ..ChunkReader::default() }
    }

    /// Fetches `blocks` of every column: from where an earlier pass has kept them, or out of the files.
    ///
    /// # Errors
    /// Failed: the system cannot read, with the column and the tensor.
    pub fn read(&mut self, plan: &Plan, reads: &Reads, blocks: &[Block]) -> Result<()> {
        self.plan_reads(plan, reads, blocks);
        self.fill(plan, reads, blocks)
    }

    /// Decides where everything goes and which reads fetch it.
    pub(super) fn plan_reads(&mut self, plan: &Plan, reads: &Reads, blocks: &[Block]) {
        // What is kept for the next pass is rows.
        self.choose_factors(plan, blocks, self.leaves_factors && reads.kept().is_none());
        self.lay_out(plan, blocks);
    }

    /// Fetches what was planned, all of it into the buffer.
    pub(super) fn fill(&mut self, plan: &Plan, reads: &Reads, blocks: &[Block]) -> Result<()> {
        room(&mut self.buffer, self.layout.n_bytes);
        if self.take_kept(plan, reads, blocks) {
            return Ok(());
        }
        for extent in &self.extents {
            let out = &mut bytemuck::cast_slice_mut(&mut self.buffer)[extent.start..extent.start + extent.n_bytes];
            extent.read(plan, blocks, 0, out)?;
        }
        self.put_factors();
        self.count(plan, reads, blocks);
        self.check_codes(plan, blocks)?;
        self.take_digests(plan, blocks);
        self.keep(plan, reads, blocks);
        Ok(())
    }

    /// Counts what the planned reads fetch.
    pub(super) fn count(&self, plan: &Plan, reads: &Reads, blocks: &[Block]) {
        // What is formed is not read.
        let is_read = |extent: &&Extent| {
            let tensor = || plan.column_tensor(&plan.tensors[blocks[extent.block].tensor], extent.column);
            extent.file.is_some() || !tensor().is_delta()
        };
        reads.count(self.extents.iter().filter(is_read).map(|extent| extent.n_bytes as u64).sum());
    }

    /// Copies the blocks from where an earlier pass has kept all of them; false where it has not.
    fn take_kept(&mut self, plan: &Plan, reads: &Reads, blocks: &[Block]) -> bool {
        let keys = blocks.iter().map(|block| block.key(plan));
        let Some(found) = reads.kept().and_then(|kept| kept.find(keys)) else { return false };
        let n_columns = self.layout.n_columns;
        self.digests.clear();
        for (index, kept) in found.iter().enumerate() {
            let mut rest = kept.bytes.as_slice();
            for slice in &self.layout.slices[index * n_columns..(index + 1) * n_columns] {
                let (column, others) = rest.split_at(blocks[index].n_rows * slice.dtype.size());
                let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffer);
                buffer[slice.offset..slice.offset + column.len()].copy_from_slice(column);
                rest = others;
            }
            self.digests.extend_from_slice(&kept.digests);
        }
        true
    }

    /// Keeps what was read, where that was asked for.
    fn keep(&self, plan: &Plan, reads: &Reads, blocks: &[Block]) {
        let Some(kept) = reads.kept() else { return };
        let n_columns = self.layout.n_columns;
        for (index, block) in blocks.iter().enumerate() {
            let slices = &self.layout.slices[index * n_columns..(index + 1) * n_columns];
            let column = |slice: &Slice| &self.bytes()[slice.offset..slice.offset + block.n_rows * slice.dtype.size()];
            let n_bytes = slices.iter().map(|slice| column(slice).len()).sum();
            let mut bytes = Vec::with_capacity(n_bytes);
            slices.iter().for_each(|slice| bytes.extend_from_slice(column(slice)));
            let digests = self.digests[index * n_columns..(index + 1) * n_columns].to_vec();
            kept.keep(block.key(plan), KeptBlock { bytes, digests });
        }
    }

    /// Decides where in the buffer each slice goes, and which reads fetch them.
    fn lay_out(&mut self, plan: &Plan, blocks: &[Block]) {
        let n_columns = plan.n_columns();
        let layout = &mut self.layout;
        layout.n_columns = n_columns;
        layout.segments.clear();
        layout.segments.extend(blocks.iter().map(|block| Segment {
            n_rows: block.n_rows,
            place: Lies { tensor: plan.tensors[block.tensor].number, first_row: block.first_row as u64 },
        }));
        layout.slices.clear();
        layout.slices.resize(blocks.len() * n_columns, Slice::new(0, tvb_kernels::Dtype::F32));
        self.extents.clear();
        let mut end: usize = 0;
        for column in 0..n_columns {
            let mut continues = false;
            for (index, block) in blocks.iter().enumerate() {
                if layout.factors_of(index, column).is_some() {
                    layout.slices[index * n_columns + column] = Slice::of_delta(0);
                    continues = false;
                    continue;
                }
                let tensor = plan.column_tensor(&plan.tensors[block.tensor], column);
                let dtype = tensor.dtype.float().unwrap_or(tvb_kernels::Dtype::F32);
                let n_bytes = block.n_rows * dtype.size();
                let file = match &tensor.place {
                    Place::Contiguous { file, offset } | Place::Difference { file, offset } => {
                        Some((*file, offset + (block.first_row * dtype.size()) as u64))
                    }
                    _ => None,
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
                layout.slices[index * n_columns + column] =
                    Slice { is_delta: tensor.is_delta(), ..Slice::new(end, dtype) };
                end += n_bytes;
            }
        }
        layout.n_bytes = end.next_multiple_of(ALIGNMENT);
        self.lay_out_factors();
        self.lay_out_codes(plan, blocks);
    }

    /// Decides which rows are left to be formed: those of one tensor in one column that would take more room than their factors.
    fn choose_factors(&mut self, plan: &Plan, blocks: &[Block], may_leave: bool) {
        self.layout.factors.clear();
        self.layout.n_columns = plan.n_columns();
        self.factors.clear();
        self.formed_from.clear();
        if !may_leave {
            return;
        }
        let n_columns = plan.n_columns();
        let mut chosen = vec![None; blocks.len() * n_columns];
        for column in 1..n_columns {
            let mut index = 0;
            while let Some(first) = blocks.get(index) {
                let run = blocks[index..].iter().take_while(|block| block.tensor == first.tensor).count();
                let range = index..index + run;
                index += run;
                let Place::LowRank(factors) = &plan.column_tensor(&plan.tensors[first.tensor], column).place else {
                    continue;
                };
                let (rank, n) = (factors.rank(), factors.n_columns().max(1));
                let n_rows: usize = blocks[range.clone()].iter().map(|block| block.n_rows).sum();
                let held = first.first_row / n..(first.first_row + n_rows).div_ceil(n).min(factors.n_rows());
                // With a line for what is filled up.
                if rank * (held.len() + n) + ALIGNMENT / 4 > n_rows {
                    continue;
                }
                let scale = factors.scale() as f32;
                for at in range {
                    let element = blocks[at].first_row;
                    // Places are counted from the first of the rows held; where these lie is decided later.
                    let left = (element / n - held.start) * rank * 4;
                    let slice = FactorSlice { left, right: 0, rank, n_columns: n, first: element % n, scale };
                    chosen[at * n_columns + column] = Some(slice);
                    self.formed_from.push((at * n_columns + column, self.factors.len()));
                }
                self.factors.push(Held { factors: factors.clone(), rows: held, left: 0, right: 0 });
            }
        }
        if !self.factors.is_empty() {
            self.layout.factors = chosen;
        }
    }

    /// Decides where the factors go: behind all rows.
    fn lay_out_factors(&mut self) {
        let mut end = self.layout.n_bytes;
        for held in &mut self.factors {
            held.left = end;
            held.right = end + 4 * held.rows.len() * held.factors.rank();
            end = (held.right + 4 * held.factors.right().len()).next_multiple_of(ALIGNMENT);
        }
        for (place, held) in &self.formed_from {
            let held = &self.factors[*held];
            if let Some(Some(slice)) = self.layout.factors.get_mut(*place) {
                slice.left += held.left;
                slice.right = held.right;
            }
        }
        self.layout.n_bytes = end;
    }

    /// Copies the factors to where they go.
    fn put_factors(&mut self) {
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffer);
        for held in &self.factors {
            let left = held.factors.left(held.rows.clone());
            for (at, floats) in [(held.left, &left[..]), (held.right, held.factors.right())] {
                for (out, value) in buffer[at..].as_chunks_mut::<4>().0.iter_mut().zip(floats) {
                    *out = value.to_le_bytes();
                }
            }
        }
    }

    /// The same for the columns that are read as codes.
    fn lay_out_codes(&mut self, plan: &Plan, blocks: &[Block]) {
        let ChunkReader { layout, extents, .. } = self;
        layout.codes.clear();
        layout.codes.resize(blocks.len() * plan.codes.len(), CodeSlice { words: 0, scales: 0 });
        let mut end = layout.n_bytes;
        for (coded, column) in plan.codes.iter().enumerate() {
            let first = extents.len();
            for (index, block) in blocks.iter().enumerate() {
                let (file, offset) = column.places[block.tensor];
                let before = n_blocks(block.first_row) * block_bytes(column.rate);
                let offset = offset + before as u64;
                let n_bytes = n_blocks(block.n_rows) * block_bytes(column.rate);
                let continues = |last: &Extent| last.file == Some((file, offset.wrapping_sub(last.n_bytes as u64)));
                // Words lie on words.
                match extents[first..].last_mut().filter(|last| continues(last) && end.is_multiple_of(4)) {
                    Some(last) => last.n_bytes += n_bytes,
                    None => {
                        end = end.next_multiple_of(ALIGNMENT);
                        let column = plan.n_columns() + coded;
                        extents.push(Extent { column, block: index, start: end, n_bytes, file: Some((file, offset)) });
                    }
                }
                let scales = end + n_blocks(block.n_rows) * 4 * column.rate.words();
                layout.codes[index * plan.codes.len() + coded] = CodeSlice { words: end, scales };
                end += n_bytes;
            }
        }
        layout.n_bytes = end.next_multiple_of(ALIGNMENT);
    }

    fn check_codes(&self, plan: &Plan, blocks: &[Block]) -> Result<()> {
        for (index, block) in blocks.iter().enumerate() {
            for (coded, column) in plan.codes.iter().enumerate() {
                let slice = self.layout.codes[index * plan.codes.len() + coded];
                let n_bytes = n_blocks(block.n_rows) * block_bytes(column.rate);
                check_codes(plan, coded, *block, &self.bytes()[slice.words..][..n_bytes])?;
            }
        }
        Ok(())
    }

    /// The digest of a block that is none of the bytes read: of what is formed, or is not there.
    pub(super) fn digest_of_formed(plan: &Plan, block: Block, column: usize) -> Option<Digest> {
        match &plan.column_tensor(&plan.tensors[block.tensor], column).place {
            Place::LowRank(factors) => Some(of_factors(factors, block.first_row, block.n_rows)),
            Place::Unmoved => Some(of_unmoved(block.n_rows)),
            _ => None,
        }
    }

    fn take_digests(&mut self, plan: &Plan, blocks: &[Block]) {
        let n_columns = self.layout.n_columns;
        self.digests.clear();
        for (index, block) in blocks.iter().enumerate() {
            for column in 0..n_columns {
                let digest = ChunkReader::digest_of_formed(plan, *block, column).unwrap_or_else(|| {
                    let slice = self.layout.slice(index, column);
                    Digest::of(&self.bytes()[slice.offset..slice.offset + block.n_rows * slice.dtype.size()])
                });
                self.digests.push(digest);
            }
            let n_blocks = n_blocks(block.n_rows);
            for (coded, column) in plan.codes.iter().enumerate() {
                let slice = self.layout.codes[index * plan.codes.len() + coded];
                let piece = &self.bytes()[slice.words..][..n_blocks * block_bytes(column.rate)];
                self.digests.push(Digest::of(piece));
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.buffer)
    }

    /// Where everything that was planned goes.
    pub(super) fn layout(&self) -> &ChunkLayout {
        &self.layout
    }

    /// The chunk that was read last.
    pub fn chunk(&self) -> Chunk<'_> {
        Chunk { layout: &self.layout, bytes: &self.bytes()[..self.layout.n_bytes] }
    }

    /// The same with its blocks and digests, for an operation. `blocks` are those that were read.
    pub fn read_chunk<'a>(&'a self, blocks: &'a [Block]) -> ReadChunk<'a> {
        ReadChunk { blocks, chunk: self.chunk(), digests: &self.digests }
    }

    /// Its digests, [n_blocks, n_digests] row-major: of each column's rows, or codes with their scales.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

/// Room for so many bytes at least.
pub(super) fn room(lines: &mut Vec<Line>, n_bytes: usize) -> &mut [u8] {
    let n_lines = n_bytes.div_ceil(ALIGNMENT);
    if lines.len() < n_lines {
        lines.resize(n_lines, Line([0; ALIGNMENT]));
    }
    bytemuck::cast_slice_mut(lines)
}

impl Extent {
    /// Reads some of it, from byte `start` of it on.
    pub(super) fn read(&self, plan: &Plan, blocks: &[Block], start: usize, out: &mut [u8]) -> Result<()> {
        let checkpoint = plan.column_checkpoint(self.column);
        let read = match self.file {
            Some((file, offset)) => checkpoint.files()[file].read_at(offset + start as u64, out),
            None => {
                let block = blocks[self.block];
                let tensor = plan.column_tensor(&plan.tensors[block.tensor], self.column);
                checkpoint.read(tensor, (block.first_row * tensor.dtype.size() + start) as u64, out)
            }
        };
        read.map_err(|error| {
            let tensor = &plan.tensors[blocks[self.block].tensor].name;
            error.context(format!("{}, tensor {tensor}", plan.column_name(self.column)))
        })
    }
}

/// Whether a block's scales are finite, and its codes of three levels five digits of three values in every byte. `piece` is its words,
/// then its scales.
pub(super) fn check_codes(plan: &Plan, coded: usize, block: Block, piece: &[u8]) -> Result<()> {
    const MOST_DIGITS: u8 = 242;
    let column = &plan.codes[coded];
    let rejected = |what: &str| {
        let path = shown_path(column.checkpoint.path());
        let name = shown(&plan.tensors[block.tensor].name).to_string();
        Error::rejected(format!("{path}, tensor {name}{CODES}: {what} found from element {} on", block.first_row))
            .hint("make the basis again, or copy it again; `tvb verify` checks all of it")
    };
    let (words, scales) = piece.split_at(n_blocks(block.n_rows) * 4 * column.rate.words());
    // Its upper byte is the exponent.
    if scales.iter().skip(1).step_by(2).any(|exponent| *exponent == u8::MAX) {
        return Err(rejected("finite scales expected, others"));
    }
    if column.rate == Rate::Three && words.iter().any(|digits| *digits > MOST_DIGITS) {
        return Err(rejected(&format!("bytes of at most {MOST_DIGITS} expected, larger ones")));
    }
    Ok(())
}
