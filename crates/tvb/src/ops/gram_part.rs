//! A part of the Gram pass, and the Gram matrices of one run from all parts.
//!
//! Rows are cut as [`crate::pass::part`] says. Tensors whose matrices come from factors are not cut: each belongs to one part.

use super::factor_gram::{by_factors, digests_of, factor_grams, with_digests};
use super::gram::{GramOfBlocks, add_triangle, assemble, per, slots, with_rows};
use super::grams::{Grams, Per};
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pass::part::{JoinedDigests, JoinedSums, PartDigests, PartSums, Piece, n_kept, pieces_of};
use crate::pass::{ChunkSize, Folded, Grid, Part, Pass, Reads, Runtime};
use crate::progress::Progress;
use tvb_kernels::{Gram, triangle_len};

/// What a part of the Gram pass leaves: of the rows that were read, then of the tensors that were not.
#[derive(Clone, Debug, PartialEq)]
pub struct GramPart {
    /// [n_sums, T(T+1)/2]: packed triangles.
    pub sums: Vec<f64>,
    /// [n_digests, T + 1]
    pub digests: Vec<Digest>,
}

/// For each tensor of a plan, whether its Gram matrix is formed from factors, and so not cut.
pub fn factored(plan: &Plan) -> Vec<bool> {
    by_factors(plan)
}

/// What belongs to a part of a Gram pass.
#[derive(Clone, Debug)]
pub struct GramShape {
    /// The rows that are read, in the numbers of the tensors that are not factored.
    pub pieces: Vec<Piece>,
    /// The factored tensors, in the plan's numbers.
    pub factored: Vec<usize>,
}

impl GramShape {
    /// What belongs to `part` of the Gram pass over a plan, of whose tensors those are `factored`.
    pub fn new(plan: &Plan, factored: &[bool], part: Part) -> GramShape {
        let read: Vec<usize> = of_tensors(plan, factored, false).map(|(_, n_rows)| n_rows).collect();
        let grid = part.of(&Grid::new(read.iter().copied(), ChunkSize::ONE_BLOCK));
        let n_rows = |n: usize| n as u64;
        let all = of_tensors(plan, factored, true).map(|(_, rows)| n_rows(rows)).sum();
        let mut before = 0;
        let mut own = Vec::new();
        for (tensor, rows) in of_tensors(plan, factored, true) {
            if part.owns(before, n_rows(rows), all) {
                own.push(tensor);
            }
            before += n_rows(rows);
        }
        GramShape { pieces: pieces_of(&grid, |tensor| read[tensor]), factored: own }
    }

    /// Rows of sums and of digests in a [`GramPart`].
    pub fn n_kept(&self) -> (usize, usize) {
        let (n_sums, n_digests) = n_kept(&self.pieces);
        (n_sums + self.factored.len(), n_digests + self.factored.len())
    }
}

/// The tensors that are factored, or those that are not, with their rows.
fn of_tensors<'a>(plan: &'a Plan, factored: &'a [bool], which: bool) -> impl Iterator<Item = (usize, usize)> + 'a {
    let tensors = plan.tensors.iter().zip(factored).enumerate();
    tensors.filter(move |(_, (_, factored))| **factored == which).map(|(tensor, (planned, _))| (tensor, planned.n_rows))
}

/// Reads the rows of one part of the inputs and forms what [`GramJoin`] makes the Gram matrices of.
///
/// # Errors
/// As [`gram`](super::gram::gram). Usage: a memory cap that leaves no room for the sums.
pub fn gram_of_part(plan: &Plan, part: Part, runtime: &Runtime, progress: &dyn Progress) -> Result<GramPart> {
    let factored = by_factors(plan);
    let shape = GramShape::new(plan, &factored, part);
    let n_values = triangle_len(plan.tasks.len());
    let sums_bytes = 8 * (shape.n_kept().0 as u64).saturating_mul(n_values as u64);
    runtime.check_memory(sums_bytes, &format!("the sums of part {part}"))?;
    let reads = Reads::new();
    let grid = Pass::over(plan, runtime, &reads).grid.only(|tensor| !factored[tensor]);
    let rows = plan.only(|tensor| !factored[tensor]);
    let (mut sums, mut digests) = (PartSums::new(n_values), PartDigests::new(shape.pieces.clone(), plan.n_columns()));
    if !shape.pieces.is_empty() {
        let pass = Pass { plan: &rows, grid: part.of(&grid), reads: &reads };
        progress.begin("gram", pass.n_bytes());
        let fold = |folded: Folded<'_, Vec<f64>>| {
            let of_blocks = folded.part.chunks_exact(n_values).zip(folded.digests.chunks_exact(plan.n_columns()));
            for (block, (values, own)) in folded.blocks.iter().zip(of_blocks) {
                sums.add(block, values);
                digests.push(block, own);
            }
            Ok(())
        };
        pass.run(&GramOfBlocks { work: Gram::ALL, plan: &rows, reads: &reads }, runtime, progress, fold)?;
        progress.finish();
    }
    let mut sums = sums.finish();
    let mut digests = digests.finish();
    if !shape.factored.is_empty() {
        let first = sums.len();
        sums.resize(first + shape.factored.len() * n_values, 0.0);
        let own: Vec<bool> = (0..plan.tensors.len()).map(|tensor| shape.factored.contains(&tensor)).collect();
        factor_grams(plan, &own, 0, runtime, progress, |tensor, triangle| {
            if let Ok(at) = shape.factored.binary_search(&tensor) {
                sums[first + at * n_values..][..n_values].copy_from_slice(triangle);
            }
        })?;
        digests.extend(shape.factored.iter().flat_map(|tensor| digests_of(plan, *tensor)));
    }
    Ok(GramPart { sums, digests })
}

