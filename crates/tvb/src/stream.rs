//! The pass: every chunk read, worked on by the engine, and folded in chunk order.
//!
//! On the CPU each worker reads a chunk, digests it, computes on it and writes its results before it takes the next,
//! so that the bytes stay in that core's cache from the read to the write. On a GPU, reader threads fill a ring of
//! staging buffers while the device works. Either way results are folded strictly in chunk order, by whichever thread
//! completes the next one in line, so that sums repeat bit for bit whatever the timing.

use crate::chunks::{Block, ChunkReader, Grid};
use crate::digest::{BLOCK_ROWS, Digest};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tvb_kernels::{Chunk, ChunkLayout, Engine, Output, Scratch, Work};

/// What the work runs on.
#[derive(Debug)]
pub struct Runtime {
    /// The device.
    pub engine: Engine,
    /// Threads that read, compute and write.
    pub n_threads: usize,
    /// Cap on the host buffers of a pass, in bytes.
    pub memory_bytes: u64,
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
    /// How the device is shown: "cpu (AVX-512, 2 threads)" or the adapter's name.
    pub fn device_name(&self) -> String {
        match &self.engine {
            Engine::Cpu(engine) => format!("cpu ({}, {} threads)", engine.instruction_set(), self.n_threads),
        }
    }

    /// Rows of one chunk for `n_columns` columns; depends on the kind of device, never on threads or memory.
    pub fn rows_per_chunk(&self, n_columns: usize) -> usize {
        match self.engine {
            Engine::Cpu(_) => BLOCK_ROWS,
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
        let n_threads = self.n_workers(runtime);
        let line = Line::new(&self.grid, fold);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut reader = ChunkReader::default();
            let mut state = state();
            while line.wait_for_room(n_threads * AHEAD_PER_THREAD, progress) {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= self.grid.n_chunks() {
                    break;
                }
                let blocks = self.grid.blocks(chunk);
                let result = reader.read(self.plan, blocks, |tensor| self.slots.get(tensor).copied().unwrap_or(0));
                let result = result.and_then(|()| {
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
                scope.spawn(&work);
            }
            work();
        });
        line.finish()
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

fn device_error(error: tvb_kernels::KernelError) -> Error {
    Error::failed(error.to_string())
}

/// Results waiting their turn.
struct Line<'a, R, F> {
    grid: &'a Grid,
    state: Mutex<LineState<R, F>>,
    moved: Condvar,
}

struct LineState<R, F> {
    fold: F,
    /// Chunks folded so far: the number of the next in line.
    n_folded: usize,
    waiting: BTreeMap<usize, R>,
    error: Option<Error>,
    /// Chunks taken by a worker and neither folded nor waiting.
    n_taken: usize,
}

impl<'a, R: Send, F: FnMut(&[Block], R) -> Result<()> + Send> Line<'a, R, F> {
    fn new(grid: &'a Grid, fold: F) -> Self {
        let state = LineState { fold, n_folded: 0, waiting: BTreeMap::new(), error: None, n_taken: 0 };
        Line { grid, state: Mutex::new(state), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, LineState<R, F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `limit` results are ahead of the next in line; false when the pass is over.
    fn wait_for_room(&self, limit: usize, progress: &dyn Progress) -> bool {
        if progress.cancelled() {
            self.fail(Error::interrupted());
        }
        let mut state = self.lock();
        while state.waiting.len() + state.n_taken >= limit && state.n_taken > 0 && state.error.is_none() {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.n_taken += 1;
        state.error.is_none()
    }

    /// Hands in the result of one chunk and folds whatever is next in line.
    fn put(&self, chunk: usize, result: R) -> Result<()> {
        let mut state = self.lock();
        state.n_taken -= 1;
        state.waiting.insert(chunk, result);
        let state = &mut *state;
        while let Some(result) = state.waiting.remove(&state.n_folded) {
            (state.fold)(self.grid.blocks(state.n_folded), result)?;
            state.n_folded += 1;
        }
        self.moved.notify_all();
        Ok(())
    }

    /// Keeps the first error and stops every worker.
    fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.moved.notify_all();
    }

    fn finish(self) -> Result<()> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(error) => Err(error),
            None if state.n_folded < self.grid.n_chunks() => Err(Error::failed("a worker stopped before its chunk was done")),
            None => Ok(()),
        }
    }
}
