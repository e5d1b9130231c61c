//! A pass on a GPU: reader threads fill staging buffers while the device works, results come back in the order submitted.
//!
//! Readers go through a buffer of their own and then copy to the mapped memory, since digests are taken of what was read
//! and mapped memory may be very slow to read. What the device cannot do (f64 results) the CPU engine does on the reader's
//! thread. Chunks that an earlier pass has left on the device are not read again. A device that fails mid-pass costs nothing that was folded: it is opened anew, once a pass, and goes on with the
//! chunks that are left; where that fails too, or its memory is full, the CPU engine does them.

use super::line::Line;
use super::{Done, Pass, Runtime, Visit, device_error};
use crate::digest::Digest;
use crate::error::Result;
use crate::pass::chunks::{Block, ChunkReader};
use crate::pass::kept::{BlockKey, DeviceChunk};
use crate::progress::Progress;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{
    ChunkLayout, CpuEngine, Dtype, GpuEngine, GpuStream, KernelError, Output, Scratch, StagingSlot, Work, staged_layout,
};

/// Chunks that are read, uploaded or computed on at once.
const N_SLOTS: usize = 4;

/// What is left free of a device's memory once it was found full, in chunks: for the next pass's staging, columns, results
/// and their readback.
const HEADROOM_SLOTS: u64 = 4 * N_SLOTS as u64;

/// A chunk whose bytes are where they are worked on.
struct Submitted {
    chunk: usize,
    /// As it was read, for whoever gets the result.
    layout: ChunkLayout,
    digests: Vec<Digest>,
    /// What it adds to the progress.
    n_bytes: u64,
}

impl Submitted {
    fn kept(chunk: usize, found: DeviceChunk) -> Submitted {
        let n_bytes = found.read_bytes() as u64;
        Submitted { chunk, n_bytes, layout: found.layout, digests: found.digests }
    }
}

/// A chunk that a reader is done with.
struct ReadChunk {
    submitted: Submitted,
    slot: StagingSlot,
    /// As it lies in the slot; `None` where the CPU has done the work.
    staged: Option<ChunkLayout>,
    output: Option<Output>,
}

/// Why a pass on a GPU ended early.
enum Stop {
    /// The device's fault: the CPU can go on.
    Device(KernelError),
    /// Anything else, reported to the line already.
    Reported,
}