/// The Gram matrices of one run, from its parts in order. The plan may be one of which nothing can be read.
#[derive(Debug)]
pub struct GramJoin<'a> {
    plan: &'a Plan,
    factored: &'a [bool],
    per: Per,
    /// Of the tensors that are read, [n_slots, T(T+1)/2].
    of_rows: Vec<f64>,
    slot_of: fn(usize) -> usize,
    sums: JoinedSums,
    digests: JoinedDigests,
    /// Of the factored tensors in order, [n_factored, T(T+1)/2] and [n_factored, T + 1].
    of_factors: Vec<f64>,
    factor_digests: Vec<Digest>,
}

impl<'a> GramJoin<'a> {
    /// No part yet.
    pub fn new(plan: &'a Plan, factored: &'a [bool]) -> GramJoin<'a> {
        let per = per(plan);
        let n_values = triangle_len(plan.tasks.len());
        let (n_slots, slot_of) = slots(&plan.only(|tensor| !factored[tensor]), per);
        GramJoin {
            plan,
            factored,
            per,
            of_rows: vec![0.0; n_slots * n_values],
            slot_of,
            sums: JoinedSums::new(n_values),
            digests: JoinedDigests::new(plan.n_columns()),
            of_factors: Vec::new(),
            factor_digests: Vec::new(),
        }
    }

    /// Adds `part`, which is the next one.
    ///
    /// # Errors
    /// Failed: it is not, or these are not its sums.
    pub fn add(&mut self, part: Part, kept: GramPart) -> Result<()> {
        let shape = GramShape::new(self.plan, self.factored, part);
        let n_values = triangle_len(self.plan.tasks.len());
        let (n_sums, n_digests) = n_kept(&shape.pieces);
        let sums = kept.sums.split_at_checked(n_sums * n_values);
        let digests = kept.digests.split_at_checked(n_digests * self.plan.n_columns());
        let (Some((sums, of_factors)), Some((digests, factor_digests))) = (sums, digests) else {
            return Err(Error::failed(format!("part {part}: not as many sums or digests as it has tensors")));
        };
        let (of_rows, slot_of) = (&mut self.of_rows, self.slot_of);
        self.sums.add(&shape.pieces, sums, |tensor, triangle| add_triangle(of_rows, slot_of(tensor), triangle))?;
        self.digests.add(&shape.pieces, digests)?;
        self.of_factors.extend_from_slice(of_factors);
        self.factor_digests.extend_from_slice(factor_digests);
        Ok(())
    }

    /// The Gram matrices, the bits of one run's.
    ///
    /// # Errors
    /// Failed: parts are missing.
    pub fn finish(self) -> Result<Grams> {
        let GramJoin { plan, factored, per, of_rows, .. } = self;
        let n_values = triangle_len(plan.tasks.len());
        let tensors: Vec<usize> = of_tensors(plan, factored, true).map(|(tensor, _)| tensor).collect();
        let is_whole = self.of_factors.len() == tensors.len() * n_values
            && self.factor_digests.len() == tensors.len() * plan.n_columns();
        if !is_whole {
            return Err(Error::failed("parts of the Gram matrix are missing"));
        }
        self.sums.finish()?;
        let digests = self.digests.finish(plan.tensors.len() - tensors.len())?;
        if tensors.is_empty() {
            return Ok(assemble(plan, per, of_rows, digests));
        }
        let mut sums = with_rows(plan, factored, per, of_rows);
        let slot_of = slots(plan, per).1;
        for (tensor, triangle) in tensors.iter().zip(self.of_factors.chunks_exact(n_values)) {
            add_triangle(&mut sums, slot_of(*tensor), triangle);
        }
        let mut factor_digests = self.factor_digests.chunks_exact(plan.n_columns());
        let digests =
            with_digests(plan.n_columns(), factored, &digests, |_| factor_digests.next().unwrap_or_default().to_vec());
        Ok(assemble(plan, per, sums, digests))
    }
}
