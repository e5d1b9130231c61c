//! One pass: what is read, in which chunks, and what it shares with the passes before and after it.

use super::chunks::Grid;
use super::reads::Reads;
use super::runtime::Runtime;
use crate::columns::plan::Plan;

/// One pass over the chunks of a plan.
#[derive(Clone, Debug)]
pub struct Pass<'a> {
    /// What is read.
    pub plan: &'a Plan,
    /// In which chunks.
    pub grid: Grid,
    /// What earlier passes have kept, and the count of bytes read.
    pub reads: &'a Reads,
}

impl<'a> Pass<'a> {
    /// Over every row of the plan, in chunks that suit the device.
    pub fn over(plan: &'a Plan, runtime: &Runtime, reads: &'a Reads) -> Pass<'a> {
        let grid = Grid::new(plan.tensors.iter().map(|tensor| tensor.n_rows), runtime.chunk_size(plan.n_columns()));
        Pass { plan, grid, reads }
    }
}
