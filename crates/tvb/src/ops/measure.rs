//! How far recovered task vectors are from the originals, measured on the data.

use super::decode::codes_of_segment;
use super::generated::RawColumns;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::pass::{
    Block, Folded, HostOperation, Pass, ReadChunk, Reads, Runtime, TotalSums, decode_rows, device_error,
};
use crate::progress::Progress;
use tvb_kernels::{Base, Chunk, ChunkLayout, Columns, CpuEngine, Decode, Rate, Reconstruct, Scratch};

/// What task vectors are recovered from.
#[derive(Clone, Copy, Debug)]
pub enum Recovery<'a> {
    /// Atoms, which are the plan's columns after the tasks'.
    Atoms,
    /// Columns that are made from a seed.
    Generated(&'a RawColumns),
    /// The plan's coded columns.
    Codes {
        /// \[n_coded\]
        rates: &'a [Rate],
        /// Where the signs of the rotation come from.
        seed: u64,
    },
}

/// ‖τ̂t − τt‖², ‖τt‖² and ⟨τt, τ̂t⟩ of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SquareError {
    /// ‖τ̂t − τt‖².
    pub error: f64,
    /// ‖τt‖².
    pub norm: f64,
    /// ⟨τt, τ̂t⟩.
    pub product: f64,
}

impl SquareError {
    /// Over other rows too.
    #[must_use]
    pub fn plus(self, other: SquareError) -> SquareError {
        SquareError {
            error: self.error + other.error,
            norm: self.norm + other.norm,
            product: self.product + other.product,
        }
    }

    /// ⟨τ, τ̂⟩/‖τ‖²; `None` for a task that did not move.
    pub fn gain(&self) -> Option<f64> {
        (self.norm > 0.0).then(|| self.product / self.norm)
    }
}

/// Sums of each block and task.
const N_SUMS: usize = 3;

/// The operation: recovers the tasks of every block and compares.
struct Measure<'a> {
    plan: &'a Plan,
    n_tasks: usize,
    recovery: Recovery<'a>,
    /// \[n_tasks\]\[n_vectors\]
    weights: &'a [Vec<f64>],
    work: Reconstruct,
    /// Where codes are decoded.
    decode: Option<Decode>,
    engine: CpuEngine,
}

/// One thread's buffers.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    /// Recovered f32 rows of one block, task by task. Kept from block to block: new memory as large costs more than the sums.
    rows: Vec<u8>,
}

impl Measure<'_> {
    /// Recovers the tasks over one block into `buffers.rows`.
    fn recover(&self, read: ReadChunk<'_>, segment: usize, buffers: &mut Buffers) -> Result<()> {
        let Buffers { scratch, rows } = buffers;
        match self.recovery {
            Recovery::Generated(raw) => {
                let block = &read.blocks[segment];
                let first_row = raw.first_row(&self.plan.tensors[block.tensor].name)? + block.first_row as u64;
                let values = raw.mixed(first_row, block.n_rows, self.weights);
                rows.clear();
                rows.extend(values.iter().flatten().flat_map(|value| (*value as f32).to_le_bytes()));
                Ok(())
            }
            Recovery::Codes { .. } => {
                let layout = codes_of_segment(read.chunk, segment);
                let codes = Chunk { layout: &layout, bytes: read.chunk.bytes };
                let decode = self.decode.as_ref().ok_or_else(|| Error::failed("codes without their rates"))?;
                self.engine.run(decode, codes, scratch, rows).map_err(device_error)
            }
            Recovery::Atoms => {
                let layout = base_and_atoms(read.chunk.layout, segment, self.n_tasks);
                let atoms = Chunk { layout: &layout, bytes: read.chunk.bytes };
                self.engine.run(&self.work, atoms, scratch, rows).map_err(device_error)
            }
        }
    }
}

