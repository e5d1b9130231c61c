//! A pass on a GPU: worker threads fill staging buffers while the device works, and take results out of its memory; one thread
//! submits and waits, and does nothing else, so that the device is never kept waiting for a copy or a write.
//!
//! What the device cannot do (f64 results) the CPU engine does on the worker's thread. Chunks that an earlier pass has left on the device are not read again. A device that fails mid-pass costs
//! nothing that was folded: it is reopened, once a pass, and goes on with the chunks that are left; where that fails too, or
//! its memory is full, the CPU engine does them.

use super::block::Block;
use super::kept::{BlockKey, DeviceChunk};
use super::line::{Left, Line};
use super::on_host::{OnCpu, visit_chunks};
use super::op::{Done, Folded, Operation};
use super::pass::Pass;
use super::pieces::Way;
use super::reader::ChunkReader;
use super::runtime::{Runtime, device_error};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{
    ChunkLayout, CpuEngine, Finished, GpuEngine, GpuStream, KernelError, Scratch, StagingSlot, Work, staged_layout,
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

/// What a worker is to do.
enum Job<W: Work> {
    /// Reads a chunk into a slot.
    Read { chunk: usize, slot: StagingSlot },
    /// Takes a chunk's result out of the device's hands, and hands it in.
    HandIn { submitted: Submitted, finished: Box<Finished<W>> },
}

/// What a worker has done.
enum Did<W: Work> {
    /// The chunk lies in the slot, as the device is to work on it.
    Read { submitted: Submitted, slot: StagingSlot, staged: Box<ChunkLayout> },
    /// The CPU has worked on a chunk, and it was handed in; the slot is as it was.
    Worked { slot: StagingSlot },
    /// A result was handed in; its buffer can be used again.
    HandedIn { finished: Box<Finished<W>> },
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
        let slot_bytes = self.pass.staging_bytes();
        let bytes_each = self.pass.streamed_bytes(self.operation.work().n_outputs());
        let n_slots = runtime.n_affordable(bytes_each, N_SLOTS);
        let mut stream = engine.stream(self.operation.work(), slot_bytes, n_slots).map_err(Stop::Device)?;
        let (to_workers, jobs) = channel::<Job<O::Work>>();
        let (done, from_workers) = channel::<std::result::Result<Did<O::Work>, Stop>>();
        let jobs = Mutex::new(jobs);
        std::thread::scope(|scope| {
            // A slot may be filled while the result of the chunk before it is taken out.
            for _ in 0..runtime.n_threads.min(2 * n_slots) {
                let done = done.clone();
                let jobs = &jobs;
                scope.spawn(move || self.serve(jobs, &done));
            }
            drop(done);
            let reported = |error| {
                line.fail(error);
                Stop::Reported
            };
            // The channel closes when this closure returns, which ends the workers.
            let to_workers = to_workers;
            let give =
                |job| to_workers.send(job).map_err(|_| reported(Error::failed("the worker threads have stopped")));
            let mut submitted: VecDeque<Submitted> = VecDeque::new();
            let mut chunks = chunks.peekable();
            let (mut n_reading, mut n_handed) = (0, 0);
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
                    give(Job::Read { chunk: next, slot })?;
                    chunks.next();
                    n_reading += 1;
                }
                // Results that nobody has come to yet are in memory too.
                let must_wait = stream.in_flight() == 0 || n_handed >= n_slots;
                let did = match must_wait && n_reading + n_handed > 0 {
                    true => from_workers.recv().ok(),
                    false => from_workers.try_recv().ok(),
                };
                if let Some(did) = did {
                    match did? {
                        Did::Read { submitted: read, slot, staged } => {
                            n_reading -= 1;
                            self.submit_read(&mut stream, slot, &staged, &read).map_err(Stop::Device)?;
                            submitted.push_back(read);
                        }
                        Did::Worked { slot } => {
                            n_reading -= 1;
                            stream.release(slot);
                        }
                        Did::HandedIn { finished } => {
                            n_handed -= 1;
                            stream.take_back(*finished).map_err(Stop::Device)?;
                        }
                    }
                    continue;
                }
                if let Some(first) = submitted.pop_front() {
                    let finished = stream.next_finished().map_err(Stop::Device)?;
                    let finished = finished.ok_or_else(|| reported(Error::failed("the device lost a chunk")))?;
                    give(Job::HandIn { submitted: first, finished: Box::new(finished) })?;
                    n_handed += 1;
                } else if n_reading + n_handed == 0 && chunks.peek().is_none() {
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
            None => kept.set_full(HEADROOM_SLOTS * self.pass.staging_bytes() as u64),
        }
        Ok(())
    }

    /// A worker thread: fills slots and takes out results until no more come.
    fn serve(&self, jobs: &Mutex<Receiver<Job<O::Work>>>, done: &Sender<std::result::Result<Did<O::Work>, Stop>>) {
        let cpu = CpuEngine::new();
        let mut worker = Worker {
            reader: ChunkReader::leaving_factors(),
            scratch: cpu.scratch(),
            output: OutputOf::<O>::default(),
            cpu,
        };
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let did = match job {
                Ok(Job::Read { chunk, slot }) => self.read_into(chunk, slot, &mut worker),
                Ok(Job::HandIn { submitted, finished }) => self.take_out(&submitted, finished, &mut worker.output),
                Err(_) => return,
            };
            if done.send(did).is_err() {
                return;
            }
        }
    }

    fn read_into(
        &self,
        chunk: usize,
        mut slot: StagingSlot,
        worker: &mut Worker<OutputOf<O>>,
    ) -> std::result::Result<Did<O::Work>, Stop> {
        let Pass { plan, reads, .. } = *self.pass;
        let Worker { reader, cpu, scratch, output } = worker;
        let reported = |error| {
            self.line.fail(error);
            Stop::Reported
        };
        let blocks = self.blocks(chunk);
        reader.plan_reads(plan, reads, &blocks);
        let work = self.operation.work();
        if !work.runs_on_gpu(reader.layout()) {
            reader.fill(plan, reads, &blocks).map_err(reported)?;
            cpu.run(work, reader.chunk(), scratch, output).map_err(|error| reported(device_error(error)))?;
            let read = Submitted { chunk, layout: reader.layout().clone(), digests: reader.digests().to_vec() };
            self.hand_in(&read, output).map_err(reported)?;
            return Ok(Did::Worked { slot });
        }
        let staged = staged_layout(reader.layout()).map_err(|error| reported(device_error(error)))?;
        match reads.kept() {
            // The host keeps what was read: all of it has to be at one place.
            Some(_) => {
                reader.fill(plan, reads, &blocks).map_err(reported)?;
                slot.pack(reader.chunk(), &staged).map_err(|error| reported(device_error(error)))?;
            }
            None => {
                let way = Way { plan, blocks: &blocks, slot: &mut slot, staged: &staged };
                reader.fill_slot(reads, way).map_err(reported)?;
            }
        }
        let submitted = Submitted { chunk, layout: reader.layout().clone(), digests: reader.digests().to_vec() };
        Ok(Did::Read { submitted, slot, staged: Box::new(staged) })
    }

    fn take_out(
        &self,
        submitted: &Submitted,
        finished: Box<Finished<O::Work>>,
        output: &mut OutputOf<O>,
    ) -> std::result::Result<Did<O::Work>, Stop> {
        finished.collect(output).map_err(Stop::Device)?;
        match self.hand_in(submitted, output) {
            Ok(()) => Ok(Did::HandedIn { finished }),
            Err(error) => {
                self.line.fail(error);
                Err(Stop::Reported)
            }
        }
    }
}

/// What a worker thread uses again and again.
struct Worker<T> {
    reader: ChunkReader,
    cpu: CpuEngine,
    scratch: Scratch,
    output: T,
}

/// Whether a reopened device may do what this one could not.
fn can_be_rebuilt(error: &KernelError) -> bool {
    error.is_device_fault() && !matches!(error, KernelError::DeviceMemory { .. })
}
