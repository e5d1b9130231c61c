//! A pass on a GPU: reader threads fill staging buffers while the device works, results come back in the order submitted.
//!
//! Readers go through a buffer of their own and then copy to the mapped memory, since digests are taken of what was read
//! and mapped memory may be very slow to read. What the device cannot do (f64 results) the CPU engine does on the reader's
//! thread. Chunks that an earlier pass has left on the device are not read again. A device that fails mid-pass costs
//! nothing that was folded: it is reopened, once a pass, and goes on with the chunks that are left; where that fails too, or
//! its memory is full, the CPU engine does them.

use super::block::Block;
use super::kept::{BlockKey, DeviceChunk};
use super::line::{Left, Line};
use super::on_host::{OnCpu, visit_chunks};
use super::op::{Done, Folded, Operation};
use super::pass::Pass;
use super::reader::ChunkReader;
use super::runtime::{Runtime, device_error};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{
    ChunkLayout, CpuEngine, GpuEngine, GpuStream, KernelError, Scratch, StagingSlot, Work, staged_layout,
};

/// What the operation's engine makes of a chunk.
type OutputOf<O> = <<O as Operation>::Work as Work>::Output;

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
}

impl Submitted {
    fn kept(chunk: usize, found: DeviceChunk) -> Submitted {
        Submitted { chunk, layout: found.layout, digests: found.digests }
    }
}

/// A chunk that a reader is done with.
struct ReaderDone<T> {
    submitted: Submitted,
    slot: StagingSlot,
    then: Then<T>,
}

/// What is left to do with it.
enum Then<T> {
    /// The device works on it; so it lies in the slot.
    Submit(ChunkLayout),
    /// The CPU has worked on it.
    HandIn(T),
}

/// Why a pass on a GPU ended early.
enum Stop {
    /// The device's fault: the CPU can go on.
    Device(KernelError),
    /// Anything else, reported to the line already.
    Reported,
}

/// A pass and the operation it does.
struct OnGpu<'a, O, F>
where
    O: Operation,
{
    pass: &'a Pass<'a>,
    operation: &'a O,
    progress: &'a dyn Progress,
    line: &'a Line<'a, O::Part, F>,
}

/// Runs a pass on a GPU, and what is left of it on the reopened device or on the CPU where the device fails.
pub(super) fn run<O: Operation, F: FnMut(Folded<'_, O::Part>) -> Result<()> + Send>(
    pass: &Pass<'_>,
    operation: &O,
    engine: &GpuEngine,
    runtime: &Runtime,
    progress: &dyn Progress,
    line: &Line<'_, O::Part, F>,
) -> Result<()> {
    let n_chunks = pass.grid.n_chunks();
    let on_gpu = OnGpu { pass, operation, progress, line };
    let mut left = Left::all(&pass.grid);
    let mut may_rebuild = true;
    loop {
        let Err(Stop::Device(error)) = on_gpu.stream(left, engine, runtime) else { return Ok(()) };
        if line.has_failed() {
            return Ok(());
        }
        left = line.missing();
        let still = format!("the {} of {n_chunks} chunks that are left", left.n_chunks());
        // Memory that was too small stays too small; a device that fails again is not to be trusted.
        let rebuilt = match may_rebuild && can_be_rebuilt(&error) {
            true => engine.rebuild(),
            false => Err(error.clone()),
        };
        match rebuilt {
            Ok(()) => progress.warn(&format!("{error}; the device was reopened and goes on with {still}")),
            Err(_) => {
                progress.warn(&format!("{error}; the CPU goes on with {still}"));
                break;
            }
        }
        may_rebuild = false;
    }
    visit_chunks(pass, &OnCpu { engine: CpuEngine::new(), operation }, left, runtime, progress, line);
    Ok(())
}

