//! Atoms that are made from a seed and never stored: the `random` control.
//!
//! The stored (moved) tensors stand one behind the other in the order in which the manifest lists them, which is the
//! base's file order when the basis was made; each is row-major. Element number x of that row, counted from 0, is row x of
//! every raw column, so value (m, x) is [`Generator`]'s, in whatever order and by whatever thread it is asked for.

mod edits;

pub use edits::GeneratedEdits;

use crate::basis::Basis;
use crate::columns::plan::Plan;
use crate::digest::{BLOCK_ROWS, Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::gram::Grams;
use crate::ops::project::check_digests;
use crate::pass::chunks::{Block, Grid};
use crate::pass::stream::{Pass, Runtime, Visit};
use crate::progress::Progress;
use crate::solve::Generator;
use std::collections::HashMap;
use tvb_kernels::Work;

/// More rows than any file could hold; their bytes can still be counted.
const MAX_ROWS: u64 = i64::MAX as u64 / 8;

/// The raw Gaussian columns R over named tensors.
#[derive(Clone, Debug)]
pub struct RawColumns {
    /// What makes them.
    pub generator: Generator,
    /// How many there are.
    pub n_columns: usize,
    /// Names and shapes of the tensors, in order.
    pub tensors: Vec<(String, Vec<usize>)>,
    first_rows: HashMap<String, u64>,
}

impl RawColumns {
    /// Columns over these tensors in this order.
    ///
    /// # Errors
    /// Rejected: more elements than can be counted.
    pub fn new(seed: u64, n_columns: usize, tensors: Vec<(String, Vec<usize>)>) -> Result<RawColumns> {
        let mut first_rows = HashMap::with_capacity(tensors.len());
        let mut end = 0_u64;
        for (name, shape) in &tensors {
            first_rows.insert(name.clone(), end);
            let n_rows = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64));
            end =
                n_rows.and_then(|n_rows| end.checked_add(n_rows)).filter(|&end| end <= MAX_ROWS).ok_or_else(|| {
                    Error::rejected(format!("tensor {name}: shape {shape:?} has more elements than can be counted"))
                })?;
        }
        Ok(RawColumns { generator: Generator { seed }, n_columns, tensors, first_rows })
    }

    /// The columns of a basis whose atoms are generated; `None` where they are stored.
    ///
    /// # Errors
    /// Rejected: made by another generator.
    pub fn of(basis: &Basis) -> Result<Option<RawColumns>> {
        let Some(record) = &basis.manifest.generated else { return Ok(None) };
        let names = basis.manifest.groups.iter().flat_map(|group| group.tensors.iter().cloned());
        RawColumns::new(record.seed, record.n_atoms, names.zip(record.shapes.iter().cloned()).collect()).map(Some)
    }

    /// Bytes of one column in f32.
    pub fn n_bytes(&self) -> u64 {
        4 * self.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
    }

    /// Row number, over all tensors, of the first element of one of them.
    ///
    /// # Errors
    /// Rejected: no such tensor.
    pub fn first_row(&self, tensor: &str) -> Result<u64> {
        let found = self.first_rows.get(tensor).copied();
        found.ok_or_else(|| Error::rejected(format!("tensor {tensor}: not one of the basis' tensors")))
    }

    /// Σ_m weights\[k\]\[m\]·R_m for `n_rows` rows from `first_row` on, for every output k: \[n_outputs\]\[n_rows\].
    pub fn mixed(&self, first_row: u64, n_rows: usize, weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; n_rows]; weights.len()];
        let mut column = vec![0.0_f32; n_rows];
        for m in 0..self.n_columns {
            self.generator.fill(m, first_row, &mut column);
            for (out, weights) in out.iter_mut().zip(weights).filter(|(_, weights)| weights[m] != 0.0) {
                out.iter_mut().zip(&column).for_each(|(out, value)| *out += weights[m] * f64::from(*value));
            }
        }
        out
    }

    /// One pass over the inputs: RᵀR \[M, M\] and RᵀV \[M, T\], in f64.
    ///
    /// # Errors
    /// Rejected: an input that is not what it was when the Gram matrices were formed. Failed: I/O. Interrupted.
    pub fn products(
        &self,
        plan: &Plan,
        grams: &Grams,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<(Matrix, Matrix)> {
        let moved = plan.only(|index| !grams.tensors[index].frozen);
        let (n_atoms, n_tasks) = (self.n_columns, plan.tasks.len());
        let rows = moved.tensors.iter().map(|tensor| tensor.n_rows);
        let pass = Pass { plan: &moved, grid: Grid::new(rows, BLOCK_ROWS), work: Work::Gram, slots: Vec::new() };
        let mut sums = vec![0.0; n_atoms * (n_atoms + n_tasks)];
        let mut digests = TensorDigests::new(plan.n_columns());
        progress.begin("random", moved.n_bytes());
        let each = |(): &mut (), visit: Visit<'_>| {
            let mut part = vec![0.0; n_atoms * (n_atoms + n_tasks)];
            for (index, block) in visit.blocks.iter().enumerate() {
                let first_row = self.first_row(&moved.tensors[block.tensor].name)? + block.first_row as u64;
                let vectors = self.block_vectors(&visit, index, block.n_rows, first_row, n_tasks);
                for m in 0..n_atoms {
                    for (other, vector) in vectors.iter().enumerate() {
                        part[m * (n_atoms + n_tasks) + other] += dot(&vectors[m], vector);
                    }
                }
            }
            Ok((visit.digests.to_vec(), part))
        };
        let fold = |blocks: &[Block], (read, part): (Vec<Digest>, Vec<f64>)| {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            for (block, columns) in blocks.iter().zip(read.chunks_exact(plan.n_columns())) {
                digests.push(block.tensor, columns);
            }
            Ok(())
        };
        pass.visit(runtime, progress, || (), each, fold)?;
        progress.finish();
        check_digests(plan, grams, &digests.finish(moved.tensors.len()))?;
        let at = |m: usize, other: usize| sums[m * (n_atoms + n_tasks) + other];
        Ok((Matrix::from_fn(n_atoms, n_atoms, at), Matrix::from_fn(n_atoms, n_tasks, |m, t| at(m, n_atoms + t))))
    }

    /// The raw columns, then the task vectors, over one block.
    fn block_vectors(
        &self,
        visit: &Visit<'_>,
        segment: usize,
        n_rows: usize,
        first_row: u64,
        n_tasks: usize,
    ) -> Vec<Vec<f32>> {
        let decoded = |column: usize| {
            let slice = visit.chunk.layout.slice(segment, column);
            tvb_kernels::decode(
                &visit.chunk.bytes[slice.offset..slice.offset + n_rows * slice.dtype.size()],
                slice.dtype,
            )
        };
        let base = decoded(0);
        let mut vectors = Vec::with_capacity(self.n_columns + n_tasks);
        for m in 0..self.n_columns {
            let mut column = vec![0.0; n_rows];
            self.generator.fill(m, first_row, &mut column);
            vectors.push(column);
        }
        for task in 0..n_tasks {
            let mut delta = decoded(task + 1);
            delta.iter_mut().zip(&base).for_each(|(tuned, base)| *tuned -= base);
            vectors.push(delta);
        }
        vectors
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_do_not_hang_on_how_rows_are_cut() {
        let tensors = vec![("a".to_owned(), vec![3, 5]), ("b".to_owned(), vec![]), ("c".to_owned(), vec![7])];
        let raw = RawColumns::new(9, 2, tensors).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| raw.first_row(name).unwrap()), [0, 15, 16]);
        assert!(raw.first_row("d").is_err());
        let weights = [vec![1.0, 0.0], vec![0.5, -2.0]];
        let whole = raw.mixed(0, 23, &weights);
        for (first, n_rows) in [(0, 15), (15, 1), (16, 7), (3, 11)] {
            let part = raw.mixed(first as u64, n_rows, &weights);
            assert_eq!(part[0], whole[0][first..first + n_rows]);
            assert_eq!(part[1], whole[1][first..first + n_rows]);
        }
        for shape in [vec![usize::MAX, 2], vec![usize::MAX], vec![1 << 61], vec![1 << 31, 1 << 31]] {
            assert!(RawColumns::new(0, 1, vec![("a".into(), shape.clone())]).is_err(), "{shape:?}");
        }
        let vast = RawColumns::new(0, 1, vec![("a".into(), vec![1 << 59])]).unwrap();
        assert_eq!(vast.n_bytes(), 1 << 61);
    }
}
