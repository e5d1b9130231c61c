//! The GPU engine: the kernels of `shaders/` on wgpu.

mod combine;
mod context;
mod eigh;
mod gram;
mod kept;
mod plan;
mod project;
mod reconstruct;
mod record;
mod refine;
mod resident;
pub(crate) mod shader;
mod stream;
pub(crate) mod variant;

pub use kept::KeptChunk;
pub use resident::{DeviceCopy, Resident};
pub use stream::GpuStream;

pub use context::{DeviceSetup, InjectedFault};

use crate::check::check;
use crate::device::{AdapterFacts, adapters};
use crate::upload::staged_layout;
use crate::{Chunk, CpuEngine, Eigh, KernelError, Output, Work, self_test};
use context::Context;
use std::sync::{Arc, PoisonError, RwLock};
use variant::Format;

/// Whether a stream's kernels are tested before they are used.
pub(crate) enum Tested {
    /// Before the first chunk of each format, with this engine.
    OnFirstUse(GpuEngine),
    /// They are being tested.
    Not,
}

/// The GPU engine: one device, shared by its streams. Cheap to clone; clones share the device, also one that was rebuilt.
#[derive(Clone)]
pub struct GpuEngine {
    context: Arc<RwLock<Arc<Context>>>,
    facts: Arc<AdapterFacts>,
    setup: DeviceSetup,
    cpu: CpuEngine,
}

impl std::fmt::Debug for GpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuEngine").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl GpuEngine {
    /// Opens an adapter and tests every kernel on it against the CPU engine.
    pub(crate) fn open(adapter: &wgpu::Adapter, facts: AdapterFacts, setup: DeviceSetup) -> Result<Self, KernelError> {
        let context = Context::open(adapter, facts, setup)?;
        let facts = Arc::new(context.facts.clone());
        let context = Arc::new(RwLock::new(Arc::new(context)));
        let engine = Self { context, facts, setup, cpu: CpuEngine::new() };
        self_test::run(&engine)?;
        engine.context().set_passed(Format::Mixed);
        Ok(engine)
    }

    fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the adapter anew after a fault, for this engine and all its clones; streams of the old device stay broken.
    ///
    /// # Errors
    /// [`KernelError::NoAdapter`] where the adapter is gone, [`KernelError::SelfTest`], and device errors; the engine is
    /// as it was then.
    pub fn rebuild(&self) -> Result<(), KernelError> {
        let old = &self.facts;
        let found = adapters(Some(old.backend));
        let is_same =
            |facts: &AdapterFacts| (&facts.name, &facts.driver, facts.kind) == (&old.name, &old.driver, old.kind);
        let Some((adapter, facts)) = found.iter().find(|(_, facts)| is_same(facts)) else {
            let found = found.iter().map(|(_, facts)| facts.to_string()).collect();
            return Err(KernelError::NoAdapter { wanted: old.name.clone(), found });
        };
        let rebuilt = Self::open(adapter, AdapterFacts { index: old.index, ..facts.clone() }, self.setup)?;
        let context = rebuilt.context();
        context.set_poisoned(self.context().poisoned());
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = context;
        Ok(())
    }

    /// Lets a fault happen after so many more submits of chunks (at least one): for tests of what follows.
    pub fn inject_fault(&self, n_submits: u32, fault: InjectedFault) {
        self.context().inject(n_submits, fault);
    }

    /// What is known about the adapter.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// Whether readers write to memory that kernels read directly (unified memory), with no copy on the device.
    pub fn is_direct(&self) -> bool {
        self.context().direct
    }

    /// Whether chunks can stay on the device between passes: where its memory is its own, and not the host's.
    pub fn can_keep(&self) -> bool {
        self.context().own_memory
    }

    /// The first error the device has reported, if any: after one, open the device anew or go on with the CPU engine.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), KernelError> {
        self.context().check()
    }

    /// A stream that does `work` on chunks of at most `max_chunk_bytes`, with `n_slots` staging buffers of that size.
    ///
    /// Three or four slots of 8 to 32 MiB keep readers, bus and kernels busy at once.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where a chunk would be larger than the device's bindings; device errors.
    pub fn stream(&self, work: &Work, max_chunk_bytes: usize, n_slots: usize) -> Result<GpuStream, KernelError> {
        self.stream_tested(work, max_chunk_bytes, n_slots, Tested::OnFirstUse(self.clone()))
    }

    fn stream_tested(
        &self,
        work: &Work,
        max_chunk_bytes: usize,
        n_slots: usize,
        tested: Tested,
    ) -> Result<GpuStream, KernelError> {
        let context = self.context();
        context.check()?;
        GpuStream::new(context, work, max_chunk_bytes, n_slots, tested)
    }

    /// Tests the kernels of a format against the CPU engine, if this device has not passed that test yet.
    fn test_format(&self, context: &Context, format: Format) -> Result<(), KernelError> {
        if !context.has_passed(format) {
            self_test::run_format(self, format)?;
            context.set_passed(format);
        }
        Ok(())
    }

    /// A chunk brought to the device's memory, for measurements of `work` without the upload. Its layout must be one that
    /// [`staged_layout`](crate::staged_layout) leaves as it is.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where it does not fit a binding, [`KernelError::NotOnGpu`] for f64; device errors.
    pub fn resident(&self, work: &Work, chunk: Chunk<'_>) -> Result<Resident, KernelError> {
        let context = self.context();
        context.check()?;
        self.test_format(&context, Format::of(chunk.layout))?;
        Resident::new(context, work, chunk)
    }

    /// Two buffers of `n_bytes` (rounded up to 16) on the device, one to be copied to the other.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where they are larger than the device's buffers; device errors.
    pub fn device_copy(&self, n_bytes: u64) -> Result<DeviceCopy, KernelError> {
        let context = self.context();
        context.check()?;
        DeviceCopy::new(context, n_bytes)
    }

    /// Does `work` on one chunk and waits for it. What the GPU does not take (f64 results) the CPU engine does.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work, and device errors.
    pub fn run(&self, work: &Work, chunk: Chunk<'_>) -> Result<Output, KernelError> {
        self.run_tested(work, chunk, Tested::OnFirstUse(self.clone()))
    }

    /// [`run`](Self::run) by kernels that are being tested.
    pub(crate) fn run_untested(&self, work: &Work, chunk: Chunk<'_>) -> Result<Output, KernelError> {
        self.run_tested(work, chunk, Tested::Not)
    }

    fn run_tested(&self, work: &Work, chunk: Chunk<'_>, tested: Tested) -> Result<Output, KernelError> {
        check(work, chunk)?;
        if !plan::is_gpu_work(work, chunk.layout) {
            let mut out = Output::Rows(Vec::new());
            self.cpu.run(work, chunk, &mut self.cpu.scratch(), &mut out)?;
            return Ok(out);
        }
        let staged = staged_layout(chunk.layout)?;
        let mut stream = self.stream_tested(work, staged.n_bytes, 1, tested)?;
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
        eigh::run(&self.context(), &self.cpu, matrices, n, n_matrices)
    }

    /// Fills every result buffer with NaNs before each submit, so that a value no kernel wrote cannot pass for one. For
    /// tests: it costs a copy of each result.
    pub fn poison_results(&self, poison: bool) {
        self.context().set_poisoned(poison);
    }
}
