//! Reads one chunk of every column, and takes digests of what it read.
//!
//! Where the files share one layout, the blocks of a chunk lie one after another and are fetched by one long read.

use super::block::Block;
use super::kept::KeptBlock;
use super::op::ReadChunk;
use super::reads::Reads;
use crate::checkpoint::Place;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::Result;
use tvb_kernels::{Chunk, ChunkLayout, Segment, Slice};

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
    /// Fetches `blocks` of every column: from where an earlier pass has kept them, or out of the files.
    ///
    /// # Errors
    /// Failed: the system cannot read, with the column and the tensor.
    pub fn read(&mut self, plan: &Plan, reads: &Reads, blocks: &[Block]) -> Result<()> {
        self.lay_out(plan, blocks);
        if self.buffer.len() < self.layout.n_bytes {
            self.buffer.resize(self.layout.n_bytes, 0);
        }
        if self.take_kept(plan, reads, blocks) {
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
        reads.count(self.extents.iter().map(|extent| extent.n_bytes as u64).sum());
        self.take_digests(blocks);
        self.keep(plan, reads, blocks);
        Ok(())
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
                self.buffer[slice.offset..slice.offset + column.len()].copy_from_slice(column);
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
            let column = |slice: &Slice| &self.buffer[slice.offset..slice.offset + block.n_rows * slice.dtype.size()];
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
        layout.segments.extend(blocks.iter().map(|block| Segment::new(block.n_rows)));
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

    /// The same with its blocks and digests, for an operation. `blocks` are those that were read.
    pub fn read_chunk<'a>(&'a self, blocks: &'a [Block]) -> ReadChunk<'a> {
        ReadChunk { blocks, chunk: self.chunk(), digests: &self.digests }
    }

    /// Its digests, [n_blocks, n_columns] row-major.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}
