//! A pass on the host: each worker reads a chunk and works on it while the bytes are in its core's cache.

use super::line::{Left, Line};
use super::op::{Done, Folded, HostOperation, Operation, ReadChunk};
use super::pass::Pass;
use super::reader::ChunkReader;
use super::runtime::{Runtime, device_error};
use crate::error::Result;
use crate::progress::Progress;
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{CpuEngine, Scratch, Work};

/// Chunks that may be finished ahead of the one that is next in line, for each thread.
const AHEAD_PER_THREAD: usize = 4;

/// An engine's operation, done by the CPU engine on the thread that has read the chunk.
pub(super) struct OnCpu<'a, O> {
    pub(super) engine: CpuEngine,
    pub(super) operation: &'a O,
}

impl<O: Operation> HostOperation for OnCpu<'_, O> {
    type Part = O::Part;
    type Buffers = (Scratch, <O::Work as Work>::Output);

    fn n_outputs(&self) -> usize {
        self.operation.work().n_outputs()
    }

    fn on_chunk(&self, read: ReadChunk<'_>, (scratch, output): &mut Self::Buffers) -> Result<O::Part> {
        self.engine.run(self.operation.work(), read.chunk, scratch, output).map_err(device_error)?;
        let done = Done { blocks: read.blocks, layout: read.chunk.layout, digests: read.digests };
        self.operation.finish(done, output)
    }
}

/// Works on the given chunks with as many threads as the memory cap leaves room for; errors go to the line.
pub(super) fn visit_chunks<O: HostOperation, F: FnMut(Folded<'_, O::Part>) -> Result<()> + Send>(
    pass: &Pass<'_>,
    operation: &O,
    chunks: Left,
    runtime: &Runtime,
    progress: &dyn Progress,
    line: &Line<'_, O::Part, F>,
) {
    let bytes_each = pass.worker_bytes(operation.n_outputs());
    let n_workers = runtime.n_affordable(bytes_each, runtime.n_threads).min(pass.grid.n_chunks().max(1));
    let chunks = Mutex::new(chunks);
    let take = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut reader = ChunkReader::default();
        let mut buffers = O::Buffers::default();
        while line.wait_for_room(n_workers * AHEAD_PER_THREAD, progress) {
            let Some(chunk) = take() else { break };
            let blocks = pass.grid.blocks(chunk);
            let part = reader
                .read(pass.plan, pass.reads, &blocks)
                .and_then(|()| operation.on_chunk(reader.read_chunk(&blocks), &mut buffers));
            match part.and_then(|part| line.put(chunk, reader.digests(), part)) {
                Ok(()) => progress.advance(pass.chunk_bytes(chunk)),
                Err(error) => line.fail(error),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_workers {
            scope.spawn(work);
        }
        work();
    });
}
