//! How far recovered task vectors are from the originals, measured on the data.

use super::generated::RawColumns;
use crate::columns::plan::Plan;
use crate::error::Result;
use crate::pass::{
    Block, Folded, HostOperation, Pass, ReadChunk, Reads, Runtime, TotalSums, decode_deltas, device_error,
};
use crate::progress::Progress;
use tvb_kernels::{Base, Chunk, ChunkLayout, Columns, CpuEngine, Reconstruct, Scratch};

/// What task vectors are recovered from.
#[derive(Clone, Copy, Debug)]
pub enum Recovery<'a> {
    /// Atoms, which are the plan's columns after the tasks'.
    Atoms,
    /// Columns that are made from a seed.
    Generated(&'a RawColumns),
}

/// ‖τ̂t − τt‖² and ‖τt‖² of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SquareError {
    /// ‖τ̂t − τt‖².
    pub error: f64,
    /// ‖τt‖².
    pub norm: f64,
}

/// The operation: recovers the tasks of every block and compares.
struct Measure<'a> {
    plan: &'a Plan,
    n_tasks: usize,
    recovery: Recovery<'a>,
    /// \[n_tasks\]\[n_vectors\]
    weights: &'a [Vec<f64>],
    work: Reconstruct,
    engine: CpuEngine,
}

impl Measure<'_> {
    /// Recovered rows of one block, task by task: \[n_tasks\]\[n_rows\].
    fn recovered(&self, read: ReadChunk<'_>, segment: usize, scratch: &mut Scratch) -> Result<Vec<Vec<f32>>> {
        let block = &read.blocks[segment];
        match self.recovery {
            Recovery::Generated(raw) => {
                let first_row = raw.first_row(&self.plan.tensors[block.tensor].name)? + block.first_row as u64;
                let rows = raw.mixed(first_row, block.n_rows, self.weights);
                Ok(rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect())
            }
            Recovery::Atoms => {
                let layout = base_and_atoms(read.chunk.layout, segment, self.n_tasks);
                let mut rows = Vec::new();
                let atoms = Chunk { layout: &layout, bytes: read.chunk.bytes };
                self.engine.run(&self.work, atoms, scratch, &mut rows).map_err(device_error)?;
                Ok(rows
                    .chunks(4 * block.n_rows.max(1))
                    .map(|row| tvb_kernels::decode(row, tvb_kernels::Dtype::F32))
                    .collect())
            }
        }
    }
}

impl HostOperation for Measure<'_> {
    /// [n_blocks, n_tasks, 2]: square error and square norm.
    type Part = Vec<f64>;
    type Buffers = Scratch;

    fn n_outputs(&self) -> usize {
        3 * self.n_tasks
    }

    fn on_chunk(&self, read: ReadChunk<'_>, scratch: &mut Scratch) -> Result<Vec<f64>> {
        let mut part = Vec::with_capacity(read.blocks.len() * self.n_tasks * 2);
        for segment in 0..read.blocks.len() {
            let recovered = self.recovered(read, segment, scratch)?;
            let deltas = decode_deltas(read.chunk, segment, self.n_tasks);
            for (delta, recovered) in deltas.iter().zip(&recovered) {
                let (mut error, mut norm) = (0.0, 0.0);
                for (&delta, &recovered) in delta.iter().zip(recovered) {
                    error += (f64::from(recovered) - f64::from(delta)).powi(2);
                    norm += f64::from(delta) * f64::from(delta);
                }
                part.extend([error, norm]);
            }
        }
        Ok(part)
    }
}

/// The layout of the base and the atoms in one segment of a chunk that also holds the tasks.
fn base_and_atoms(layout: &ChunkLayout, segment: usize, n_tasks: usize) -> ChunkLayout {
    let columns = std::iter::once(0).chain(n_tasks + 1..layout.n_columns);
    let slices: Vec<_> = columns.map(|column| layout.slice(segment, column)).collect();
    ChunkLayout { n_columns: slices.len(), segments: vec![layout.segments[segment]], slices, n_bytes: layout.n_bytes }
}

/// Reads everything once and compares each task with what is recovered of it. `plan` has the tasks' columns first, then
/// those of the atoms where they are read; `weights` are \[n_tasks\]\[n_vectors\].
///
/// # Errors
/// Failed: I/O. Interrupted.
pub fn measure(
    plan: &Plan,
    recovery: Recovery<'_>,
    weights: &[Vec<f64>],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<SquareError>> {
    let n_tasks = weights.len();
    let n_vectors = weights.first().map_or(0, Vec::len);
    let work = Reconstruct {
        weights: (0..n_vectors).flat_map(|m| weights.iter().map(move |task| task[m] as f32)).collect(),
        n_outputs: n_tasks,
        columns: Columns::Deltas,
        base: Base::Left,
        dtype: Some(tvb_kernels::Dtype::F32),
    };
    let operation = Measure { plan, n_tasks, recovery, weights, work, engine: CpuEngine::new() };
    let mut sums = TotalSums::new(2 * n_tasks);
    let fold = |Folded { blocks, part, .. }: Folded<'_, Vec<f64>>| {
        blocks
            .iter()
            .zip(part.chunks_exact(2 * n_tasks))
            .for_each(|(block, values): (&Block, _)| sums.add(block, values));
        Ok(())
    };
    progress.begin("verify", plan.n_bytes());
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&operation, runtime, progress, fold)?;
    progress.finish();
    Ok(sums.finish().chunks_exact(2).map(|pair| SquareError { error: pair[0], norm: pair[1] }).collect())
}
