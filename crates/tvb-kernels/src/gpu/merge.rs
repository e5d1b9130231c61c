//! merge on the GPU: not done there yet; the CPU engine does it.

use super::plan::{Plan, Readback};
use super::variant::Shape;
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::merge::Merge;
use crate::work::OnGpu;

impl OnGpu for Merge {
    type Parts = ();

    fn plan(&self, _: &ChunkLayout, _: Shape, _: u32) -> Result<Plan<()>, KernelError> {
        Err(KernelError::NotOnGpu)
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        Err(KernelError::NotOnGpu)
    }

    fn collect((): &(), _: Readback<'_>, _: &mut Vec<u8>) -> Result<(), KernelError> {
        Err(KernelError::NotOnGpu)
    }
}
