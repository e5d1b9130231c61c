//! The GPU engine: the kernels of `shaders/` on wgpu.

mod combine;
mod context;
mod eigh;
mod gram;
mod plan;
mod project;
mod reconstruct;
mod refine;
pub(crate) mod shader;
mod stream;

pub use stream::GpuStream;

use crate::check::check;
use crate::device::AdapterFacts;
use crate::upload::staged_layout;
use crate::{Chunk, CpuEngine, Eigh, KernelError, Output, Work};
use context::Context;
use std::sync::Arc;

/// The GPU engine: one device, shared by its streams. Cheap to clone.
#[derive(Clone)]
pub struct GpuEngine {
    context: Arc<Context>,
    cpu: CpuEngine,
}

impl std::fmt::Debug for GpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuEngine").field("facts", &self.context.facts).finish_non_exhaustive()
    }
}

impl GpuEngine {
    pub(crate) fn open(adapter: &wgpu::Adapter, facts: AdapterFacts) -> Result<Self, KernelError> {
        Ok(Self { context: Arc::new(Context::open(adapter, facts)?), cpu: CpuEngine::new() })
    }

    /// What is known about the adapter.
    pub fn facts(&self) -> &AdapterFacts {
        &self.context.facts
    }

    /// Whether readers write to memory that kernels read directly (unified memory), with no copy on the device.
    pub fn is_direct(&self) -> bool {
        self.context.direct
    }

    /// The first error the device has reported, if any: after one, open the device anew or go on with the CPU engine.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), KernelError> {
        self.context.check()
    }

    /// A stream that does `work` on chunks of at most `max_chunk_bytes`, with `n_slots` staging buffers of that size.
    ///
    /// Three or four slots of 8 to 32 MiB keep readers, bus and kernels busy at once.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where a chunk would be larger than the device's bindings; device errors.
    pub fn stream(&self, work: &Work, max_chunk_bytes: usize, n_slots: usize) -> Result<GpuStream, KernelError> {
        self.context.check()?;
        GpuStream::new(Arc::clone(&self.context), work, max_chunk_bytes, n_slots)
    }

    /// Does `work` on one chunk and waits for it. What the GPU does not take (f64 results) the CPU engine does.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work, and device errors.
    pub fn run(&self, work: &Work, chunk: Chunk<'_>) -> Result<Output, KernelError> {
        check(work, chunk)?;
        if !plan::is_gpu_work(work, chunk.layout) {
            let mut out = Output::Rows(Vec::new());
            self.cpu.run(work, chunk, &mut self.cpu.scratch(), &mut out)?;
            return Ok(out);
        }
        let staged = staged_layout(chunk.layout)?;
        let mut stream = self.stream(work, staged.n_bytes, 1)?;
        let mut slot = stream.acquire()?;
        slot.pack(chunk, &staged)?;
        stream.submit(slot, &staged)?;
        stream.next()?.ok_or(KernelError::NoFreeSlot)
    }

    /// Eigendecomposition of `n_matrices` symmetric n×n matrices laid one after another; lower triangles are read.
    ///
    /// f32 on the device, then refined to f64 and checked on the host; one that does not pass is done by the CPU engine,
    /// with a warning in the log.
    ///
    /// # Errors
    /// [`KernelError`] when the length is not n_matrices · n² or an entry is not finite, and device errors.
    pub fn eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
        eigh::run(&self.context, &self.cpu, matrices, n, n_matrices)
    }

    /// Fills every result buffer with NaNs before each submit, so that a value no kernel wrote cannot pass for one. For
    /// tests: it costs a copy of each result.
    pub fn poison_results(&self, poison: bool) {
        self.context.set_poisoned(poison);
    }
}
