//! A stream of chunks through the GPU: a ring of mapped staging buffers, several submits in flight, results in order.
//!
//! ```text
//! acquire → StagingSlot (readers write) → submit: copy, kernels, readback → next_finished → Finished (workers read) → take_back
//! ```
//! One thread holds the stream and is the only one that polls the device; slots and finished chunks may travel to other threads.

use super::context::Context;
use super::finished::{Finished, Mapped};
use super::kept::KeptChunk;
use super::plan::Plan;
use super::record::{PlanBuffers, Recorded, Steps, weights_buffer};
use super::shader::Kernel;
use crate::check::check_layout;
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::upload::{StagingSlot, staged_layout};
use crate::work::Work;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use wgpu::{BufferUsages, MapMode};

/// Whether kernels are tested before they are used.
#[derive(Clone, Copy)]
pub(super) enum FirstUse {
    /// Before the first chunk that needs them, by this.
    Test(fn(&Arc<Context>, Kernel) -> Result<(), KernelError>),
    /// They are being tested.
    IsTest,
}

impl FirstUse {
    /// Tests the kernels of a plan, if they are to be.
    pub(super) fn of<P>(self, context: &Arc<Context>, plan: &Plan<P>) -> Result<(), KernelError> {
        match self {
            FirstUse::Test(test) => plan.kernels().try_for_each(|kernel| test(context, kernel)),
            FirstUse::IsTest => Ok(()),
        }
    }
}

/// Chunks of one pass on their way through the GPU.
///
/// ```
/// use tvb_kernels::{Chunk, Engine, KernelError, Work, staged_layout};
///
/// /// Does `work` on every chunk, on whichever engine; results in the order of the chunks.
/// fn run_all<W: Work>(engine: &Engine, work: &W, chunks: &[Chunk<'_>]) -> Result<Vec<W::Output>, KernelError> {
///     let mut results = Vec::new();
///     match engine {
///         Engine::Cpu(engine) => {
///             let mut scratch = engine.scratch();
///             for chunk in chunks {
///                 let mut out = W::Output::default();
///                 engine.run(work, *chunk, &mut scratch, &mut out)?;
///                 results.push(out);
///             }
///         }
///         Engine::Gpu(engine) => {
///             let mut stream = engine.stream(work, 16 << 20, 4)?;
///             for chunk in chunks {
///                 let staged = staged_layout(chunk.layout)?;
///                 let mut slot = stream.acquire()?;
///                 slot.pack(*chunk, &staged)?;
///                 stream.submit(slot, &staged)?;
///             }
///             while let Some(out) = stream.next()? {
///                 results.push(out);
///             }
///         }
///     }
///     Ok(results)
/// }
///
/// // run_all(&engine, &Gram::ALL, &chunks)? is a Vec<Triangles>.
/// ```
pub struct GpuStream<W: Work> {
    context: Arc<Context>,
    first_use: FirstUse,
    work: W,
    id: u64,
    slot_bytes: usize,
    weights: wgpu::Buffer,
    slots: Vec<Slot>,
    free: Vec<usize>,
    pending: VecDeque<Pending<W>>,
    done: VecDeque<Finished<W>>,
    /// Readback buffers that nothing is in.
    readbacks: Vec<wgpu::Buffer>,
}

/// The buffers of one chunk in flight.
struct Slot {
    staging: wgpu::Buffer,
    /// `None` where the staging buffer itself is bound.
    chunk: Option<wgpu::Buffer>,
    tables: Option<wgpu::Buffer>,
    out: Option<wgpu::Buffer>,
}

enum Pending<W: Work> {
    /// Nothing was left for the device to do.
    Ready(Plan<W::Parts>),
    Submitted {
        slot: usize,
        plan: Plan<W::Parts>,
        readback: wgpu::Buffer,
        submission: wgpu::SubmissionIndex,
        n_mapped: Arc<AtomicUsize>,
        /// Buffers that are being mapped: the readback, and the staging buffer where the chunk came out of it.
        n_to_map: usize,
    },
}

