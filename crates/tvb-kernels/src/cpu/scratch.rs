//! One thread's buffers.

use super::block::Block;
use super::combine::Weights;
use super::floats::Floats;
use super::panels::{Combined, Panels};
use std::fmt;

/// One thread's buffers, reused from chunk to chunk; they grow to a few hundred rows of every column.
#[derive(Default)]
pub struct Scratch {
    /// Rows of every column, decoded.
    pub(super) block: Block,
    /// The weights of a projection or reconstruction, packed.
    pub(super) weights: Weights,
    /// Outputs of a block in f32.
    pub(super) rows: Floats,
    /// Sums and divisors of a merge.
    pub(super) merged: Floats,
    /// Outputs of a block in f64.
    pub(super) rows_f64: Vec<f64>,
    /// Panels on their way to codes.
    pub(super) panels: Panels,
    /// Panels that are combined from codes.
    pub(super) combined: Combined,
    /// Inner products of a run of many tasks.
    pub(super) products: Floats,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
