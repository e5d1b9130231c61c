//! Work on data that lies in the device's memory already: on the CPU chunks larger together than its caches, taken by
//! its threads as the stream's workers take them; on a GPU one large chunk, its upload and its readback left out.

use super::data::{Cut, Data};
use super::threads::for_each;
use super::timing::{Budget, Timed, measure, measure_repeated};
use std::sync::{Mutex, PoisonError};
use tvb::digest::Digest;
use tvb::error::{Error, Result};
use tvb::pass::{Runtime, device_error};
use tvb_kernels::{Codes, CpuEngine, Dtype, Engine, Measured, Resident, Scratch, Triangles, Work, decode};

/// Submits that a GPU is given at once, at most.
const MOST_TOGETHER: u32 = 64;

/// What comes out of a stage.
pub(super) trait StageResult: Clone + Default + Send {
    /// Overwrites what is there, so that what no kernel writes is seen.
    fn spoil(&mut self);

    /// A digest of its bits.
    fn digest(&self) -> Digest;
}

impl StageResult for Vec<u8> {
    fn spoil(&mut self) {
        // NaN in every format.
        self.fill(0xff);
    }

    fn digest(&self) -> Digest {
        Digest::of(self)
    }
}

impl StageResult for Triangles {
    fn spoil(&mut self) {
        self.values.fill(f64::NAN);
    }

    fn digest(&self) -> Digest {
        Digest::of(bytemuck::cast_slice(&self.values))
    }
}

impl StageResult for Codes {
    fn spoil(&mut self) {
        self.words.fill(u32::MAX);
        // NaN as a scale, too.
        self.scales.fill(u16::MAX);
        self.measured.fill(Measured { energy: f64::NAN, product: f64::NAN, decoded: f64::NAN });
    }

    fn digest(&self) -> Digest {
        let sums: Vec<f64> = self.measured.iter().flat_map(|of| [of.energy, of.product, of.decoded]).collect();
        let parts: [&[u8]; 3] =
            [bytemuck::cast_slice(&self.words), bytemuck::cast_slice(&self.scales), bytemuck::cast_slice(&sums)];
        Digest::of_digests(parts.map(Digest::of))
    }
}

/// One kind of work, ready to be done again and again.
pub(super) enum Loaded<'a, W: Work> {
    /// On the CPU engine's threads.
    Cpu(OnCpu<'a, W>),
    /// On a GPU.
    Gpu(Box<Resident<W>>),
}

/// Work on the CPU.
pub(super) struct OnCpu<'a, W: Work> {
    engine: CpuEngine,
    n_threads: usize,
    work: &'a W,
    data: &'a Data,
    /// Of every chunk, so that rows are written to memory as the stream's are to files; kept from run to run.
    outputs: Vec<W::Output>,
    scratches: Mutex<Vec<Scratch>>,
}

/// How data is cut for this device.
pub(super) fn cut(runtime: &Runtime) -> Cut {
    match runtime.engine {
        Engine::Cpu(_) => Cut::Blocks,
        Engine::Gpu(_) => Cut::Whole,
    }
}

impl<'a, W: Work<Output: StageResult>> Loaded<'a, W> {
    /// Brings the data to where the work is done.
    ///
    /// # Errors
    /// Failed: the device.
    pub(super) fn new(runtime: &Runtime, work: &'a W, data: &'a Data) -> Result<Loaded<'a, W>> {
        match &runtime.engine {
            Engine::Cpu(engine) => Ok(Loaded::Cpu(OnCpu {
                engine: *engine,
                n_threads: runtime.n_threads,
                work,
                data,
                outputs: data.chunks().map(|_| W::Output::default()).collect(),
                scratches: Mutex::default(),
            })),
            Engine::Gpu(engine) => {
                let chunk = data.chunks().next().ok_or_else(|| Error::failed("no data to measure on"))?;
                Ok(Loaded::Gpu(Box::new(engine.resident(work, chunk).map_err(device_error)?)))
            }
        }
    }

    /// Does the work once and answers with what came out, chunk by chunk.
    ///
    /// # Errors
    /// Failed: the device.
    pub(super) fn results(&mut self) -> Result<Vec<W::Output>> {
        match self {
            Loaded::Cpu(on_cpu) => {
                on_cpu.outputs.iter_mut().for_each(StageResult::spoil);
                on_cpu.run()?;
                Ok(on_cpu.outputs.clone())
            }
            Loaded::Gpu(resident) => Ok(vec![resident.result().map_err(device_error)?]),
        }
    }

    /// How long the work takes.
    ///
    /// # Errors
    /// Failed: the device.
    pub(super) fn time(&mut self, budget: Budget) -> Result<Timed> {
        match self {
            Loaded::Cpu(on_cpu) => measure(budget, || on_cpu.run()),
            Loaded::Gpu(resident) => {
                measure_repeated(budget, MOST_TOGETHER, |n_times| resident.run(n_times).map_err(device_error))
            }
        }
    }
}

impl<W: Work> OnCpu<'_, W> {
    fn run(&mut self) -> Result<()> {
        let failed = Mutex::new(None);
        let parts: Vec<_> = self.data.chunks().zip(&mut self.outputs).collect();
        let (engine, work, scratches) = (self.engine, self.work, &self.scratches);
        for_each(self.n_threads, parts, |_, (chunk, output)| {
            let lock = || scratches.lock().unwrap_or_else(PoisonError::into_inner);
            let mut scratch = lock().pop().unwrap_or_else(|| engine.scratch());
            if let Err(error) = engine.run(work, chunk, &mut scratch, output) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(device_error(error));
            }
            lock().push(scratch);
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// The Gram of all chunks together, folded in chunk order.
pub(super) fn total_gram(outputs: &[Triangles]) -> Vec<f64> {
    let mut total: Vec<f64> = Vec::new();
    for output in outputs {
        total.resize(output.values.len().max(total.len()), 0.0);
        tvb::pass::add_to(&mut total, &output.values);
    }
    total
}

/// Row x of output k, where every chunk has `chunk_rows` rows stored as `dtype`.
pub(super) fn row(outputs: &[Vec<u8>], chunk_rows: usize, dtype: Dtype, k: usize, x: usize) -> Option<f64> {
    let rows = outputs.get(x / chunk_rows)?;
    let at = (k * chunk_rows + x % chunk_rows) * dtype.size();
    decode(rows.get(at..at + dtype.size())?, dtype).first().map(|value| f64::from(*value))
}

/// A digest of the bits of a result.
pub(super) fn digest<R: StageResult>(outputs: &[R]) -> Digest {
    Digest::of_digests(outputs.iter().map(StageResult::digest))
}
