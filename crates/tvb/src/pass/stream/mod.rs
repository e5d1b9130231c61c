//! The pass: every chunk read, worked on by the engine, and folded in chunk order.
//!
//! On the CPU each worker reads a chunk, digests it, computes on it and writes its results before it takes the next,
//! so that the bytes stay in that core's cache from the read to the write. On a GPU, reader threads fill a ring of
//! staging buffers while the device works. Either way results are folded strictly in chunk order, by whichever thread
//! completes the next one in line, so that sums repeat bit for bit whatever the timing.

mod gpu;
mod line;

use crate::columns::plan::Plan;
use crate::digest::{BLOCK_ROWS, Digest};
use crate::error::{Error, Result};
use crate::pass::chunks::{Block, ChunkReader, Grid};
use crate::progress::Progress;
use line::Line;
use std::sync::atomic::{AtomicUsize, Ordering};
use tvb_kernels::{Chunk, ChunkLayout, CpuEngine, Engine, Output, Scratch, Work};

/// What the work runs on.
#[derive(Debug)]
pub struct Runtime {
    /// The device.
    pub engine: Engine,
    /// Threads that read, compute and write.
    pub n_threads: usize,
    /// Cap on the host buffers of a pass, in bytes.
    pub memory_bytes: u64,
    /// Cap on what stays in a GPU's own memory between the passes, in bytes.
    pub device_memory_bytes: u64,
}

/// One pass over the chunks of a plan.
pub struct Pass<'a> {
    /// What is read.
    pub plan: &'a Plan,
    /// In which chunks.
    pub grid: Grid,
    /// What is done to each.
    pub work: Work,
    /// The Gram slot of each planned tensor; other work ignores it.
    pub slots: Vec<usize>,
}

/// A chunk whose work is done, as it is handed to the caller on the thread that did it.
pub struct Done<'a> {
    /// Its blocks.
    pub blocks: &'a [Block],
    /// Where they lay in the chunk.
    pub layout: &'a ChunkLayout,
    /// [n_blocks, n_columns] digests of the bytes that were read.
    pub digests: &'a [Digest],
    /// What the engine made of them; may be taken.
    pub output: &'a mut Output,
}

/// Chunks that may be finished ahead of the one that is next in line, for each thread.
const AHEAD_PER_THREAD: usize = 4;

/// Bytes of one chunk on a GPU, all columns together: large enough to hide submission, small enough to overlap.
const GPU_CHUNK_BYTES: usize = 16 << 20;

impl Runtime {
    /// The CPU engine.
    pub fn on_cpu(n_threads: usize, memory_bytes: u64) -> Runtime {
        Runtime { engine: Engine::Cpu(CpuEngine::new()), n_threads, memory_bytes, device_memory_bytes: 0 }
    }

    /// How the device is shown: "cpu (AVX-512, 2 threads)" or the adapter's name.
    pub fn device_name(&self) -> String {
        match &self.engine {
            Engine::Cpu(engine) => format!("cpu ({}, {} threads)", engine.instruction_set(), self.n_threads),
            Engine::Gpu(engine) => engine.facts().to_string(),
        }
    }

    /// Whether chunks can stay on the device between passes.
    pub fn keeps_on_device(&self) -> bool {
        match &self.engine {
            Engine::Cpu(_) => false,
            Engine::Gpu(engine) => engine.can_keep() && self.device_memory_bytes > 0,
        }
    }

    /// Rows of one chunk for `n_columns` columns; depends on the kind of device, never on threads or memory.
    pub fn rows_per_chunk(&self, n_columns: usize) -> usize {
        match self.engine {
            Engine::Cpu(_) => BLOCK_ROWS,
            Engine::Gpu(_) => (GPU_CHUNK_BYTES / (4 * n_columns)).next_multiple_of(BLOCK_ROWS),
        }
    }
}

/// A chunk that was read, as it is handed to a visitor on the thread that read it.
pub struct Visit<'a> {
    /// Its blocks.
    pub blocks: &'a [Block],
    /// Its bytes and where in them the columns lie.
    pub chunk: Chunk<'a>,
    /// [n_blocks, n_columns] digests of the bytes.
    pub digests: &'a [Digest],
}

