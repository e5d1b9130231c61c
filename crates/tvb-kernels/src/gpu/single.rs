//! One chunk by itself: a stream of one slot, waited for.

use super::context::Context;
use super::stream::{FirstUse, GpuStream};
use crate::check::check;
use crate::chunk::Chunk;
use crate::cpu::CpuEngine;
use crate::error::KernelError;
use crate::upload::staged_layout;
use crate::work::Work;
use std::sync::Arc;

/// Does `work` on one chunk; what the GPU does not take (f64 results) the CPU engine does.
pub(super) fn run<W: Work>(
    context: Arc<Context>,
    cpu: &CpuEngine,
    work: &W,
    chunk: Chunk<'_>,
    first_use: FirstUse,
) -> Result<W::Output, KernelError> {
    check(work, chunk)?;
    if !work.runs_on_gpu(chunk.layout) {
        let mut out = W::Output::default();
        cpu.run(work, chunk, &mut cpu.scratch(), &mut out)?;
        return Ok(out);
    }
    let staged = staged_layout(chunk.layout)?;
    let mut stream = GpuStream::new(context, work, staged.n_bytes, 1, first_use)?;
    let mut slot = stream.acquire()?;
    if matches!(first_use, FirstUse::IsTest) {
        // Between slices lies what earlier chunks have left there.
        slot.write(0, &vec![0xff; slot.capacity()])?;
    }
    slot.pack(chunk, &staged)?;
    stream.submit(slot, &staged)?;
    stream.next()?.ok_or(KernelError::NoResult)
}
