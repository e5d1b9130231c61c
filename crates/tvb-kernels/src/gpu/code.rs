//! code on the GPU: not yet, so a pass hands its chunks to the CPU.

use super::plan::{Plan, Readback};
use super::variant::Shape;
use crate::chunk::ChunkLayout;
use crate::code::Code;
use crate::error::KernelError;
use crate::work::OnGpu;

impl OnGpu for Code {
    type Parts = ();

    fn plan(&self, _: &ChunkLayout, _: Shape, _: u32) -> Result<Plan<()>, KernelError> {
        Err(KernelError::NotOnGpu)
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        Err(KernelError::NotOnGpu)
    }

    fn collect((): &(), _: Readback<'_>) -> Result<crate::code::Codes, KernelError> {
        Err(KernelError::NotOnGpu)
    }
}