impl HostOperation for Measure<'_> {
    /// [n_blocks, n_tasks, N_SUMS]: square error, square norm and product.
    type Part = Vec<f64>;
    type Buffers = Buffers;

    fn n_outputs(&self) -> usize {
        self.n_tasks + 2
    }

    fn on_chunk(&self, read: ReadChunk<'_>, buffers: &mut Buffers) -> Result<Vec<f64>> {
        let mut part = Vec::with_capacity(read.blocks.len() * self.n_tasks * N_SUMS);
        for (segment, block) in read.blocks.iter().enumerate() {
            self.recover(read, segment, buffers)?;
            let base = decode_rows(read.chunk, segment, 0);
            for (task, recovered) in buffers.rows.chunks_exact(4 * block.n_rows.max(1)).enumerate() {
                let tuned = decode_rows(read.chunk, segment, task + 1);
                let is_delta = read.chunk.layout.slice(segment, task + 1).is_delta;
                let (mut error, mut norm, mut product) = (0.0, 0.0, 0.0);
                for ((tuned, base), recovered) in tuned.iter().zip(&base).zip(recovered.as_chunks::<4>().0) {
                    let delta = f64::from(if is_delta { *tuned } else { tuned - base });
                    let recovered = f64::from(f32::from_le_bytes(*recovered));
                    error += (recovered - delta).powi(2);
                    norm += delta * delta;
                    product += recovered * delta;
                }
                part.extend([error, norm, product]);
            }
        }
        Ok(part)
    }
}

/// The layout of the base and the atoms in one segment of a chunk that also holds the tasks.
fn base_and_atoms(layout: &ChunkLayout, segment: usize, n_tasks: usize) -> ChunkLayout {
    let columns = std::iter::once(0).chain(n_tasks + 1..layout.n_columns);
    let slices: Vec<_> = columns.map(|column| layout.slice(segment, column)).collect();
    ChunkLayout {
        n_columns: slices.len(),
        segments: vec![layout.segments[segment]],
        slices,
        n_bytes: layout.n_bytes,
        ..ChunkLayout::default()
    }
}

/// Reads everything once and compares each task with what is recovered of it. `plan` has the tasks' columns first, then
/// those of the atoms where they are read; `weights` are \[n_tasks\]\[n_vectors\].
///
/// # Errors
/// Usage: a memory cap that is too low. Rejected: weights beyond f32, inputs that were written to meanwhile. Failed: I/O.
/// Interrupted.
pub fn measure(
    plan: &Plan,
    recovery: Recovery<'_>,
    weights: &[Vec<f64>],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<SquareError>> {
    let n_tasks = weights.len();
    let n_vectors = weights.first().map_or(0, Vec::len);
    let at = (0..n_vectors).flat_map(|m| (0..n_tasks).map(move |task| (task, m)));
    let in_f32 = |(task, m): (usize, usize)| match weights[task][m] as f32 {
        weight if weight.is_finite() => Ok(weight),
        _ => Err(Error::rejected(format!(
            "{}: its weight of vector {m} in the basis is {:e}: at most ±{:.1e} expected",
            plan.column_name(task + 1),
            weights[task][m],
            f32::MAX
        ))),
    };
    let work = Reconstruct {
        weights: at.map(in_f32).collect::<Result<_>>()?,
        n_outputs: n_tasks,
        columns: Columns::Deltas,
        base: Base::Left,
        dtype: Some(tvb_kernels::Dtype::F32),
    };
    let decode = match recovery {
        Recovery::Codes { rates, seed } => Some(Decode {
            rates: rates.to_vec(),
            weights: work.weights.clone(),
            n_outputs: n_tasks,
            base: Base::Left,
            dtype: work.dtype,
            seed,
        }),
        _ => None,
    };
    let operation = Measure { plan, n_tasks, recovery, weights, work, decode, engine: CpuEngine::new() };
    let mut sums = TotalSums::new(N_SUMS * n_tasks);
    let fold = |Folded { blocks, part, .. }: Folded<'_, Vec<f64>>| {
        blocks
            .iter()
            .zip(part.chunks_exact(N_SUMS * n_tasks))
            .for_each(|(block, values): (&Block, _)| sums.add(block, values));
        Ok(())
    };
    progress.begin("verify", plan.n_bytes());
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&operation, runtime, progress, fold)?;
    progress.finish();
    Ok(sums
        .finish()
        .chunks_exact(N_SUMS)
        .map(|sums| SquareError { error: sums[0], norm: sums[1], product: sums[2] })
        .collect())
}
