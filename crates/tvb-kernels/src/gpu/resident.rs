//! Kernels and copies on data that lies in the device's memory already: what a device is capable of, apart from the bus.
//!
//! For measurements. Nothing here looks at a clock: the caller times [`Resident::run`] and [`DeviceCopy::run`], which
//! come back when the device is done.

use super::context::Context;
use super::plan::Plan;
use super::record::{PlanBuffers, Recorded, Steps, weights_buffer};
use super::stream::FirstUse;
use crate::check::check;
use crate::chunk::Chunk;
use crate::error::KernelError;
use crate::upload::staged_layout;
use crate::work::Work;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::BufferUsages;

/// Bytes uploaded at a time: wgpu keeps a staging buffer of this size for each.
const UPLOAD_BYTES: usize = 8 << 20;

/// One chunk in the device's memory with the work that is to be done on it, any number of times.
pub struct Resident<W: Work> {
    context: Arc<Context>,
    plan: Plan<W::Parts>,
    chunk: wgpu::Buffer,
    tables: wgpu::Buffer,
    weights: wgpu::Buffer,
    out: wgpu::Buffer,
    readback: wgpu::Buffer,
}

impl<W: Work> std::fmt::Debug for Resident<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident").field("device", &self.context.facts.name).finish_non_exhaustive()
    }
}

impl<W: Work> Resident<W> {
    /// Brings `chunk` to the device. Its slices must have the layout of [`staged_layout`]: no f64, each slice on 16 bytes.
    pub(super) fn new(
        context: Arc<Context>,
        work: &W,
        chunk: Chunk<'_>,
        first_use: FirstUse,
    ) -> Result<Self, KernelError> {
        check(work, chunk)?;
        let layout = chunk.layout;
        let staged = staged_layout(layout)?;
        if !work.runs_on_gpu(layout) || (&staged.slices, &staged.codes) != (&layout.slices, &layout.codes) {
            return Err(KernelError::NotOnGpu);
        }
        let plan = work.plan(layout, context.shape, context.next_stamp())?;
        first_use.of(&context, &plan)?;
        let most = context.facts.max_binding_bytes.min(context.facts.max_buffer_bytes);
        let buffer = |label, n_bytes: u64, usage| match n_bytes > most {
            true => Err(KernelError::Limit { what: label, found: n_bytes, most }),
            false => context.buffer(label, n_bytes, usage, false),
        };
        let input = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let made = buffer("chunk", layout.n_bytes as u64, input)?;
        for (at, part) in chunk.bytes[..layout.n_bytes].chunks(UPLOAD_BYTES).enumerate() {
            let (words, rest) = part.split_at(part.len() / 4 * 4);
            context.queue.write_buffer(&made, (at * UPLOAD_BYTES) as u64, words);
            if !rest.is_empty() {
                let mut word = [0u8; 4];
                word[..rest.len()].copy_from_slice(rest);
                context.queue.write_buffer(&made, (at * UPLOAD_BYTES + words.len()) as u64, &word);
            }
            let submission = context.queue.submit([]);
            context.wait(submission)?;
        }
        let tables = buffer("tables", plan.tables.len() as u64, input | BufferUsages::UNIFORM)?;
        context.queue.write_buffer(&tables, 0, &plan.tables);
        let out_bytes = plan.out_words as u64 * 4;
        let out = buffer("result", out_bytes, input | BufferUsages::COPY_SRC)?;
        // What no kernel wrote is a NaN.
        for start in (0..plan.out_words * 4).step_by(UPLOAD_BYTES) {
            let n_bytes = UPLOAD_BYTES.min(plan.out_words * 4 - start);
            context.queue.write_buffer(&out, start as u64, &vec![0xff; n_bytes]);
        }
        let readback_usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let readback = context.buffer("readback", plan.readback_words as u64 * 4, readback_usage, false)?;
        let weights = weights_buffer(&context, work)?;
        Ok(Self { chunk: made, tables, weights, out, readback, plan, context })
    }

    /// Runs the kernels `n_times` in one submit and waits; nothing is uploaded or read back.
    ///
    /// # Errors
    /// Device errors.
    pub fn run(&self, n_times: u32) -> Result<(), KernelError> {
        self.submit(n_times, Steps::Dispatches)
    }

