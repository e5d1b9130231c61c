//! The GPU engine: a device and what can be asked of it.

use super::context::{Context, DeviceSetup, InjectedFault};
use super::eigh::{self, RawEigh};
use super::resident::{DeviceCopy, Resident};
use super::stream::{FirstUse, GpuStream};
use super::{self_test, single};
use crate::chunk::Chunk;
use crate::cpu::CpuEngine;
use crate::device::{AdapterFacts, adapters};
use crate::eigh::Eigh;
use crate::error::KernelError;
use crate::work::Work;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The GPU engine: one device, shared by its streams. Cheap to clone; clones share the device, also one that was reopened.
#[derive(Clone)]
pub struct GpuEngine {
    context: Arc<RwLock<Arc<Context>>>,
    facts: Arc<AdapterFacts>,
    setup: DeviceSetup,
    cpu: CpuEngine,
    n_eigh_on_host: Arc<AtomicU64>,
}

impl fmt::Debug for GpuEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuEngine").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl GpuEngine {
    /// Opens an adapter. Nothing has run on it then: each kernel is tested when it is first used.
    pub(crate) fn open(adapter: &wgpu::Adapter, facts: AdapterFacts, setup: DeviceSetup) -> Result<Self, KernelError> {
        let context = Arc::new(Context::open(adapter, facts, setup)?);
        let facts = Arc::new(context.facts.clone());
        let context = Arc::new(RwLock::new(context));
        Ok(Self { context, facts, setup, cpu: CpuEngine::new(), n_eigh_on_host: Arc::default() })
    }

    fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The device, unless it has failed.
    fn sound_context(&self) -> Result<Arc<Context>, KernelError> {
        let context = self.context();
        context.check()?;
        Ok(context)
    }

    /// Reopens the adapter after a fault, for this engine and all its clones; streams of the old device stay broken.
    ///
    /// # Errors
    /// [`KernelError::NoAdapter`] where the adapter is gone, and device errors; the engine is as it was then.
    pub fn rebuild(&self) -> Result<(), KernelError> {
        let old = &self.facts;
        let found = adapters(Some(old.backend));
        let Some((adapter, facts)) = found.iter().find(|(_, facts)| facts.is_same(old)) else {
            let found = found.iter().map(|(_, facts)| facts.to_string()).collect();
            return Err(KernelError::NoAdapter { wanted: old.name.clone(), found });
        };
        let rebuilt = Self::open(adapter, AdapterFacts { index: old.index, ..facts.clone() }, self.setup)?;
        let context = rebuilt.context();
        context.set_poisoned(self.context().poisoned());
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = context;
        Ok(())
    }

    /// Makes a fault happen after so many more submits of chunks (at least one): for tests of what follows.
    pub fn inject_fault(&self, n_submits: u32, fault: InjectedFault) {
        self.context().inject(n_submits, fault);
    }

    /// Compiles other text in place of a piece of the shaders, as a driver that gets it wrong would: for tests of the test.
    #[doc(hidden)]
    pub fn miscompile(&self, piece: &str, by: &str) {
        self.context().miscompile(piece, by);
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

    /// The first error the device has reported, if any: after one, reopen the device or go on with the CPU engine.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), KernelError> {
        self.context().check()
    }

    /// A stream that does `work` on chunks of at most `max_chunk_bytes` bytes, with `n_slots` staging buffers of that size.
    ///
    /// Three or four slots of 8 to 32 MiB keep readers, bus and kernels busy at once.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where a chunk would be larger than the device's bindings; device errors.
    pub fn stream<W: Work>(
        &self,
        work: &W,
        max_chunk_bytes: usize,
        n_slots: usize,
    ) -> Result<GpuStream<W>, KernelError> {
        GpuStream::new(self.sound_context()?, work, max_chunk_bytes, n_slots, FirstUse::Test(self_test::first_use))
    }

    /// A chunk brought to the device's memory, for measurements of `work` without the upload. Its layout must be one that
    /// [`staged_layout`](crate::staged_layout) leaves as it is.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where it does not fit a binding, [`KernelError::NotOnGpu`] for f64; device errors.
    pub fn resident<W: Work>(&self, work: &W, chunk: Chunk<'_>) -> Result<Resident<W>, KernelError> {
        Resident::new(self.sound_context()?, work, chunk, FirstUse::Test(self_test::first_use))
    }

    /// Two buffers of `n_bytes` (rounded up to 16) on the device, one to be copied to the other.
    ///
    /// # Errors
    /// [`KernelError::Limit`] where they are larger than the device's buffers; device errors.
    pub fn device_copy(&self, n_bytes: u64) -> Result<DeviceCopy, KernelError> {
        DeviceCopy::new(self.sound_context()?, n_bytes)
    }

    /// Does `work` on one chunk and waits for it. What the GPU does not take (f64 results) the CPU engine does.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work, and device errors.
    pub fn run<W: Work>(&self, work: &W, chunk: Chunk<'_>) -> Result<W::Output, KernelError> {
        single::run(self.context(), &self.cpu, work, chunk, FirstUse::Test(self_test::first_use))
    }

    /// Eigendecomposition of `n_matrices` symmetric n×n matrices laid one after another, column-major \[n_matrices, n, n\];
    /// lower triangles are read.
    ///
    /// f32 on the device, then refined to f64 and checked on the host; one that does not pass is done by the CPU engine,
    /// with a warning in the log, and counted.
    ///
    /// # Errors
    /// [`KernelError`] when the length is not n_matrices · n² or an entry is not finite, [`KernelError::SelfTest`], and device
    /// errors.
    pub fn eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
        let context = self.sound_context()?;
        if let Some(kernel) = eigh::kernel_for(n) {
            self_test::first_use(&context, kernel)?;
        }
        eigh::run(&context, &self.cpu, matrices, n, n_matrices, &self.n_eigh_on_host)
    }

    /// How many matrices of [`eigh`](Self::eigh) the CPU engine has done so far, since the device cannot take them or got
    /// them wrong. Those of order 0 and 1, of which nothing is to be found, do not count.
    pub fn n_eigh_on_host(&self) -> u64 {
        self.n_eigh_on_host.load(Ordering::Relaxed)
    }

    /// What [`eigh`](Self::eigh) refines, as the device gives it and untested: for tests, since refining also mends vectors
    /// that are far worse than f32.
    ///
    /// # Errors
    /// As [`eigh`](Self::eigh); [`KernelError::Limit`] for an order that the device does not take.
    pub fn raw_eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<RawEigh, KernelError> {
        eigh::raw(&*self.sound_context()?, matrices, n, n_matrices)
    }

    /// Fills every result buffer with NaNs before each submit, so that a value no kernel wrote cannot pass for one. For
    /// tests: it costs a copy of each result.
    pub fn poison_results(&self, poison: bool) {
        self.context().set_poisoned(poison);
    }
}