/// Where a chunk's bytes come from.
enum Source<'a> {
    /// The slot's staging buffer; they pass through the slot.
    Staged { n_bytes: usize },
    /// The slot's staging buffer, to be kept here.
    Keeping { kept: &'a KeptChunk, n_bytes: usize },
    /// They are on the device already.
    Kept(&'a KeptChunk),
}

impl<W: Work> std::fmt::Debug for GpuStream<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuStream")
            .field("device", &self.context.facts.name)
            .field("slot_bytes", &self.slot_bytes)
            .field("n_slots", &self.slots.len())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<W: Work> GpuStream<W> {
    pub(super) fn new(
        context: Arc<Context>,
        work: &W,
        max_chunk_bytes: usize,
        n_slots: usize,
        first_use: FirstUse,
    ) -> Result<Self, KernelError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let slot_bytes = max_chunk_bytes.max(16).next_multiple_of(16);
        let most = context.facts.max_binding_bytes.min(context.facts.max_buffer_bytes);
        if slot_bytes as u64 > most {
            return Err(KernelError::Limit { what: "bytes of a chunk", found: slot_bytes as u64, most });
        }
        let weights = weights_buffer(&context, work)?;
        let staging_usage = if context.direct { BufferUsages::STORAGE } else { BufferUsages::COPY_SRC };
        let slots = (0..n_slots.max(1))
            .map(|_| {
                let n_bytes = slot_bytes as u64;
                let chunk_usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
                Ok(Slot {
                    staging: context.buffer("staging", n_bytes, BufferUsages::MAP_WRITE | staging_usage, true)?,
                    chunk: match context.direct {
                        true => None,
                        false => Some(context.buffer("chunk", n_bytes, chunk_usage, false)?),
                    },
                    tables: None,
                    out: None,
                })
            })
            .collect::<Result<Vec<_>, KernelError>>()?;
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            first_use,
            work: work.clone(),
            slot_bytes,
            weights,
            free: (0..slots.len()).rev().collect(),
            slots,
            pending: VecDeque::new(),
            done: VecDeque::new(),
            readbacks: Vec::new(),
            context,
        })
    }

    /// Whether a chunk of this layout can go through this stream: no f64 where the GPU has none, small enough for its
    /// buffers. Others are for the CPU engine, which gives the same result.
    pub fn takes(&self, layout: &ChunkLayout) -> bool {
        check_layout(&self.work, layout).is_ok()
            && self.work.runs_on_gpu(layout)
            && staged_layout(layout)
                .and_then(|staged| {
                    let plan = self.work.plan(&staged, self.context.shape, 1)?;
                    self.check_sizes(&plan, &staged, self.slot_bytes as u64)
                })
                .is_ok()
    }

    /// A staging buffer to fill. Where all are in flight, waits for the oldest, whose result [`next`](Self::next) gives.
    ///
    /// # Errors
    /// [`KernelError::NoFreeSlot`] where every slot is in its user's hands; device errors.
    pub fn acquire(&mut self) -> Result<StagingSlot, KernelError> {
        self.wait_for_slot()?;
        let index = self.free.pop().ok_or(KernelError::NoFreeSlot)?;
        let view = self.slots[index].staging.get_mapped_range_mut(..);
        let view =
            view.map_err(|error| KernelError::Device { what: "mapping a buffer", message: error.to_string() })?;
        Ok(StagingSlot { index, stream: self.id, view })
    }

    fn wait_for_slot(&mut self) -> Result<(), KernelError> {
        while self.free.is_empty() {
            let finished = self.finish_oldest()?.ok_or(KernelError::NoFreeSlot)?;
            self.done.push_back(finished);
        }
        Ok(())
    }

    /// Takes back a slot that is not to be submitted.
    pub fn release(&mut self, slot: StagingSlot) {
        if slot.stream == self.id {
            self.free.push(slot.index);
        }
    }

    /// Enqueues a filled slot: upload, kernels and the readback of the result. Returns at once.
    ///
    /// # Errors
    /// [`KernelError::NotOnGpu`] for layouts with f64 (see [`staged_layout`](crate::staged_layout)),
    /// [`KernelError::ForeignSlot`] for a slot of another stream, [`KernelError::SelfTest`] where a kernel is used for the first
    /// time and gets its test wrong; other [`KernelError`]s when the layout does not fit the slot or the work, and device errors. The slot is free again then.
    pub fn submit(&mut self, slot: StagingSlot, layout: &ChunkLayout) -> Result<(), KernelError> {
        self.give_back(slot)?;
        self.submit_from(&Source::Staged { n_bytes: layout.n_bytes }, layout)
    }

    /// [`submit`](Self::submit), and the chunk stays on the device for [`submit_kept`](Self::submit_kept); `None` where it
    /// has no memory of its own, or no room left there.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_keeping(
        &mut self,
        slot: StagingSlot,
        layout: &ChunkLayout,
    ) -> Result<Option<KeptChunk>, KernelError> {
        self.give_back(slot)?;
        let n_bytes = layout.n_bytes;
        let kept = match self.context.own_memory {
            true => KeptChunk::new(&self.context, n_bytes as u64)?,
            false => None,
        };
        let source = kept.as_ref().map_or(Source::Staged { n_bytes }, |kept| Source::Keeping { kept, n_bytes });
        self.submit_from(&source, layout)?;
        Ok(kept)
    }

    /// Whether a chunk that was kept is on this stream's device: one that was reopened has lost it.
    pub fn has(&self, kept: &KeptChunk) -> bool {
        kept.is_on(&self.context)
    }

    /// Enqueues a chunk that an earlier stream has kept. `layout` may leave out segments of the one it was kept with. Where
    /// all slots are in flight, waits for the oldest, whose result [`next`](Self::next) gives.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); [`KernelError::KeptElsewhere`] where it is not [here](Self::has),
    /// [`KernelError::NoFreeSlot`] where every slot is in its user's hands.
    pub fn submit_kept(&mut self, kept: &KeptChunk, layout: &ChunkLayout) -> Result<(), KernelError> {
        if !self.has(kept) {
            return Err(KernelError::KeptElsewhere);
        }
        self.wait_for_slot()?;
        self.submit_from(&Source::Kept(kept), layout)
    }

    /// Frees a slot that is to be submitted: the view must be gone before the buffer is unmapped.
    fn give_back(&mut self, slot: StagingSlot) -> Result<(), KernelError> {
        if slot.stream != self.id {
            return Err(KernelError::ForeignSlot);
        }
        let index = slot.index;
        drop(slot);
        self.free.push(index);
        Ok(())
    }

    /// Enqueues the slot that was freed last.
    fn submit_from(&mut self, source: &Source<'_>, layout: &ChunkLayout) -> Result<(), KernelError> {
        check_layout(&self.work, layout)?;
        if !self.work.runs_on_gpu(layout) {
            return Err(KernelError::NotOnGpu);
        }
        let plan = self.work.plan(layout, self.context.shape, self.context.next_stamp())?;
        self.first_use.of(&self.context, &plan)?;
        let most = match source {
            Source::Kept(kept) => kept.n_bytes(),
            Source::Staged { .. } | Source::Keeping { .. } => self.slot_bytes as u64,
        };
        self.check_sizes(&plan, layout, most)?;
        if plan.steps.is_empty() {
            self.pending.push_back(Pending::Ready(plan));
            return Ok(());
        }
        let index = *self.free.last().ok_or(KernelError::NoFreeSlot)?;
        let pending = self.enqueue(index, plan, source)?;
        self.free.pop();
        self.pending.push_back(pending);
        Ok(())
    }

    /// The oldest submitted chunk's result, waiting for it where need be; `None` where nothing is in flight.
    ///
    /// # Errors
    /// Device errors, [`KernelError::Unfinished`] among them. Results before the failed chunk's have been given.
    #[expect(clippy::should_implement_trait, reason = "it waits and fails; an iterator would hide both")]
    pub fn next(&mut self) -> Result<Option<W::Output>, KernelError> {
        let Some(finished) = self.next_finished()? else { return Ok(None) };
        let mut output = W::Output::default();
        finished.collect(&mut output)?;
        self.take_back(finished)?;
        Ok(Some(output))
    }

    /// [`next`](Self::next), but the result is left where it was read back to, for another thread to take out.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_finished(&mut self) -> Result<Option<Finished<W>>, KernelError> {
        match self.done.pop_front() {
            Some(finished) => Ok(Some(finished)),
            None => self.finish_oldest(),
        }
    }

    /// Takes back the buffer of a result that was taken out.
    ///
    /// # Errors
    /// [`KernelError::ForeignSlot`] where it is another stream's.
    pub fn take_back(&mut self, finished: Finished<W>) -> Result<(), KernelError> {
        if finished.stream != self.id {
            return Err(KernelError::ForeignSlot);
        }
        if let Some(Mapped { view, buffer }) = finished.mapped {
            drop(view);
            buffer.unmap();
            self.readbacks.push(buffer);
        }
        Ok(())
    }

    /// Chunks submitted whose result has not been taken yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len() + self.done.len()
    }

    fn check_sizes(
        &self,
        plan: &Plan<W::Parts>,
        layout: &ChunkLayout,
        most_chunk_bytes: u64,
    ) -> Result<(), KernelError> {
        let facts = &self.context.facts;
        let binding = facts.max_binding_bytes.min(facts.max_buffer_bytes);
        let sizes = [
            ("bytes of a chunk", layout.n_bytes as u64, most_chunk_bytes),
            ("bytes of a chunk's tables", plan.tables.len() as u64, binding),
            ("bytes of a chunk's result", plan.out_words as u64 * 4, binding),
            ("bytes read back of a chunk", plan.readback_words as u64 * 4, facts.max_buffer_bytes),
        ];
        match sizes.into_iter().find(|(_, found, most)| found > most) {
            Some((what, found, most)) => Err(KernelError::Limit { what, found, most }),
            None => Ok(()),
        }
    }

    fn enqueue(&mut self, index: usize, plan: Plan<W::Parts>, source: &Source<'_>) -> Result<Pending<W>, KernelError> {
        let context = &self.context;
        let slot = &mut self.slots[index];
        let tables_usage = BufferUsages::UNIFORM | BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let out_usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let readback_usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let out_bytes = plan.out_words as u64 * 4;
        let readback_bytes = plan.readback_words as u64 * 4;
        let tables = grown(context, &mut slot.tables, "tables", plan.tables.len() as u64, tables_usage)?;
        let out = grown(context, &mut slot.out, "result", out_bytes, out_usage)?;
        let mut spare = self.readbacks.pop();
        let readback = grown(context, &mut spare, "readback", readback_bytes, readback_usage)?;
        context.queue.write_buffer(&tables, 0, &plan.tables);
        if context.poisoned() || matches!(self.first_use, FirstUse::IsTest) {
            context.queue.write_buffer(&out, 0, &vec![0xff; plan.out_words * 4]);
        }
        let chunk = match source {
            Source::Staged { .. } => slot.chunk.as_ref().unwrap_or(&slot.staging),
            Source::Keeping { kept, .. } | Source::Kept(kept) => kept.buffer(),
        };
        let buffers = PlanBuffers { chunk, tables: &tables, weights: &self.weights, out: &out, readback: &readback };
        let recorded = Recorded::new(context, &plan, &buffers)?;
        let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut n_to_map = 1;
        if let Source::Staged { n_bytes } | Source::Keeping { n_bytes, .. } = source {
            slot.staging.unmap();
            n_to_map = 2;
            if *chunk != slot.staging {
                encoder.copy_buffer_to_buffer(&slot.staging, 0, chunk, 0, n_bytes.next_multiple_of(4) as u64);
            }
        }
        recorded.encode(&plan, &buffers, Steps::All, &mut encoder);
        let submission = context.queue.submit([encoder.finish()]);
        let n_mapped = Arc::new(AtomicUsize::new(0));
        let count = |counter: &Arc<AtomicUsize>| {
            let counter = Arc::clone(counter);
            move |mapped: Result<(), wgpu::BufferAsyncError>| {
                counter.fetch_add(usize::from(mapped.is_ok()), Ordering::Release);
            }
        };
        readback.map_async(MapMode::Read, ..readback_bytes, count(&n_mapped));
        if n_to_map == 2 {
            slot.staging.map_async(MapMode::Write, .., count(&n_mapped));
        }
        if matches!(self.first_use, FirstUse::Test(_)) {
            context.count_submit();
        }
        context.check()?;
        Ok(Pending::Submitted { slot: index, plan, readback, submission, n_mapped, n_to_map })
    }

    fn finish_oldest(&mut self) -> Result<Option<Finished<W>>, KernelError> {
        let (slot, plan, buffer, submission, n_mapped, n_to_map) = match self.pending.pop_front() {
            None => return Ok(None),
            Some(Pending::Ready(plan)) => return Finished::new(self.id, plan, None).map(Some),
            Some(Pending::Submitted { slot, plan, readback, submission, n_mapped, n_to_map }) => {
                (slot, plan, readback, submission, n_mapped, n_to_map)
            }
        };
        self.context.wait(submission)?;
        let what = "mapping a buffer";
        if n_mapped.load(Ordering::Acquire) != n_to_map {
            return Err(KernelError::Device { what, message: "the buffer could not be mapped".to_owned() });
        }
        let view = buffer.get_mapped_range(..plan.readback_words as u64 * 4);
        let view = view.map_err(|error| KernelError::Device { what, message: error.to_string() })?;
        self.free.push(slot);
        Finished::new(self.id, plan, Some(Mapped { view, buffer })).map(Some)
    }
}

/// The buffer of a slot, made again where it is too small.
fn grown(
    context: &Context,
    buffer: &mut Option<wgpu::Buffer>,
    label: &'static str,
    n_bytes: u64,
    usage: BufferUsages,
) -> Result<wgpu::Buffer, KernelError> {
    if let Some(buffer) = buffer.as_ref().filter(|buffer| buffer.size() >= n_bytes) {
        return Ok(buffer.clone());
    }
    // Room to spare, so that chunks that differ a little do not make one after another; but never beyond a binding.
    let most = context.facts.max_binding_bytes.min(context.facts.max_buffer_bytes);
    let roomy = (n_bytes + n_bytes / 4).min(most).max(n_bytes);
    Ok(buffer.insert(context.buffer(label, roomy, usage, false)?).clone())
}
