//! Inner products of generated columns with each other and with the task vectors: one pass over the inputs.

use super::generated::RawColumns;
use super::grams::Grams;
use super::same_inputs::check_digests;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::pass::part::{JoinedDigests, JoinedSums, PartDigests, PartSums, Piece, pieces_of};
use crate::pass::{
    ChunkSize, Folded, Grid, HostOperation, Part, Pass, ReadChunk, Reads, Runtime, add_to, decode_deltas,
};
use crate::progress::Progress;

/// The operation: R\[m\]·R\[k\] and R\[m\]·τt of every block.
struct ProductsOfBlocks<'a> {
    raw: &'a RawColumns,
    moved: &'a Plan,
}

impl ProductsOfBlocks<'_> {
    /// Vectors that every raw column is multiplied with: the raw columns, then the task vectors.
    fn n_others(&self) -> usize {
        self.raw.n_columns + self.moved.tasks.len()
    }
}

impl HostOperation for ProductsOfBlocks<'_> {
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

/// The pass, over all rows or a part of them.
#[derive(Debug)]
pub struct Products<'a> {
    raw: &'a RawColumns,
    moved: Plan,
    grid: Grid,
}

/// What the rows of a part leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProductsPart {
    /// Sums that stand side by side: M (M + T).
    pub n_values: usize,
    /// [n_sums, n_values]
    pub sums: Vec<f64>,
    /// [n_digests, T + 1]: of what was read.
    pub read: Vec<Digest>,
}

impl<'a> Products<'a> {
    /// Over the tensors that move.
    pub fn new(raw: &'a RawColumns, plan: &Plan, grams: &Grams) -> Products<'a> {
        let moved = plan.only(|index| !grams.tensors[index].frozen);
        let grid = Grid::new(moved.tensors.iter().map(|tensor| tensor.n_rows), ChunkSize::ONE_BLOCK);
        Products { raw, moved, grid }
    }

    /// How many sums and digests stand side by side.
    pub fn widths(&self) -> (usize, usize) {
        (self.raw.n_columns * self.n_others(), self.moved.n_columns())
    }

    /// Vectors that every raw column is multiplied with: the raw columns, then the task vectors.
    fn n_others(&self) -> usize {
        self.raw.n_columns + self.moved.tasks.len()
    }

    /// What lies in a part.
    pub fn pieces(&self, part: Part) -> Vec<Piece> {
        pieces_of(&part.of(&self.grid), |tensor| self.moved.tensors[tensor].n_rows)
    }

    /// Reads the rows of a part.
    ///
    /// # Errors
    /// As [`products`].
    pub fn of_part(
        &self,
        part: Part,
        reads: &Reads,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<ProductsPart> {
        let (n_values, n_read) = self.widths();
        let (mut sums, mut read) = (PartSums::new(n_values), PartDigests::new(self.pieces(part), n_read));
        let pass = Pass { plan: &self.moved, grid: part.of(&self.grid), reads };
        progress.begin("random", pass.n_bytes());
        let operation = ProductsOfBlocks { raw: self.raw, moved: &self.moved };
        let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<f64>>| {
            let of_blocks = part.chunks_exact(n_values).zip(digests.chunks_exact(n_read));
            for (block, (values, own)) in blocks.iter().zip(of_blocks) {
                sums.add(block, values);
                read.push(block, own);
            }
            Ok(())
        };
        pass.visit(&operation, runtime, progress, fold)?;
        progress.finish();
        Ok(ProductsPart { n_values, sums: sums.finish(), read: read.finish() })
    }

    /// RᵀR \[M, M\] and RᵀV \[M, T\] from all parts in order; `plan` is the whole one.
    ///
    /// # Errors
    /// Failed: parts that are missing. Rejected: an input that is not what it was when the Gram matrices were formed.
    pub fn join(&self, plan: &Plan, grams: &Grams, parts: &[(Part, ProductsPart)]) -> Result<(Matrix, Matrix)> {
        let (n_values, n_read) = self.widths();
        let mut all = vec![0.0; n_values];
        let (mut sums, mut read) = (JoinedSums::new(n_values), JoinedDigests::new(n_read));
        for (part, found) in parts {
            let pieces = self.pieces(*part);
            sums.add(&pieces, &found.sums, |_, values| add_to(&mut all, values))?;
            read.add(&pieces, &found.read)?;
        }
        sums.finish()?;
        check_digests(plan, grams, &read.finish(self.moved.tensors.len())?)?;
        let (n_atoms, n_others) = (self.raw.n_columns, self.n_others());
        let at = |m: usize, other: usize| all[m * n_others + other];
        Ok((
            Matrix::from_fn(n_atoms, n_atoms, at),
            Matrix::from_fn(n_atoms, n_others - n_atoms, |m, t| at(m, n_atoms + t)),
        ))
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
    let products = Products::new(raw, plan, grams);
    let all = Part::new(1, 1)?;
    let found = products.of_part(all, reads, runtime, progress)?;
    products.join(plan, grams, &[(all, found)])
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
