//! A pass on the host: each worker reads a chunk and works on it while the bytes are in its core's cache.

use super::line::Line;
use super::op::{Done, Folded, HostOperation, Operation, ReadChunk};
use super::pass::Pass;
use super::reader::ChunkReader;
use super::runtime::{Runtime, device_error};
use crate::error::Result;
use crate::progress::Progress;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        self.operation.finish(Done { blocks: read.blocks, layout: read.chunk.layout }, output)
    }
}

/// Works on the given chunks with as many threads as the memory cap leaves room for; errors go to the line.
pub(super) fn visit_chunks<O: HostOperation, F: FnMut(Folded<'_, O::Part>) -> Result<()> + Send>(
    pass: &Pass<'_>,
    operation: &O,
    chunks: &[usize],
    runtime: &Runtime,
    progress: &dyn Progress,
    line: &Line<'_, O::Part, F>,
) {
    let n_workers = n_workers(pass, operation.n_outputs(), runtime);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reader = ChunkReader::default();
        let mut buffers = O::Buffers::default();
        while line.wait_for_room(n_workers * AHEAD_PER_THREAD, progress) {
            let Some(&chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let blocks = pass.grid.blocks(chunk);
            let part = reader
                .read(pass.plan, pass.reads, blocks)
                .and_then(|()| operation.on_chunk(ReadChunk { blocks, chunk: reader.chunk() }, &mut buffers));
            match part.and_then(|part| line.put(chunk, reader.digests(), part)) {
                Ok(()) => progress.advance(reader.chunk().bytes.len() as u64),
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

/// Threads the memory cap leaves room for: one buffer for the columns and one for the results each.
fn n_workers(pass: &Pass<'_>, n_outputs: usize, runtime: &Runtime) -> usize {
    let n_columns = pass.plan.n_columns().saturating_add(n_outputs);
    let bytes_each = pass.grid.most_rows().saturating_mul(n_columns).saturating_mul(4).max(1) as u64;
    let affordable = usize::try_from(runtime.memory_bytes / bytes_each).unwrap_or(usize::MAX);
    runtime.n_threads.min(affordable).clamp(1, pass.grid.n_chunks().max(1))
}
