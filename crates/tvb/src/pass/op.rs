//! What a pass does with a chunk: on the engine, or on the host.

use super::block::Block;
use crate::digest::Digest;
use crate::error::{Error, Result};
use tvb_kernels::{Chunk, ChunkLayout, Work};

/// An operation that an engine does: the CPU's on the thread that has read the chunk, a GPU's on the device.
pub trait Operation: Sync {
    /// What the engine does; its type says what comes out.
    type Work: Work;
    /// What one chunk yields, to be folded in chunk order.
    type Part: Send;

    /// What the engine does.
    fn work(&self) -> &Self::Work;

    /// Takes what the engine has made of a chunk: writes it, or turns it into a part to be folded. Called on the thread
    /// that worked on the chunk, in any order and several at once.
    ///
    /// # Errors
    /// Whatever the operation cannot do; the pass ends with it.
    fn finish(&self, done: Done<'_>, output: &mut <Self::Work as Work>::Output) -> Result<Self::Part>;
}

/// An operation that the host does on the bytes that were read.
pub trait HostOperation: Sync {
    /// What one chunk yields, to be folded in chunk order.
    type Part: Send;
    /// One thread's buffers, reused from chunk to chunk.
    type Buffers: Default;

    /// How many floats it holds of each row beside the columns, about: for the memory cap.
    fn n_outputs(&self) -> usize {
        0
    }

    /// Works on a chunk. Called on the thread that has read it, in any order and several at once.
    ///
    /// # Errors
    /// Whatever the operation cannot do; the pass ends with it.
    fn on_chunk(&self, read: ReadChunk<'_>, buffers: &mut Self::Buffers) -> Result<Self::Part>;
}

/// A chunk as it was read.
#[derive(Clone, Copy)]
pub struct ReadChunk<'a> {
    /// Its blocks: segment s of the chunk is block s.
    pub blocks: &'a [Block],
    /// Its bytes and where in them the columns lie.
    pub chunk: Chunk<'a>,
    /// [n_blocks, n_digests] digests of the bytes.
    pub digests: &'a [Digest],
}

impl<'a> ReadChunk<'a> {
    /// The bytes of block number `index` in a column.
    ///
    /// # Errors
    /// Failed: the chunk does not hold them.
    pub fn rows(&self, index: usize, column: usize) -> Result<&'a [u8]> {
        let slice = self.chunk.layout.slice(index, column);
        let n_bytes = self.blocks.get(index).map_or(0, |block| block.n_rows * slice.dtype.size());
        let rows = self.chunk.bytes.get(slice.offset..).and_then(|rest| rest.get(..n_bytes));
        rows.ok_or_else(|| Error::failed(format!("block {index} of column {column} is not all in its chunk")))
    }
}

/// A chunk that an engine has worked on.
#[derive(Clone, Copy)]
pub struct Done<'a> {
    /// Its blocks: segment s of the chunk is block s.
    pub blocks: &'a [Block],
    /// Where they lay in the chunk as it was read.
    pub layout: &'a ChunkLayout,
    /// [n_blocks, n_columns] digests of the bytes that were read.
    pub digests: &'a [Digest],
}

/// A chunk's part, in its turn.
pub struct Folded<'a, Part> {
    /// The chunk's blocks.
    pub blocks: &'a [Block],
    /// [n_blocks, n_columns] digests of the bytes that were read.
    pub digests: &'a [Digest],
    /// What the operation has made of it.
    pub part: Part,
}

/// Reads and takes digests, and does nothing else.
#[derive(Clone, Copy, Debug)]
pub struct DigestOnly;

impl HostOperation for DigestOnly {
    type Part = ();
    type Buffers = ();

    fn on_chunk(&self, _read: ReadChunk<'_>, _buffers: &mut ()) -> Result<()> {
        Ok(())
    }
}