    /// Runs the kernels once and reads their result back.
    ///
    /// # Errors
    /// Device errors, [`KernelError::Unfinished`] among them.
    pub fn result(&self) -> Result<W::Output, KernelError> {
        let mut output = W::Output::default();
        if self.plan.steps.is_empty() {
            W::collect(&self.plan.parts, self.plan.finished(&[])?, &mut output)?;
            return Ok(output);
        }
        self.submit(1, Steps::All)?;
        let n_bytes = self.plan.readback_words as u64 * 4;
        let mapped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&mapped);
        let note = move |result: Result<(), wgpu::BufferAsyncError>| flag.store(result.is_ok(), Ordering::Release);
        self.readback.map_async(wgpu::MapMode::Read, ..n_bytes, note);
        self.context.wait(self.context.queue.submit([]))?;
        let what = "mapping a buffer";
        if !mapped.load(Ordering::Acquire) {
            return Err(KernelError::Device { what, message: "the buffer could not be mapped".to_owned() });
        }
        let view = self.readback.get_mapped_range(..n_bytes);
        let view = view.map_err(|error| KernelError::Device { what, message: error.to_string() })?;
        let collected =
            self.plan.finished(&view).and_then(|readback| W::collect(&self.plan.parts, readback, &mut output));
        drop(view);
        self.readback.unmap();
        collected.map(|()| output)
    }

    fn submit(&self, n_times: u32, wanted: Steps) -> Result<(), KernelError> {
        let Self { plan, chunk, tables, weights, out, readback, .. } = self;
        let buffers = PlanBuffers { chunk, tables, weights, out, readback };
        let recorded = Recorded::new(&self.context, plan, &buffers)?;
        let mut encoder = self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..n_times {
            recorded.encode(plan, &buffers, wanted, &mut encoder);
        }
        let submission = self.context.queue.submit([encoder.finish()]);
        self.context.wait(submission)
    }
}

/// Two buffers, one copied to the other: the yardstick for a device's memory.
pub struct DeviceCopy {
    context: Arc<Context>,
    from: wgpu::Buffer,
    to: wgpu::Buffer,
}

impl std::fmt::Debug for DeviceCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceCopy").field("n_bytes", &self.from.size()).finish_non_exhaustive()
    }
}

impl DeviceCopy {
    pub(super) fn new(context: Arc<Context>, n_bytes: u64) -> Result<Self, KernelError> {
        let from = context.buffer("copied from", n_bytes, BufferUsages::COPY_SRC | BufferUsages::COPY_DST, false)?;
        let to = context.buffer("copied to", n_bytes, BufferUsages::COPY_SRC | BufferUsages::COPY_DST, false)?;
        // Memory that was never written may be no memory at all: every page one zero page.
        for start in (0..from.size()).step_by(UPLOAD_BYTES) {
            let part = vec![0x5a; (UPLOAD_BYTES as u64).min(from.size() - start) as usize];
            context.queue.write_buffer(&from, start, &part);
            let submission = context.queue.submit([]);
            context.wait(submission)?;
        }
        Ok(Self { context, from, to })
    }

    /// Bytes of one copy; as many are read as are written.
    pub fn n_bytes(&self) -> u64 {
        self.from.size()
    }

    /// Copies `n_times` in one submit and waits.
    ///
    /// # Errors
    /// Device errors.
    pub fn run(&self, n_times: u32) -> Result<(), KernelError> {
        let mut encoder = self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..n_times {
            encoder.copy_buffer_to_buffer(&self.from, 0, &self.to, 0, self.from.size());
        }
        let submission = self.context.queue.submit([encoder.finish()]);
        self.context.wait(submission)
    }

    /// What the last copy wrote to the last bytes, read back: a multiple of 4 of them, at most 1 MiB.
    ///
    /// # Errors
    /// Device errors.
    pub fn copied(&self) -> Result<Vec<u8>, KernelError> {
        let n_bytes = self.to.size().min(1 << 20);
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let readback = self.context.buffer("readback", n_bytes, usage, false)?;
        let mut encoder = self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.to, self.to.size() - n_bytes, &readback, 0, n_bytes);
        let submission = self.context.queue.submit([encoder.finish()]);
        readback.map_async(wgpu::MapMode::Read, ..n_bytes, |_| {});
        self.context.wait(submission)?;
        let view = readback.get_mapped_range(..n_bytes);
        let what = "mapping a buffer";
        Ok(view.map_err(|error| KernelError::Device { what, message: error.to_string() })?.to_vec())
    }
}