impl Pass<'_> {
    /// Runs the pass on a GPU, and what is left of it on the device made anew or on the CPU where the device fails.
    pub(super) fn run_gpu<R: Send, F: FnMut(&[Block], R) -> Result<()> + Send>(
        &self,
        engine: &GpuEngine,
        runtime: &Runtime,
        progress: &dyn Progress,
        each: &(impl Fn(Done<'_>) -> Result<R> + Sync),
        line: &Line<'_, R, F>,
    ) -> Result<()> {
        let n_chunks = self.grid.n_chunks();
        let mut left: Vec<usize> = (0..n_chunks).collect();
        let mut may_rebuild = true;
        loop {
            let Err(Stop::Device(error)) = self.stream_gpu(&left, engine, runtime, progress, each, line) else {
                return Ok(());
            };
            if line.has_failed() {
                return Ok(());
            }
            left = line.missing();
            let still = format!("the {} of {n_chunks} chunks that are left", left.len());
            // Memory that was too small stays too small; a device that fails again is not to be trusted.
            let rebuilt = match may_rebuild && can_be_rebuilt(&error) {
                true => engine.rebuild(),
                false => Err(error.clone()),
            };
            match rebuilt {
                Ok(()) => progress.warn(&format!("{error}; the device was opened anew and goes on with {still}")),
                Err(_) => {
                    progress.warn(&format!("{error}; the CPU goes on with {still}"));
                    break;
                }
            }
            may_rebuild = false;
        }
        let cpu = CpuEngine::new();
        let state = || (cpu.scratch(), Output::Rows(Vec::new()));
        let visit = |(scratch, output): &mut (Scratch, Output), visit: Visit<'_>| {
            cpu.run(&self.work, visit.chunk, scratch, output).map_err(device_error)?;
            each(Done { blocks: visit.blocks, layout: visit.chunk.layout, digests: visit.digests, output })
        };
        self.visit_chunks(&left, runtime, progress, &state, &visit, line);
        Ok(())
    }

    /// Sends the given chunks through the device.
    fn stream_gpu<R: Send, F: FnMut(&[Block], R) -> Result<()> + Send>(
        &self,
        chunks: &[usize],
        engine: &GpuEngine,
        runtime: &Runtime,
        progress: &dyn Progress,
        each: &(impl Fn(Done<'_>) -> Result<R> + Sync),
        line: &Line<'_, R, F>,
    ) -> std::result::Result<(), Stop> {
        let slot_bytes = self.slot_bytes();
        let affordable = usize::try_from(runtime.memory_bytes / (2 * slot_bytes as u64)).unwrap_or(N_SLOTS);
        let n_slots = N_SLOTS.min(affordable).max(1);
        let mut stream = engine.stream(&self.work, slot_bytes, n_slots).map_err(Stop::Device)?;
        let (to_readers, jobs) = channel::<(usize, StagingSlot)>();
        let (done, from_readers) = channel::<Result<ReadChunk>>();
        let jobs = Mutex::new(jobs);
        std::thread::scope(|scope| {
            for _ in 0..runtime.n_threads.min(n_slots) {
                let done = done.clone();
                let jobs = &jobs;
                scope.spawn(move || self.serve_reads(jobs, &done));
            }
            drop(done);
            let reported = |error| {
                line.fail(error);
                Stop::Reported
            };
            // The channel closes when this closure returns, which ends the readers.
            let to_readers = to_readers;
            let mut submitted: VecDeque<Submitted> = VecDeque::new();
            let mut next = 0;
            let mut n_reading = 0;
            loop {
                if progress.cancelled() {
                    return Err(reported(crate::Error::interrupted()));
                }
                while next < chunks.len() && n_reading + stream.in_flight() < n_slots {
                    if let Some(found) = self.find_on_device(chunks[next], &stream) {
                        line.take();
                        stream.submit_kept(&found.chunk, &found.staged).map_err(Stop::Device)?;
                        submitted.push_back(Submitted::kept(chunks[next], found));
                        next += 1;
                        continue;
                    }
                    let slot = stream.acquire().map_err(Stop::Device)?;
                    line.take();
                    if to_readers.send((chunks[next], slot)).is_err() {
                        return Err(reported(crate::Error::failed("the reader threads have stopped")));
                    }
                    next += 1;
                    n_reading += 1;
                }
                let ready = if n_reading > 0 && stream.in_flight() == 0 {
                    from_readers.recv().ok()
                } else {
                    from_readers.try_recv().ok()
                };
                if let Some(read) = ready {
                    n_reading -= 1;
                    let mut read = read.map_err(&reported)?;
                    match (&read.staged, &mut read.output) {
                        (Some(staged), _) => {
                            self.submit_read(&mut stream, read.slot, staged, &read.submitted).map_err(Stop::Device)?;
                            submitted.push_back(read.submitted);
                        }
                        (None, output) => {
                            stream.release(read.slot);
                            let output = output
                                .as_mut()
                                .ok_or_else(|| reported(crate::Error::failed("a chunk has no result")))?;
                            self.hand_in(&read.submitted, output, each, line).map_err(&reported)?;
                            progress.advance(read.submitted.n_bytes);
                        }
                    }
                    continue;
                }
                if let Some(first) = submitted.pop_front() {
                    let output = stream.next().map_err(Stop::Device)?;
                    let mut output = output.ok_or_else(|| reported(crate::Error::failed("the device lost a chunk")))?;
                    self.hand_in(&first, &mut output, each, line).map_err(&reported)?;
                    progress.advance(first.n_bytes);
                } else if n_reading == 0 && next >= chunks.len() {
                    return Ok(());
                }
            }
        })
    }

    fn hand_in<R: Send, F: FnMut(&[Block], R) -> Result<()> + Send>(
        &self,
        done: &Submitted,
        output: &mut Output,
        each: &(impl Fn(Done<'_>) -> Result<R> + Sync),
        line: &Line<'_, R, F>,
    ) -> Result<()> {
        let Submitted { chunk, layout, digests, .. } = done;
        let result = each(Done { blocks: self.grid.blocks(*chunk), layout, digests, output })?;
        line.put(*chunk, result)
    }

    /// What an earlier pass has left of a chunk on the stream's device.
    fn find_on_device(&self, chunk: usize, stream: &GpuStream) -> Option<DeviceChunk> {
        let kept = self.plan.kept_on_device()?;
        let keys: Vec<BlockKey> = self.grid.blocks(chunk).iter().map(|block| block.key(self.plan)).collect();
        kept.find(&keys).filter(|found| stream.has(&found.chunk))
    }

    /// Submits a chunk that was read, and leaves it on the device where there is room.
    fn submit_read(
        &self,
        stream: &mut GpuStream,
        slot: StagingSlot,
        staged: &ChunkLayout,
        read: &Submitted,
    ) -> std::result::Result<(), KernelError> {
        let Some(kept) = self.plan.kept_on_device().filter(|kept| kept.has_room(staged.n_bytes)) else {
            return stream.submit(slot, staged);
        };
        match stream.submit_keeping(slot, staged)? {
            Some(chunk) => kept.keep(DeviceChunk {
                chunk,
                keys: self.grid.blocks(read.chunk).iter().map(|block| block.key(self.plan)).collect(),
                layout: read.layout.clone(),
                staged: staged.clone(),
                digests: read.digests.clone(),
            }),
            None => kept.set_full(HEADROOM_SLOTS * self.slot_bytes() as u64),
        }
        Ok(())
    }

    /// A reader thread: fills slots until no more come.
    fn serve_reads(&self, jobs: &Mutex<Receiver<(usize, StagingSlot)>>, done: &Sender<Result<ReadChunk>>) {
        let mut reader = ChunkReader::default();
        let cpu = CpuEngine::new();
        let mut scratch = cpu.scratch();
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((chunk, slot)) = job else { return };
            let read = self.read_into(chunk, slot, &mut reader, &cpu, &mut scratch);
            if done.send(read).is_err() {
                return;
            }
        }
    }

    fn read_into(
        &self,
        chunk: usize,
        mut slot: StagingSlot,
        reader: &mut ChunkReader,
        cpu: &CpuEngine,
        scratch: &mut Scratch,
    ) -> Result<ReadChunk> {
        self.read(reader, chunk)?;
        let read = reader.chunk();
        let (mut staged, mut output) = (None, None);
        if is_for_gpu(&self.work, read.layout) {
            let layout = staged_layout(read.layout).map_err(device_error)?;
            slot.pack(read, &layout).map_err(device_error)?;
            staged = Some(layout);
        } else {
            let mut made = Output::Rows(Vec::new());
            cpu.run(&self.work, read, scratch, &mut made).map_err(device_error)?;
            output = Some(made);
        }
        let layout = read.layout.clone();
        let n_bytes = layout.n_bytes as u64;
        let submitted = Submitted { chunk, layout, digests: reader.digests().to_vec(), n_bytes };
        Ok(ReadChunk { submitted, slot, staged, output })
    }

    /// The largest chunk as it lies in a staging buffer: 4 bytes an element at most, each slice on a multiple of 4.
    fn slot_bytes(&self) -> usize {
        let n_columns = self.plan.n_columns();
        let bytes =
            |chunk: usize| -> usize { self.grid.blocks(chunk).iter().map(|block| block.n_rows * 4 * n_columns).sum() };
        (0..self.grid.n_chunks()).map(bytes).max().unwrap_or(0)
    }
}

/// Whether a device made anew may do what this one could not.
fn can_be_rebuilt(error: &KernelError) -> bool {
    error.is_device_fault() && !matches!(error, KernelError::DeviceMemory { .. })
}

/// f64 results are for the CPU; the rest of a chunk's formats a GPU takes.
fn is_for_gpu(work: &Work, layout: &ChunkLayout) -> bool {
    let any_base_f64 = || (0..layout.segments.len()).any(|segment| layout.slice(segment, 0).dtype == Dtype::F64);
    match work {
        Work::Gram => true,
        Work::Project(project) => project.dtype != Dtype::F64,
        Work::Reconstruct(reconstruct) => reconstruct.dtype != Some(Dtype::F64) && !any_base_f64(),
    }
}
