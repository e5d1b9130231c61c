//! What the work runs on: a device, threads, and how much memory they may take.

use super::chunks::ChunkSize;
use super::staged::chunk_rows;
use crate::checkpoint::Budget;
use crate::columns::plan::Plan;
use crate::cost::Choice;
use crate::digest::BLOCK_ROWS;
use crate::error::{Error, Result};
use tvb_kernels::{AdapterFacts, Backend, CpuEngine, DeviceChoice, Engine, KernelError, triangle_len};

/// A device that was opened, and the limits of a pass.
///
/// ```
/// use tvb::Runtime;
///
/// // "auto", "cpu", "gpu", an index from `tvb devices`, or a part of an adapter's name.
/// let runtime = Runtime::open("cpu")?.with_threads(2).with_memory(256 << 20);
/// println!("{}", runtime.device_name());
/// # Ok::<(), tvb::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Runtime {
    /// The device.
    pub engine: Engine,
    /// Threads that read, compute and write.
    pub n_threads: usize,
    /// Cap on the host buffers of a pass, in bytes.
    pub memory_bytes: u64,
    /// What readers may keep of files: headers, names, pickles, compressed tensors.
    pub budget: Budget,
    /// Cap on what stays in a GPU's own memory between the passes, in bytes.
    pub device_memory_bytes: u64,
    /// Why the CPU was taken though a GPU was chosen, where that is so.
    pub warning: Option<String>,
    /// Which device was taken for the job and why, where there was anything to choose.
    pub choice: Option<Choice>,
}

/// Host buffers of a pass where nothing else is said.
const MEMORY_BYTES: u64 = 512 << 20;
/// What stays in a GPU's own memory where nothing else is said, and its driver does not say how much there is.
const DEVICE_MEMORY_BYTES: u64 = 2 << 30;
/// Else this part of it: others use the card too, and the passes need some.
const DEVICE_MEMORY_PART: u64 = 2;
/// Bytes of the Gram matrices of one chunk's blocks, at most (one block's always fit).
const CHUNK_GRAMS_BYTES: usize = 4 << 20;

impl Runtime {
    /// Opens a device: "cpu", "gpu", an index, or a part of an adapter's name; "auto" is the CPU, as nothing is known of the job
    /// ([`open_for`](Runtime::open_for) knows it). All cores, 512 MB of host buffers and what is [usual](usual_device_memory) of a GPU's own
    /// memory.
    ///
    /// # Errors
    /// Failed: no such device, or one that cannot be opened.
    pub fn open(device: &str) -> Result<Runtime> {
        Runtime::open_on(&DeviceChoice::from_name(device), None)
    }

    /// [`open`](Runtime::open) among the adapters of one graphics interface.
    ///
    /// # Errors
    /// As [`open`](Runtime::open).
    pub fn open_on(device: &DeviceChoice, backend: Option<Backend>) -> Result<Runtime> {
        let opened = tvb_kernels::open(device, backend).map_err(|error| device_error(error).context("device"))?;
        Ok(Runtime::on(opened.engine))
    }

    /// An engine that is open already; all cores, 512 MB of host buffers and what is [usual](usual_device_memory) of a GPU's own
    /// memory.
    pub fn on(engine: Engine) -> Runtime {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_bytes = MEMORY_BYTES;
        let device_memory_bytes = match &engine {
            Engine::Cpu(_) => 0,
            Engine::Gpu(engine) => usual_device_memory(engine.facts()),
        };
        let budget = Budget::new(memory_bytes);
        Runtime { engine, n_threads, memory_bytes, budget, device_memory_bytes, warning: None, choice: None }
    }

    /// The CPU engine.
    pub fn on_cpu(n_threads: usize, memory_bytes: u64) -> Runtime {
        Runtime::on(Engine::Cpu(CpuEngine::new())).with_threads(n_threads).with_memory(memory_bytes)
    }

    /// The same with this many threads; one at least.
    #[must_use]
    pub fn with_threads(self, n_threads: usize) -> Runtime {
        Runtime { n_threads: n_threads.max(1), ..self }
    }

    /// The same with at most `n_bytes` of host buffers.
    #[must_use]
    pub fn with_memory(self, n_bytes: u64) -> Runtime {
        Runtime { memory_bytes: n_bytes, ..self }
    }

    /// The same with another budget for what is kept of files; the one that the inputs were opened with, so that there is
    /// one for the whole run.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Runtime {
        Runtime { budget, ..self }
    }

    /// The same with at most `n_bytes` kept in a GPU's own memory between the passes; 0 for nothing.
    #[must_use]
    pub fn with_device_memory(self, n_bytes: u64) -> Runtime {
        Runtime { device_memory_bytes: n_bytes, ..self }
    }

    /// How the device is shown: "cpu (AVX-512, 2 threads)" or the adapter's name.
    pub fn device_name(&self) -> String {
        match &self.engine {
            Engine::Cpu(engine) => format!("cpu ({}, {} threads)", engine.instruction_set(), self.n_threads),
            Engine::Gpu(engine) => engine.facts().to_string(),
        }
    }

    /// The kind of device: two of a kind give the same bits. "cpu (AVX-512)", or the adapter's name and its interface.
    pub fn device_kind(&self) -> String {
        match &self.engine {
            Engine::Cpu(engine) => format!("cpu ({})", engine.instruction_set()),
            Engine::Gpu(engine) => format!("{} ({})", engine.facts().name, engine.facts().backend.name()),
        }
    }

    /// Whether chunks can stay on the device between passes.
    pub fn keeps_on_device(&self) -> bool {
        match &self.engine {
            Engine::Cpu(_) => false,
            Engine::Gpu(engine) => engine.can_keep() && self.device_memory_bytes > 0,
        }
    }

    /// The size of chunks of a plan; depends on the plan and the kind of device, never on threads or memory.
    pub fn chunk_size(&self, plan: &Plan) -> ChunkSize {
        let n_rows = match &self.engine {
            Engine::Cpu(_) => BLOCK_ROWS,
            Engine::Gpu(engine) => chunk_rows(plan, engine.facts().kind),
        };
        ChunkSize { n_rows, n_blocks: (CHUNK_GRAMS_BYTES / (8 * triangle_len(plan.n_columns()))).max(1) }
    }
}

/// How much of a GPU's own memory is taken for what stays there between passes where nothing else is said, in bytes: half of what
/// there is, or 2 GB where the driver does not say.
pub fn usual_device_memory(facts: &AdapterFacts) -> u64 {
    facts.memory_bytes.map_or(DEVICE_MEMORY_BYTES, |n_bytes| n_bytes / DEVICE_MEMORY_PART)
}

/// An engine's error as one of the library's.
pub fn device_error(error: KernelError) -> Error {
    let made = match error.hint() {
        Some(hint) => Error::failed(error.to_string()).hint(hint),
        None => Error::failed(error.to_string()),
    };
    made.caused_by(error)
}
