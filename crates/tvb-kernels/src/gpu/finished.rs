//! A chunk that the device is done with: its result lies in mapped memory, from which any thread may take it.
//!
//! Reading that memory is slow (1.5 to 2 GB/s on one thread beside an H100), so it is left to whoever has the time: the thread that
//! polls the device only hands it on and gets the buffer back.

use super::plan::Plan;
use crate::error::KernelError;
use crate::work::Work;

/// A result that waits to be taken, on whichever thread. Give it back with
/// [`GpuStream::take_back`](crate::GpuStream::take_back), so that its buffer is used again.
pub struct Finished<W: Work> {
    pub(super) stream: u64,
    pub(super) plan: Plan<W::Parts>,
    pub(super) mapped: Option<Mapped>,
}

/// The buffer that a result was read back to. The view must be gone before the buffer is unmapped.
pub(super) struct Mapped {
    pub(super) view: wgpu::BufferView,
    pub(super) buffer: wgpu::Buffer,
}

impl<W: Work> std::fmt::Debug for Finished<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finished").field("readback_words", &self.plan.readback_words).finish_non_exhaustive()
    }
}

impl<W: Work> Finished<W> {
    /// A result whose marks are all there.
    ///
    /// # Errors
    /// [`KernelError::Unfinished`] where one is missing.
    pub(super) fn new(stream: u64, plan: Plan<W::Parts>, mapped: Option<Mapped>) -> Result<Self, KernelError> {
        let finished = Finished { stream, plan, mapped };
        finished.plan.finished(finished.bytes())?;
        Ok(finished)
    }

    fn bytes(&self) -> &[u8] {
        self.mapped.as_ref().map_or(&[], |mapped| &mapped.view)
    }

    /// Takes the result out, in place of what `out` holds, whose memory is used again.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] where it does not fit in memory.
    pub fn collect(&self, out: &mut W::Output) -> Result<(), KernelError> {
        W::collect(&self.plan.parts, self.plan.readback(self.bytes()), out)
    }
}
