//! Chunks that stay in the device's memory from one pass to the next, so that they are read and uploaded once.

use super::context::Context;
use crate::error::KernelError;
use std::sync::Arc;
use wgpu::BufferUsages;

/// A chunk in the memory of a device. Its memory is free again when this is dropped.
#[derive(Clone)]
pub struct KeptChunk {
    context: Arc<Context>,
    buffer: wgpu::Buffer,
}

impl std::fmt::Debug for KeptChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptChunk").field("n_bytes", &self.buffer.size()).finish_non_exhaustive()
    }
}

impl KeptChunk {
    /// Room for a chunk of `n_bytes`; `None` where the device has none left, which is no fault of it.
    pub(super) fn new(context: &Arc<Context>, n_bytes: u64) -> Result<Option<Self>, KernelError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let scope = context.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = context.buffer("kept chunk", n_bytes, usage, false);
        let full = pollster::block_on(scope.pop()).is_some();
        let buffer = made?;
        Ok((!full).then(|| KeptChunk { context: Arc::clone(context), buffer }))
    }

    /// Bytes of the device's memory that it takes.
    pub fn n_bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// Whether it lies on this device, opened this time.
    pub(super) fn is_on(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}
