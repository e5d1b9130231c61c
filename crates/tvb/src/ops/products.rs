//! Inner products of generated columns with each other and with the task vectors: one pass over the inputs.

use super::generated::RawColumns;
use super::grams::Grams;
use super::same_inputs::check_digests;
use crate::columns::plan::Plan;
use crate::digest::TensorDigests;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::pass::{ChunkSize, Folded, Grid, HostOperation, Pass, ReadChunk, Reads, Runtime, TotalSums, decode_deltas};
use crate::progress::Progress;

/// The operation: R\[m\]·R\[k\] and R\[m\]·τt of every block.
struct Products<'a> {
    raw: &'a RawColumns,
    moved: &'a Plan,
}

impl Products<'_> {
    /// Vectors that every raw column is multiplied with: the raw columns, then the task vectors.
    fn n_others(&self) -> usize {
        self.raw.n_columns + self.moved.tasks.len()
    }
}

impl HostOperation for Products<'_> {
    /// [n_blocks, M, M + T]
    type Part = Vec<f64>;
    type Buffers = ();

    fn n_outputs(&self) -> usize {
        self.n_others()
    }

    fn on_chunk(&self, read: ReadChunk<'_>, _buffers: &mut ()) -> Result<Vec<f64>> {
        let mut part = Vec::with_capacity(read.blocks.len() * self.raw.n_columns * self.n_others());
        for (segment, block) in read.blocks.iter().enumerate() {
            let first_row = self.raw.first_row(&self.moved.tensors[block.tensor].name)? + block.first_row as u64;
            let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(self.n_others());
            for m in 0..self.raw.n_columns {
                let mut column = vec![0.0; block.n_rows];
                self.raw.generator.fill(m, first_row, &mut column);
                vectors.push(column);
            }
            vectors.extend(decode_deltas(read.chunk, segment, self.moved.tasks.len()));
            for m in 0..self.raw.n_columns {
                part.extend(vectors.iter().map(|other| dot(&vectors[m], other)));
            }
        }
        Ok(part)
    }
}

/// RᵀR \[M, M\] and RᵀV \[M, T\], in f64.
///
/// # Errors
/// Rejected: an input that is not what it was when the Gram matrices were formed. Failed: I/O. Interrupted.
pub fn products(
    raw: &RawColumns,
    plan: &Plan,
    grams: &Grams,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<(Matrix, Matrix)> {
    let moved = plan.only(|index| !grams.tensors[index].frozen);
    let operation = Products { raw, moved: &moved };
    let (n_atoms, n_others) = (raw.n_columns, operation.n_others());
    let grid = Grid::new(moved.tensors.iter().map(|tensor| tensor.n_rows), ChunkSize::ONE_BLOCK);
    let mut sums = TotalSums::new(n_atoms * n_others);
    let mut table = TensorDigests::new(plan.n_columns());
    progress.begin("random", moved.n_bytes());
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<f64>>| {
        for (block, values) in blocks.iter().zip(part.chunks_exact(n_atoms * n_others)) {
            sums.add(block, values);
        }
        for (block, columns) in blocks.iter().zip(digests.chunks_exact(plan.n_columns())) {
            table.push(block.tensor, columns);
        }
        Ok(())
    };
    Pass { plan: &moved, grid, reads }.visit(&operation, runtime, progress, fold)?;
    progress.finish();
    check_digests(plan, grams, &table.finish(moved.tensors.len()))?;
    let sums = sums.finish();
    let at = |m: usize, other: usize| sums[m * n_others + other];
    Ok((Matrix::from_fn(n_atoms, n_atoms, at), Matrix::from_fn(n_atoms, n_others - n_atoms, |m, t| at(m, n_atoms + t))))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
