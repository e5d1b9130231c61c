//! Running a pass: every chunk read, worked on, and folded in chunk order.
//!
//! On the CPU each worker reads a chunk, digests it, computes on it and writes its results before it takes the next,
//! so that the bytes stay in that core's cache from the read to the write. On a GPU, reader threads fill a ring of
//! staging buffers while the device works. Either way results are folded strictly in chunk order, by whichever thread
//! completes the next one in line, so that sums repeat bit for bit whatever the timing.

use super::gpu;
use super::line::Line;
use super::on_host::{OnCpu, visit_chunks};
use super::op::{Folded, HostOperation, Operation};
use super::pass::Pass;
use super::runtime::Runtime;
use crate::error::Result;
use crate::progress::Progress;
use tvb_kernels::Engine;

impl Pass<'_> {
    /// Runs an operation of the engine. What it yields of every chunk goes to `fold`, strictly in chunk order.
    ///
    /// # Errors
    /// The first error of reading, of the device, of the operation or of `fold`; interrupted where `progress` says so.
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
                let line = Line::new(&self.grid, fold);
                gpu::run(self, operation, engine, runtime, progress, &line)?;
                line.finish()
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
        let line = Line::new(&self.grid, fold);
        let chunks: Vec<usize> = (0..self.grid.n_chunks()).collect();
        visit_chunks(self, operation, &chunks, runtime, progress, &line);
        line.finish()
    }
}
