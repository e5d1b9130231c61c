//! reconstruct on the GPU: weighted sums of columns (see combine.rs), on the base or without it.

use super::combine::{Combine, Rows};
use super::plan::{Plan, Readback};
use super::shader::Kernel;
use super::variant::Shape;
use crate::chunk::{ChunkLayout, Columns};
use crate::error::KernelError;
use crate::reconstruct::{Base, Reconstruct};
use crate::work::OnGpu;

fn combine(reconstruct: &Reconstruct) -> Combine<'_> {
    Combine {
        weights: &reconstruct.weights,
        n_outputs: reconstruct.n_outputs,
        subtract_base: reconstruct.columns == Columns::Checkpoints,
        add_base: reconstruct.base == Base::Added,
        kernel: |format, outputs, skip_zeros| Kernel::Reconstruct { format, outputs, skip_zeros },
    }
}

impl OnGpu for Reconstruct {
    type Parts = Rows;

    fn plan(&self, layout: &ChunkLayout, _: Shape, stamp: u32) -> Result<Plan<Rows>, KernelError> {
        combine(self).plan(layout, |segment| self.row_dtype(layout, segment), stamp)
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        combine(self).packed_weights()
    }

    fn collect(rows: &Rows, readback: Readback<'_>, out: &mut Vec<u8>) -> Result<(), KernelError> {
        rows.collect(readback, out)
    }
}
