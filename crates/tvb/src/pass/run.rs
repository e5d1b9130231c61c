//! Running a pass: every chunk read, worked on, and folded in chunk order.
//!
//! On the CPU each worker reads a chunk, digests it, computes on it and writes its results before it takes the next,
//! so that the bytes stay in that core's cache from the read to the write. On a GPU, reader threads fill a ring of
//! staging buffers while the device works. Either way results are folded strictly in chunk order, by whichever thread
//! completes the next one in line, so that sums repeat bit for bit whatever the timing.

use super::gpu;
use super::line::{Left, Line};
use super::on_host::{OnCpu, visit_chunks};
use super::op::{Folded, HostOperation, Operation};
use super::pass::Pass;
use super::runtime::Runtime;
use crate::error::{ErrorKind, Result};
use crate::progress::Progress;
use tvb_kernels::{Engine, Work};

impl Pass<'_> {
    /// Runs an operation of the engine. What it yields of every chunk goes to `fold`, strictly in chunk order.
    ///
    /// # Errors
    /// The first error of reading, of the device, of the operation or of `fold`; interrupted where `progress` says so.
    /// Usage: a memory cap that leaves no room for one chunk. Rejected: a file that was written to, replaced or removed since it was opened.
    pub fn run<O: Operation>(
        &self,
        operation: &O,
        runtime: &Runtime,
        progress: &dyn Progress,
        fold: impl FnMut(Folded<'_, O::Part>) -> Result<()> + Send,
    ) -> Result<()> {
        match &runtime.engine {
            Engine::Cpu(engine) => self.visit(&OnCpu { engine: *engine, operation }, runtime, progress, fold),
            Engine::Gpu(engine) => {
                self.check_memory(operation.work().n_outputs(), runtime)?;
                let line = Line::new(&self.grid, fold);
                gpu::run(self, operation, engine, runtime, progress, &line)?;
                self.close(line.finish())
            }
        }
    }

    /// Runs an operation of the host, whatever the device. What it yields of every chunk goes to `fold`, strictly in chunk
    /// order.
    ///
    /// # Errors
    /// As [`run`](Pass::run), but for the device.
    pub fn visit<O: HostOperation>(
        &self,
        operation: &O,
        runtime: &Runtime,
        progress: &dyn Progress,
        fold: impl FnMut(Folded<'_, O::Part>) -> Result<()> + Send,
    ) -> Result<()> {
        self.check_memory(operation.n_outputs(), runtime)?;
        let line = Line::new(&self.grid, fold);
        visit_chunks(self, operation, Left::all(&self.grid), runtime, progress, &line);
        self.close(line.finish())
    }

    /// Whether every file that was read is still the one that was opened: what was read of it belongs together then. Asked
    /// at the end of each pass, so that no job can forget it; where a pass has failed, that may be why.
    fn close(&self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome
            && error.kind() == ErrorKind::Interrupted
        {
            return outcome;
        }
        (0..self.plan.n_digests()).try_for_each(|column| self.plan.column_checkpoint(column).check_unchanged())?;
        outcome
    }
}
