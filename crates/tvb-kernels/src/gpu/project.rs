//! project on the GPU: weighted sums of columns (see combine.rs), the base taken off first.

use super::combine::{Combine, Rows};
use super::plan::{Plan, Readback};
use super::shader::Kernel;
use super::variant::Shape;
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::project::Project;
use crate::work::OnGpu;

fn combine(project: &Project) -> Combine<'_> {
    Combine {
        weights: &project.encode,
        n_outputs: project.n_atoms,
        subtract_base: true,
        add_base: false,
        kernel: |format, outputs, skip_zeros| Kernel::Project { format, outputs, skip_zeros },
    }
}

impl OnGpu for Project {
    type Parts = Rows;

    fn plan(&self, layout: &ChunkLayout, _: Shape, stamp: u32) -> Result<Plan<Rows>, KernelError> {
        combine(self).plan(layout, |_| self.dtype, stamp)
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        combine(self).packed_weights()
    }

    fn collect(rows: &Rows, readback: Readback<'_>, out: &mut Vec<u8>) -> Result<(), KernelError> {
        rows.collect(readback, out)
    }
}
