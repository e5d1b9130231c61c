//! Staging: a chunk's bytes on their way to the GPU, written once into a mapped buffer.

use crate::check::check_slices;
use crate::chunk::{Chunk, ChunkLayout, Dtype, Slice};
use crate::error::KernelError;
use crate::limits::SLICE_ALIGNMENT;

/// The layout a chunk has in a staging slot when [`StagingSlot::pack`] puts it there: the same segments and columns, f64
/// as f32, each slice on a multiple of 16 bytes, no gaps beyond that. Then all bytes from the first code or factor to the chunk's end, as they
/// are: how long codes are is their reader's to know.
///
/// # Errors
/// [`KernelError`] when the layout's slices do not lie within its bytes.
pub fn staged_layout(layout: &ChunkLayout) -> Result<ChunkLayout, KernelError> {
    check_slices(layout)?;
    let too_large = || KernelError::TooLarge { what: "staged chunk" };
    let mut staged = layout.clone();
    let mut n_bytes = 0usize;
    for column in 0..layout.n_columns {
        for (at, segment) in layout.segments.iter().enumerate() {
            if layout.factors_of(at, column).is_some() {
                continue;
            }
            let Slice { dtype, is_delta, .. } = layout.slice(at, column);
            let dtype = if dtype == Dtype::F64 { Dtype::F32 } else { dtype };
            staged.slices[at * layout.n_columns + column] = Slice { offset: n_bytes, dtype, is_delta };
            let more = segment
                .n_rows
                .checked_mul(dtype.size())
                .and_then(|bytes| bytes.checked_next_multiple_of(SLICE_ALIGNMENT));
            n_bytes = more.and_then(|more| n_bytes.checked_add(more)).ok_or_else(too_large)?;
        }
    }
    if let Some(from) = layout.first_behind_rows() {
        let n_code_bytes = layout.n_bytes.checked_sub(from).ok_or(KernelError::CodesOutside {
            segment: 0,
            column: 0,
            chunk_bytes: layout.n_bytes,
        })?;
        for slice in &mut staged.codes {
            for offset in [&mut slice.words, &mut slice.scales] {
                *offset = (*offset - from).checked_add(n_bytes).ok_or_else(too_large)?;
            }
        }
        for slice in staged.factors.iter_mut().flatten() {
            for offset in [&mut slice.left, &mut slice.right] {
                *offset = (*offset - from).checked_add(n_bytes).ok_or_else(too_large)?;
            }
        }
        n_bytes = n_bytes.checked_add(n_code_bytes).ok_or_else(too_large)?;
    }
    staged.n_bytes = n_bytes;
    Ok(staged)
}

/// A mapped staging buffer in the hands of a reader, on whichever thread. It can only be written: reading mapped memory
/// may be very slow. Dropped unsubmitted, its place in the ring is lost; give it back with
/// [`GpuStream::release`](crate::GpuStream::release).
#[derive(Debug)]
pub struct StagingSlot {
    pub(crate) index: usize,
    pub(crate) stream: u64,
    pub(crate) view: wgpu::BufferViewMut,
}

impl StagingSlot {
    /// Bytes it holds.
    pub fn capacity(&self) -> usize {
        self.view.len()
    }

    /// Copies `bytes` to the slot, `offset` bytes from its start.
    ///
    /// # Errors
    /// [`KernelError::Limit`] when they do not fit.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), KernelError> {
        let most = self.capacity() as u64;
        match offset.checked_add(bytes.len()).filter(|end| *end <= self.capacity()) {
            Some(end) => {
                self.view.slice(offset..end).copy_from_slice(bytes);
                Ok(())
            }
            None => Err(KernelError::Limit {
                what: "bytes of a staging buffer",
                found: (offset as u64).saturating_add(bytes.len() as u64),
                most,
            }),
        }
    }

    /// Copies a whole chunk to the slot, laid out as `staged` (from [`staged_layout`]) says, f64 rounded to f32.
    ///
    /// # Errors
    /// [`KernelError`] when the chunk's layout does not fit its bytes, `staged` is another chunk's, or the slot is small.
    pub fn pack(&mut self, chunk: Chunk<'_>, staged: &ChunkLayout) -> Result<(), KernelError> {
        check_slices(chunk.layout)?;
        check_slices(staged)?;
        let (expected, found) = (chunk.layout.n_bytes, chunk.bytes.len());
        if found < expected {
            return Err(KernelError::ChunkShort { expected, found });
        }
        if staged.segments != chunk.layout.segments || staged.n_columns != chunk.layout.n_columns {
            return Err(KernelError::SliceCount { expected: chunk.layout.slices.len(), found: staged.slices.len() });
        }
        for (expected, found) in
            [(chunk.layout.codes.len(), staged.codes.len()), (chunk.layout.factors.len(), staged.factors.len())]
        {
            if found != expected {
                return Err(KernelError::SliceCount { expected, found });
            }
        }
        if let (Some(from), Some(to)) = (chunk.layout.first_behind_rows(), staged.first_behind_rows()) {
            let outside = KernelError::CodesOutside { segment: 0, column: 0, chunk_bytes: chunk.layout.n_bytes };
            self.write(to, chunk.bytes.get(from..chunk.layout.n_bytes).ok_or(outside)?)?;
        }
        let n_columns = chunk.layout.n_columns;
        for (at, (from, to)) in chunk.layout.slices.iter().zip(&staged.slices).enumerate() {
            if chunk.layout.factors_of(at / n_columns, at % n_columns).is_some() {
                continue;
            }
            let n_rows = chunk.layout.segments[at / n_columns].n_rows;
            self.write_rows(*to, &chunk.bytes[from.offset..][..n_rows * from.dtype.size()], from.dtype)?;
        }
        Ok(())
    }

    /// Copies rows that are stored as `dtype` to where a slice of a [`staged_layout`] begins, f64 rounded to f32.
    ///
    /// # Errors
    /// [`KernelError::Limit`] when they do not fit, [`KernelError::NotOnGpu`] when they would have to become another format.
    pub fn write_rows(&mut self, to: Slice, bytes: &[u8], dtype: Dtype) -> Result<(), KernelError> {
        match (dtype, to.dtype) {
            (Dtype::F64, Dtype::F32) => self.write_f64(to.offset, bytes),
            (from, to_dtype) if from == to_dtype => self.write(to.offset, bytes),
            _ => Err(KernelError::NotOnGpu),
        }
    }

    fn write_f64(&mut self, offset: usize, bytes: &[u8]) -> Result<(), KernelError> {
        const ROWS: usize = 1024;
        let mut rows = [[0u8; 4]; ROWS];
        for (at, block) in bytes.as_chunks::<8>().0.chunks(ROWS).enumerate() {
            for (row, raw) in rows.iter_mut().zip(block) {
                *row = (f64::from_le_bytes(*raw) as f32).to_le_bytes();
            }
            self.write(offset + at * ROWS * 4, rows[..block.len()].as_flattened())?;
        }
        Ok(())
    }
}
