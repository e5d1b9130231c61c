//! A coding pass in parts: what one part of the rows leaves, and all parts joined to what one pass answers.

use super::part::CodedChunk;
use super::setup::{Coded, CodedFrom, Setup};
use super::sink::CodeSink;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::Result;
use crate::pass::part::{JoinedDigests, JoinedSums, PartDigests, PartSums, Piece, pieces_of};
use crate::pass::{Block, Folded, Part, Pass, Reads, Runtime};
use crate::progress::Progress;
use crate::solve::Coding;

/// What the rows of one part leave beside their codes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodedPart {
    /// Sums that stand side by side.
    pub n_values: usize,
    /// Columns that are written.
    pub n_columns: usize,
    /// [n_sums, n_values]: of each block its Gram triangle where it is formed, and what was measured.
    pub sums: Vec<f64>,
    /// [n_digests, T + 1]: of what was read.
    pub read: Vec<Digest>,
    /// [n_digests, n_columns]: of what was written.
    pub written: Vec<Digest>,
}

/// A coding pass that is divided into parts.
#[derive(Debug)]
pub struct DividedCodes<'a> {
    setup: Setup<'a>,
}

impl<'a> DividedCodes<'a> {
    /// The pass that [`code`](super::code()) would make of the same.
    pub fn new(plan: &Plan, from: CodedFrom<'a>, coding: &'a Coding, runtime: &Runtime) -> DividedCodes<'a> {
        DividedCodes { setup: Setup::new(plan, from, coding, runtime) }
    }

    /// What lies in a part of the tensors that are coded: all, or those that are known to move.
    pub fn pieces(&self, part: Part) -> Vec<Piece> {
        pieces_of(&part.of(&self.setup.grid), |tensor| self.setup.plan.tensors[tensor].n_rows)
    }

    /// How many sums, digests of what is read and digests of what is written stand side by side.
    pub fn widths(&self) -> (usize, usize, usize) {
        let setup = &self.setup;
        let columns = setup.start.digests.get(1).map_or(0, |digests| digests.size().0);
        (setup.n_values + setup.n_measured, setup.plan.n_columns(), columns)
    }

    /// Codes the rows of one part and hands them to `sink`, in order.
    ///
    /// # Errors
    /// As [`code`](super::code()).
    pub fn code_part(
        &self,
        part: Part,
        reads: &Reads,
        sink: &mut dyn CodeSink,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<CodedPart> {
        let setup = &self.setup;
        let grid = part.of(&setup.grid);
        let pieces = self.pieces(part);
        let (n_values, n_read, n_written) = self.widths();
        let mut sums = PartSums::new(n_values);
        let (mut read, mut written) = (PartDigests::new(pieces.clone(), n_read), PartDigests::new(pieces, n_written));
        progress.begin("code", Pass { plan: &setup.plan, grid: grid.clone(), reads }.n_bytes());
        setup.run(
            grid,
            reads,
            runtime,
            progress,
            |coder, Folded { blocks, digests, part }: Folded<'_, CodedChunk>| {
                let mut values = Vec::with_capacity(n_values);
                let mut index = 0;
                coder.each_block(&part, blocks, |block: &Block, pieces| {
                    read.push(block, &digests[index * n_read..][..n_read]);
                    written.push(block, &part.digests[index * n_written..][..n_written]);
                    let (triangle, measured) = setup.values_of(&part, index);
                    values.clear();
                    values.extend_from_slice(triangle);
                    values.extend_from_slice(measured);
                    sums.add(block, &values);
                    sink.put(block, pieces)?;
                    if block.first_row + block.n_rows == setup.plan.tensors[block.tensor].n_rows {
                        // Which tensors are frozen is known when all parts are there.
                        sink.end(block.tensor, true)?;
                    }
                    index += 1;
                    Ok(())
                })
            },
        )?;
        progress.finish();
        sink.sync()?;
        Ok(CodedPart {
            n_values,
            n_columns: n_written,
            sums: sums.finish(),
            read: read.finish(),
            written: written.finish(),
        })
    }

    /// An empty sum of parts.
    pub fn joining(&self) -> JoiningCodes<'_, 'a> {
        let (n_values, n_read, n_written) = self.widths();
        JoiningCodes {
            divided: self,
            sums: vec![0.0; self.setup.flags_at()],
            of_tensors: JoinedSums::new(n_values),
            read: JoinedDigests::new(n_read),
            written: JoinedDigests::new(n_written),
        }
    }
}

/// Parts of a coding pass that are being joined.
#[derive(Debug)]
pub struct JoiningCodes<'d, 'a> {
    divided: &'d DividedCodes<'a>,
    sums: Vec<f64>,
    of_tensors: JoinedSums,
    read: JoinedDigests,
    written: JoinedDigests,
}

impl JoiningCodes<'_, '_> {
    /// Adds the part that comes next.
    ///
    /// # Errors
    /// Failed: it is not the one that comes next, or is not complete.
    pub fn add(&mut self, part: Part, found: &CodedPart) -> Result<()> {
        let pieces = self.divided.pieces(part);
        let (setup, sums) = (&self.divided.setup, &mut self.sums);
        self.of_tensors.add(&pieces, &found.sums, |tensor, values| setup.add_tensor(sums, tensor, values))?;
        self.read.add(&pieces, &found.read)?;
        self.written.add(&pieces, &found.written)
    }

    /// What one pass answers; `plan` is the whole one.
    ///
    /// # Errors
    /// Failed: a part is missing. Rejected: an input that is not what it was when the Gram matrices were formed.
    pub fn finish(self, plan: &Plan) -> Result<Coded> {
        let setup = &self.divided.setup;
        self.of_tensors.finish()?;
        let n_tensors = setup.plan.tensors.len();
        setup.coded(plan, self.sums, self.read.finish(n_tensors)?, self.written.finish(n_tensors)?)
    }
}
