//! Where codes go as they are formed.

use crate::error::Result;
use crate::pass::Block;

/// What one column has of one block.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Words and scales, as they are stored.
    Coded {
        /// Little-endian words.
        words: &'a [u8],
        /// Little-endian scales.
        scales: &'a [u8],
    },
    /// Rows in bf16.
    Raw(&'a [u8]),
    /// Nothing: a shared column over a tensor that is not coded.
    Nothing,
}

/// Takes codes in the order of blocks.
pub trait CodeSink: Send {
    /// Takes what all columns have of the next block.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    fn put(&mut self, block: &Block, columns: &[Piece<'_>]) -> Result<()>;

    /// No more blocks of this tensor come; it stays, or is dropped as if there had been none.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    fn end(&mut self, tensor: usize, stays: bool) -> Result<()>;

    /// Waits until all that was taken so far is on the disk.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    fn sync(&mut self) -> Result<()>;
}