impl Pass<'_> {
    /// Runs the pass. `each` is called for every chunk on the thread that worked on it, in any order and several at
    /// once; what it answers goes to `fold` strictly in chunk order.
    ///
    /// # Errors
    /// The first error of reading, of the device, of `each` or of `fold`; interrupted where `progress` says so.
    pub fn run<R: Send>(
        &self,
        runtime: &Runtime,
        progress: &dyn Progress,
        each: impl Fn(Done<'_>) -> Result<R> + Sync,
        fold: impl FnMut(&[Block], R) -> Result<()> + Send,
    ) -> Result<()> {
        match &runtime.engine {
            Engine::Cpu(engine) => {
                let state = || (engine.scratch(), Output::Rows(Vec::new()));
                let visit = |(scratch, output): &mut (Scratch, Output), visit: Visit<'_>| {
                    engine.run(&self.work, visit.chunk, scratch, output).map_err(device_error)?;
                    each(Done { blocks: visit.blocks, layout: visit.chunk.layout, digests: visit.digests, output })
                };
                self.visit(runtime, progress, state, visit, fold)
            }
            Engine::Gpu(engine) => {
                let line = Line::new(&self.grid, fold);
                self.run_gpu(engine, runtime, progress, &each, &line)?;
                line.finish()
            }
        }
    }

    /// Reads every chunk without an engine: each worker has its own `state`.
    ///
    /// # Errors
    /// As [`run`](Pass::run).
    pub fn visit<S, R: Send>(
        &self,
        runtime: &Runtime,
        progress: &dyn Progress,
        state: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, Visit<'_>) -> Result<R> + Sync,
        fold: impl FnMut(&[Block], R) -> Result<()> + Send,
    ) -> Result<()> {
        let line = Line::new(&self.grid, fold);
        let chunks: Vec<usize> = (0..self.grid.n_chunks()).collect();
        self.visit_chunks(&chunks, runtime, progress, &state, &each, &line);
        line.finish()
    }

    /// Reads the given chunks with as many workers as the memory cap leaves room for.
    fn visit_chunks<S, R: Send, F: FnMut(&[Block], R) -> Result<()> + Send>(
        &self,
        chunks: &[usize],
        runtime: &Runtime,
        progress: &dyn Progress,
        state: &(impl Fn() -> S + Sync),
        each: &(impl Fn(&mut S, Visit<'_>) -> Result<R> + Sync),
        line: &Line<'_, R, F>,
    ) {
        let n_threads = self.n_workers(runtime);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut reader = ChunkReader::default();
            let mut state = state();
            while line.wait_for_room(n_threads * AHEAD_PER_THREAD, progress) {
                let Some(&chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let blocks = self.grid.blocks(chunk);
                let result = self.read(&mut reader, chunk).and_then(|()| {
                    each(&mut state, Visit { blocks, chunk: reader.chunk(), digests: reader.digests() })
                });
                match result.and_then(|result| line.put(chunk, result)) {
                    Ok(()) => progress.advance(reader.chunk().bytes.len() as u64),
                    Err(error) => line.fail(error),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..n_threads {
                scope.spawn(work);
            }
            work();
        });
    }

    fn read(&self, reader: &mut ChunkReader, chunk: usize) -> Result<()> {
        reader.read(self.plan, self.grid.blocks(chunk), |tensor| self.slots.get(tensor).copied().unwrap_or(0))
    }

    /// Threads the memory cap leaves room for: one buffer for the columns and one for the results each.
    fn n_workers(&self, runtime: &Runtime) -> usize {
        let n_outputs = match &self.work {
            Work::Gram => 0,
            Work::Project(project) => project.n_atoms,
            Work::Reconstruct(reconstruct) => reconstruct.n_outputs,
        };
        let rows = (0..self.grid.n_chunks())
            .map(|chunk| self.grid.blocks(chunk).iter().map(|block| block.n_rows).sum::<usize>())
            .max()
            .unwrap_or(0);
        let bytes_each = (rows * (self.plan.n_columns() + n_outputs) * 4).max(1) as u64;
        let affordable = usize::try_from(runtime.memory_bytes / bytes_each).unwrap_or(usize::MAX);
        runtime.n_threads.min(affordable).clamp(1, self.grid.n_chunks().max(1))
    }
}

/// An engine's error as one of the library's.
pub fn device_error(error: tvb_kernels::KernelError) -> Error {
    let made = match error.hint() {
        Some(hint) => Error::failed(error.to_string()).hint(hint),
        None => Error::failed(error.to_string()),
    };
    made.caused_by(error)
}
