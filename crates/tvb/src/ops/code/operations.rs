//! The operations of a coding pass: on task vectors as they are, with or without their Gram matrix, and on rows that are
//! formed first.

use super::part::{CodedChunk, Coder};
use crate::error::Result;
use crate::ops::gram::GramOfBlocks;
use crate::pass::{Block, ChunkReader, Done, HostOperation, Operation, ReadChunk, Reads, decode_deltas, device_error};
use tvb_kernels::{Chunk, ChunkLayout, Code, Codes, CpuEngine, Dtype, Gram, Scratch, Segment, Slice, Triangles, Work};

/// Codes of the task vectors.
pub(super) struct CodeTasks<'a> {
    pub(super) coder: Coder<'a>,
    pub(super) reads: &'a Reads,
}

impl CodeTasks<'_> {
    fn deltas(&self, block: Block) -> Result<Vec<Vec<f32>>> {
        let mut reader = ChunkReader::default();
        reader.read(self.coder.plan, self.reads, &[block])?;
        Ok(decode_deltas(reader.chunk(), 0, self.coder.n_own))
    }
}

impl Operation for CodeTasks<'_> {
    type Work = Code;
    type Part = CodedChunk;

    fn work(&self) -> &Code {
        &self.coder.code
    }

    fn finish(&self, done: Done<'_>, codes: &mut Codes) -> Result<CodedChunk> {
        self.coder.part(done.blocks, std::mem::take(codes), Vec::new(), |index| self.deltas(done.blocks[index]))
    }
}

/// The Gram matrix and the codes of every block, from the same bytes. On the CPU: a GPU does one after the other, with the
/// inputs in its own memory.
pub(super) struct GramAndCode<'a> {
    pub(super) coder: Coder<'a>,
    pub(super) reads: &'a Reads,
    pub(super) engine: CpuEngine,
}

impl HostOperation for GramAndCode<'_> {
    type Part = CodedChunk;
    type Buffers = (Scratch, Triangles, Codes);

    /// Codes are small, but rotated panels and their levels are held of every column, two bytes of each row together, and so are
    /// the codes of chunks that wait for their turn.
    fn n_outputs(&self) -> usize {
        self.coder.n_columns()
    }

    fn on_chunk(&self, read: ReadChunk<'_>, (scratch, triangles, codes): &mut Self::Buffers) -> Result<CodedChunk> {
        self.engine.run(&Gram::ALL, read.chunk, scratch, triangles).map_err(device_error)?;
        self.engine.run(&self.coder.code, read.chunk, scratch, codes).map_err(device_error)?;
        let done = Done { blocks: read.blocks, layout: read.chunk.layout, digests: read.digests };
        let triangles =
            GramOfBlocks { work: Gram::ALL, plan: self.coder.plan, reads: self.reads }.finish(done, triangles)?;
        let deltas = |index| Ok(decode_deltas(read.chunk, index, self.coder.n_own));
        self.coder.part(read.blocks, std::mem::take(codes), triangles, deltas)
    }
}

/// The layout of a chunk of rows in f32 that are deltas already, column by column; a base of zeros is put after them.
pub(super) fn deltas_chunk(segments: Vec<Segment>, n_columns: usize, rows: &mut Vec<u8>) -> ChunkLayout {
    let n_rows = segments.iter().map(|segment| segment.n_rows).sum::<usize>();
    let zeros_at = 4 * n_rows * n_columns;
    rows.resize(zeros_at + 4 * n_rows, 0);
    rows[zeros_at..].fill(0);
    let mut slices = Vec::with_capacity(segments.len() * (n_columns + 1));
    let mut before = 0;
    for segment in &segments {
        slices.push(Slice::new(zeros_at, Dtype::F32));
        slices.extend((0..n_columns).map(|own| Slice::new(4 * (own * n_rows + before), Dtype::F32)));
        before += segment.n_rows;
    }
    ChunkLayout {
        n_columns: n_columns + 1,
        segments,
        slices,
        codes: Vec::new(),
        factors: Vec::new(),
        n_bytes: rows.len(),
    }
}

/// Codes of rows that `work` forms in f32: mixtures of the task vectors, or an edit.
pub(super) struct FormAndCode<'a, W> {
    pub(super) coder: Coder<'a>,
    pub(super) work: W,
    pub(super) engine: CpuEngine,
    /// What the number of the plan's first tensor is among those that are coded, where their signs go by another number than
    /// the one they are read with.
    pub(super) first_tensor: Option<usize>,
}

impl<W> FormAndCode<'_, W> {
    /// The chunk's segments, with the places that the codes' signs go by.
    fn segments(&self, done: &Done<'_>) -> Vec<Segment> {
        let mut segments = done.layout.segments.clone();
        if let Some(first) = self.first_tensor {
            for (segment, block) in segments.iter_mut().zip(done.blocks) {
                segment.place.tensor = (first + block.tensor) as u32;
            }
        }
        segments
    }
}

impl<W: Work<Output = Vec<u8>>> Operation for FormAndCode<'_, W> {
    type Work = W;
    type Part = CodedChunk;

    fn work(&self) -> &W {
        &self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<CodedChunk> {
        let n_own = self.coder.n_own;
        let layout = deltas_chunk(self.segments(&done), n_own, rows);
        let chunk = Chunk { layout: &layout, bytes: rows };
        let mut codes = Codes::default();
        self.engine.run(&self.coder.code, chunk, &mut self.engine.scratch(), &mut codes).map_err(device_error)?;
        let formed = |index| Ok(decode_deltas(chunk, index, n_own));
        self.coder.part(done.blocks, codes, Vec::new(), formed)
    }
}
