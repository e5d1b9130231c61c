//! The unit of reading and digesting: at most [`BLOCK_ROWS`] rows of one tensor.

use super::kept::BlockKey;
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