impl<O: Operation, F: FnMut(Folded<'_, O::Part>) -> Result<()> + Send> OnGpu<'_, O, F> {
    /// Sends the given chunks through the device.
    fn stream(&self, chunks: Left, engine: &GpuEngine, runtime: &Runtime) -> std::result::Result<(), Stop> {
        let OnGpu { progress, line, .. } = *self;
        let slot_bytes = self.slot_bytes();
        let n_slots = runtime.n_affordable(2 * slot_bytes as u64, N_SLOTS);
        let mut stream = engine.stream(self.operation.work(), slot_bytes, n_slots).map_err(Stop::Device)?;
        let (to_readers, jobs) = channel::<(usize, StagingSlot)>();
        let (done, from_readers) = channel::<Result<ReaderDone<OutputOf<O>>>>();
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
            let mut chunks = chunks.peekable();
            let mut n_reading = 0;
            loop {
                if progress.cancelled() {
                    return Err(reported(Error::interrupted()));
                }
                while n_reading + stream.in_flight() < n_slots
                    && let Some(&next) = chunks.peek()
                {
                    if let Some(found) = self.find_on_device(next, &stream) {
                        line.take();
                        stream.submit_kept(&found.chunk, &found.staged).map_err(Stop::Device)?;
                        submitted.push_back(Submitted::kept(next, found));
                        chunks.next();
                        continue;
                    }
                    let slot = stream.acquire().map_err(Stop::Device)?;
                    line.take();
                    if to_readers.send((next, slot)).is_err() {
                        return Err(reported(Error::failed("the reader threads have stopped")));
                    }
                    chunks.next();
                    n_reading += 1;
                }
                let ready = if n_reading > 0 && stream.in_flight() == 0 {
                    from_readers.recv().ok()
                } else {
                    from_readers.try_recv().ok()
                };
                if let Some(read) = ready {
                    n_reading -= 1;
                    let ReaderDone { submitted: read, slot, then } = read.map_err(&reported)?;
                    match then {
                        Then::Submit(staged) => {
                            self.submit_read(&mut stream, slot, &staged, &read).map_err(Stop::Device)?;
                            submitted.push_back(read);
                        }
                        Then::HandIn(mut output) => {
                            stream.release(slot);
                            self.hand_in(&read, &mut output).map_err(&reported)?;
                        }
                    }
                    continue;
                }
                if let Some(first) = submitted.pop_front() {
                    let output = stream.next().map_err(Stop::Device)?;
                    let mut output = output.ok_or_else(|| reported(Error::failed("the device lost a chunk")))?;
                    self.hand_in(&first, &mut output).map_err(&reported)?;
                } else if n_reading == 0 && chunks.peek().is_none() {
                    return Ok(());
                }
            }
        })
    }

    fn hand_in(&self, done: &Submitted, output: &mut OutputOf<O>) -> Result<()> {
        let Submitted { chunk, layout, digests } = done;
        let part = self.operation.finish(Done { blocks: &self.blocks(*chunk), layout, digests }, output)?;
        self.line.put(*chunk, digests, part)?;
        self.progress.advance(self.pass.chunk_bytes(*chunk));
        Ok(())
    }

    fn blocks(&self, chunk: usize) -> Vec<Block> {
        self.pass.grid.blocks(chunk)
    }

    fn keys(&self, chunk: usize) -> Vec<BlockKey> {
        self.blocks(chunk).iter().map(|block| block.key(self.pass.plan)).collect()
    }

    /// What an earlier pass has left of a chunk on the stream's device.
    fn find_on_device(&self, chunk: usize, stream: &GpuStream<O::Work>) -> Option<DeviceChunk> {
        let kept = self.pass.reads.kept_on_device()?;
        kept.find(&self.keys(chunk)).filter(|found| stream.has(&found.chunk))
    }

    /// Submits a chunk that was read, and leaves it on the device where there is room.
    fn submit_read(
        &self,
        stream: &mut GpuStream<O::Work>,
        slot: StagingSlot,
        staged: &ChunkLayout,
        read: &Submitted,
    ) -> std::result::Result<(), KernelError> {
        let Some(kept) = self.pass.reads.kept_on_device().filter(|kept| kept.has_room(staged.n_bytes)) else {
            return stream.submit(slot, staged);
        };
        match stream.submit_keeping(slot, staged)? {
            Some(chunk) => kept.keep(DeviceChunk {
                chunk,
                keys: self.keys(read.chunk),
                layout: read.layout.clone(),
                staged: staged.clone(),
                digests: read.digests.clone(),
            }),
            None => kept.set_full(HEADROOM_SLOTS * self.slot_bytes() as u64),
        }
        Ok(())
    }

    /// A reader thread: fills slots until no more come.
    fn serve_reads(
        &self,
        jobs: &Mutex<Receiver<(usize, StagingSlot)>>,
        done: &Sender<Result<ReaderDone<OutputOf<O>>>>,
    ) {
        let mut reader = ChunkReader::leaving_factors();
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
    ) -> Result<ReaderDone<OutputOf<O>>> {
        reader.read(self.pass.plan, self.pass.reads, &self.blocks(chunk))?;
        let read = reader.chunk();
        let work = self.operation.work();
        let then = if work.runs_on_gpu(read.layout) {
            let layout = staged_layout(read.layout).map_err(device_error)?;
            slot.pack(read, &layout).map_err(device_error)?;
            Then::Submit(layout)
        } else {
            let mut output = OutputOf::<O>::default();
            cpu.run(work, read, scratch, &mut output).map_err(device_error)?;
            Then::HandIn(output)
        };
        let layout = read.layout.clone();
        let submitted = Submitted { chunk, layout, digests: reader.digests().to_vec() };
        Ok(ReaderDone { submitted, slot, then })
    }

    /// The largest chunk as it lies in a staging buffer: 4 bytes an element at most, each slice on a multiple of 16.
    fn slot_bytes(&self) -> usize {
        self.pass.staging_bytes()
    }
}

/// Whether a reopened device may do what this one could not.
fn can_be_rebuilt(error: &KernelError) -> bool {
    error.is_device_fault() && !matches!(error, KernelError::DeviceMemory { .. })
}
