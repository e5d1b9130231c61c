//! One engine, two implementations: the GPU's or the CPU's, opened by what the user asked for.

use crate::chunk::Chunk;
use crate::cpu::CpuEngine;
use crate::device::{AdapterFacts, AdapterKind, Backend, DeviceChoice, adapters, choose};
use crate::eigh::Eigh;
use crate::error::KernelError;
use crate::gpu::{DeviceSetup, GpuEngine};
use crate::limits::{EIGH_SIDES, MAX_TASKS};
use crate::work::Work;

/// What does the work.
#[derive(Clone, Debug)]
pub enum Engine {
    /// The processor, one chunk on each thread that asks.
    Cpu(CpuEngine),
    /// An adapter, through wgpu.
    Gpu(GpuEngine),
}

/// An engine that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The engine.
    pub engine: Engine,
    /// The adapter's facts; `None` for the CPU engine.
    pub facts: Option<AdapterFacts>,
}

/// The adapters of this machine, found once: to look for them again takes as long as the first time.
#[derive(Debug)]
pub struct Adapters {
    found: Vec<(wgpu::Adapter, AdapterFacts)>,
}

impl Adapters {
    /// Those of `backend`, all but GL where `None`.
    pub fn find(backend: Option<Backend>) -> Adapters {
        Adapters { found: adapters(backend) }
    }

    /// What there is to know about each, in the order that [`DeviceChoice::Index`] counts in.
    pub fn facts(&self) -> Vec<AdapterFacts> {
        self.found.iter().map(|(_, facts)| facts.clone()).collect()
    }

    /// Opens what `choice` means among them.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&self, choice: &DeviceChoice, setup: DeviceSetup) -> Result<Opened, KernelError> {
        let all = self.facts();
        let found = choose(choice, &all)?.and_then(|at| self.found.get(at));
        let Some((adapter, facts)) = found else { return Ok(Opened::cpu()) };
        let engine = GpuEngine::open(adapter, facts.clone(), setup)?;
        if facts.kind == AdapterKind::Software {
            tracing::debug!(adapter = %facts, "a software adapter: the CPU engine is faster");
        }
        Ok(Opened { engine: Engine::Gpu(engine), facts: Some(facts.clone()) })
    }
}

impl Opened {
    /// The CPU engine, which needs no test.
    pub fn cpu() -> Opened {
        Opened { engine: Engine::Cpu(CpuEngine::new()), facts: None }
    }
}

impl Engine {
    /// Name for people: the adapter's, or the CPU engine's with its instruction set.
    pub fn name(&self) -> String {
        match self {
            Engine::Cpu(engine) => format!("CPU ({})", engine.instruction_set()),
            Engine::Gpu(engine) => engine.facts().to_string(),
        }
    }

    /// Does `work` on one chunk and waits for it: for tests and measurements. Passes over many chunks use
    /// [`CpuEngine::run`] on each thread, or a [`GpuStream`](crate::GpuStream).
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work, and device errors.
    pub fn run<W: Work>(&self, work: &W, chunk: Chunk<'_>) -> Result<W::Output, KernelError> {
        match self {
            Engine::Cpu(engine) => {
                let mut out = W::Output::default();
                engine.run(work, chunk, &mut engine.scratch(), &mut out)?;
                Ok(out)
            }
            Engine::Gpu(engine) => engine.run(work, chunk),
        }
    }

    /// Whether [`eigh`](Self::eigh) of matrices of order n belongs on this engine's device: on a GPU up to order 64, which a
    /// workgroup's memory holds, and beyond that on cards with memory of their own. Elsewhere larger ones take the CPU far less
    /// time. [`eigh`](Self::eigh) itself does as it is told.
    pub fn decomposes(&self, n: usize) -> bool {
        match self {
            Engine::Cpu(_) => false,
            Engine::Gpu(engine) => {
                let most =
                    if engine.facts().kind == AdapterKind::Discrete { MAX_TASKS } else { EIGH_SIDES[1] as usize };
                (2..=most).contains(&n)
            }
        }
    }

    /// Eigendecomposition of `n_matrices` symmetric n×n matrices laid one after another, column-major
    /// \[n_matrices, n, n\]; lower triangles are read.
    ///
    /// # Errors
    /// [`KernelError`] when the length is not n_matrices · n², an entry is not finite, or the iteration fails.
    pub fn eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
        match self {
            Engine::Cpu(engine) => engine.eigh(matrices, n, n_matrices),
            Engine::Gpu(engine) => engine.eigh(matrices, n, n_matrices),
        }
    }
}

/// Opens the device that `choice` means among those of `backend` (all but GL where `None`). Nothing is compiled for it or run on
/// it yet: each variant of a kernel is tested against the CPU engine when a job first uses it, and
/// [`KernelError::SelfTest`] comes out of that use where it is wrong.
///
/// # Errors
/// [`KernelError::NoAdapter`], [`KernelError::OnlySoftware`], and device errors.
pub fn open(choice: &DeviceChoice, backend: Option<Backend>) -> Result<Opened, KernelError> {
    open_as(choice, backend, DeviceSetup::default())
}

/// [`open`] with a setup that some other adapter would have: for tests.
///
/// # Errors
/// As [`open`].
pub fn open_as(choice: &DeviceChoice, backend: Option<Backend>, setup: DeviceSetup) -> Result<Opened, KernelError> {
    match choice {
        // Nobody asks the drivers.
        DeviceChoice::Cpu | DeviceChoice::Auto => Ok(Opened::cpu()),
        _ => Adapters::find(backend).open(choice, setup),
    }
}
