//! Passes of a merge over a tensor, or over all tensors of a part: what is counted, summed and gathered first, and what is
//! written in the end.

use super::columns::{Formed, MergePart};
use crate::columns::plan::Plan;
use crate::digest::{TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::decode::{CodesRead, digests_by_name};
use crate::ops::edits::Read;
use crate::ops::outputs::Outputs;
use crate::ops::range::{Input, Origin, RangeCheck, Rows};
use crate::ops::reconstruct::digests_by_place;
use crate::pass::{
    Block, ChunkReader, DigestOnly, Done, Folded, HostOperation, Operation, Pass, ReadChunk, Reads, Runtime,
    decode_deltas, device_error,
};
use crate::progress::Progress;
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{Bracket, Chunk, CpuEngine, Dtype, Found, Merge, MergeSums, Scratch};

/// Rows of a run of a sample.
const RUN_ROWS: usize = 2048;

/// One tensor of a merge, or all of a part, ready to be passed over.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    /// What is read, and how task vectors come of it.
    pub part: &'a MergePart,
    /// What it runs on.
    pub runtime: &'a Runtime,
    /// Who is told of it.
    pub progress: &'a dyn Progress,
}

/// Does something with base and task vectors of every chunk.
struct Visit<'a, F> {
    part: &'a MergePart,
    engine: CpuEngine,
    each: F,
}

impl<P: Send, F: Fn(ReadChunk<'_>, Chunk<'_>, &mut Scratch) -> Result<P> + Sync> HostOperation for Visit<'_, F> {
    type Part = P;
    type Buffers = Formed;

    fn n_outputs(&self) -> usize {
        // Task vectors that are formed are there twice.
        if self.part.is_as_read() { 1 } else { 2 * self.part.n_tasks + 1 }
    }

    fn on_chunk(&self, read: ReadChunk<'_>, buffers: &mut Formed) -> Result<P> {
        let (chunk, scratch) = buffers.form(self.part, self.engine, read.chunk)?;
        (self.each)(read, chunk, scratch)
    }
}

impl Stream<'_> {
    fn plan(&self) -> &Plan {
        &self.part.plan
    }

    /// Elements of a task vector.
    pub fn n_rows(&self) -> u64 {
        self.plan().n_rows()
    }

    /// Hands base and task vectors of every chunk to `each`, and what it makes of them to `fold`, in order.
    ///
    /// # Errors
    /// As [`Pass::visit`].
    pub(super) fn visit<P: Send>(
        &self,
        each: impl Fn(ReadChunk<'_>, Chunk<'_>, &mut Scratch) -> Result<P> + Sync,
        fold: impl FnMut(Folded<'_, P>) -> Result<()> + Send,
    ) -> Result<()> {
        let reads = Reads::new();
        let visit = Visit { part: self.part, engine: CpuEngine::new(), each };
        Pass::over(self.plan(), self.runtime, &reads).visit(&visit, self.runtime, self.progress, fold)
    }

    /// Counts what lies in and above each bracket: \[n_brackets\].
    ///
    /// # Errors
    /// As [`Pass::visit`].
    pub fn count(&self, brackets: &[Bracket]) -> Result<Vec<Found>> {
        let engine = CpuEngine::new();
        // Counts may be added up in any order, so every thread has its own, and few are made.
        let all: Mutex<Vec<Vec<Found>>> = Mutex::default();
        let pool = || all.lock().unwrap_or_else(PoisonError::into_inner);
        self.visit(
            |_, chunk, scratch| {
                let mut found = pool().pop().unwrap_or_else(|| vec![Found::default(); brackets.len()]);
                engine.count(chunk, brackets, scratch, &mut found).map_err(device_error)?;
                pool().push(found);
                Ok(())
            },
            |_| Ok(()),
        )?;
        let mut sums = vec![Found::default(); brackets.len()];
        for found in all.into_inner().unwrap_or_else(PoisonError::into_inner) {
            for ((sum, found), bracket) in sums.iter_mut().zip(found).zip(brackets) {
                sum.add(found, bracket.most_listed);
            }
        }
        Ok(sums)
    }

    /// For each of these, the place in the tensor of value number n (from 0) of those that equal a magnitude, in order; `u64::MAX`
    /// where there are fewer. One pass for all. For a stream of one tensor.
    ///
    /// # Errors
    /// As [`Pass::visit`].
    pub fn places_of_equals(&self, asked: &[(Bracket, u64)]) -> Result<Vec<u64>> {
        let engine = CpuEngine::new();
        let bare = |(equals, _): &(Bracket, u64)| Bracket { shift: None, most_listed: 0, ..*equals };
        let brackets: Vec<Bracket> = asked.iter().map(bare).collect();
        let mut before = vec![0_u64; asked.len()];
        // Where each lies: the chunk's blocks, and how many equals come before it.
        let mut found: Vec<Option<(Vec<Block>, u64)>> = vec![None; asked.len()];
        self.visit(
            |_, chunk, scratch| {
                let mut found = vec![Found::default(); brackets.len()];
                engine.count(chunk, &brackets, scratch, &mut found).map_err(device_error)?;
                Ok(found.iter().map(|found| found.n_inside).collect::<Vec<u64>>())
            },
            |Folded { blocks, part, .. }| {
                for (((before, found), n_inside), (_, n)) in before.iter_mut().zip(&mut found).zip(part).zip(asked) {
                    if found.is_none() && *before + n_inside > *n {
                        *found = Some((blocks.to_vec(), *before));
                    }
                    *before += n_inside;
                }
                Ok(())
            },
        )?;
        let place = |((found, bracket), (_, n)): ((Option<(Vec<Block>, u64)>, &Bracket), &(Bracket, u64))| match found {
            Some((blocks, before)) => self.place_in_blocks(&blocks, *bracket, n - before),
            None => Ok(u64::MAX),
        };
        found.into_iter().zip(&brackets).zip(asked).map(place).collect()
    }

    /// The place of equal number `n` in a few blocks.
    fn place_in_blocks(&self, blocks: &[Block], equals: Bracket, n: u64) -> Result<u64> {
        let (engine, one, mut before) = (CpuEngine::new(), [equals], 0);
        for block in blocks {
            let (mut reader, mut formed) = (ChunkReader::default(), Formed::default());
            reader.read(self.plan(), &Reads::new(), &[*block])?;
            let (chunk, scratch) = formed.form(self.part, engine, reader.chunk())?;
            let mut n_inside = |rows: usize| -> Result<u64> {
                let mut layout = chunk.layout.clone();
                layout.segments.iter_mut().for_each(|segment| segment.n_rows = rows.min(segment.n_rows));
                let (part, mut found) = (Chunk { layout: &layout, ..chunk }, [Found::default()]);
                engine.count(part, &one, scratch, &mut found).map_err(device_error)?;
                Ok(found.iter().map(|found| found.n_inside).sum())
            };
            let all = n_inside(block.n_rows)?;
            if before + all <= n {
                before += all;
                continue;
            }
            // The fewest rows with more than n of them.
            let (mut few, mut many) = (0, block.n_rows);
            while many - few > 1 {
                let middle = few.midpoint(many);
                match before + n_inside(middle)? > n {
                    true => many = middle,
                    false => few = middle,
                }
            }
            return Ok((block.first_row + many - 1) as u64);
        }
        Ok(u64::MAX)
    }

    /// Sums over all rows, of what `merge` keeps of them; or the inner products of base and task vectors, where asked for.
    ///
    /// # Errors
    /// As [`Pass::visit`].
    pub fn sums(&self, merge: &Merge, with_products: bool) -> Result<MergeSums> {
        let engine = CpuEngine::new();
        let mut sums = MergeSums::default();
        self.visit(
            |_, chunk, scratch| engine.merge_sums(merge, with_products, chunk, scratch).map_err(device_error),
            |folded| {
                sums.add(&folded.part);
                Ok(())
            },
        )?;
        Ok(sums)
    }

    /// All task vectors of a tensor, in f32: \[n_tasks\]\[n_rows\].
    ///
    /// # Errors
    /// Usage: a memory cap that they do not fit in. Else as [`Pass::visit`].
    pub fn gather(&self) -> Result<Vec<Vec<f32>>> {
        let n_rows = usize::try_from(self.n_rows()).map_err(|_| Error::failed("more rows than can be counted"))?;
        let mut all = vec![Vec::with_capacity(n_rows); self.part.n_tasks];
        self.visit(
            |_, chunk, _| {
                let segments = 0..chunk.layout.segments.len();
                Ok(segments.map(|segment| decode_deltas(chunk, segment, self.part.n_tasks)).collect::<Vec<_>>())
            },
            |folded| {
                for segment in folded.part {
                    all.iter_mut().zip(&segment).for_each(|(all, rows)| all.extend_from_slice(rows));
                }
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// Values of each score in at most `n_runs` short runs of rows, spread over all tensors: the magnitudes' bits \[n_scores\].
    ///
    /// # Errors
    /// Failed: I/O. Interrupted.
    pub fn sample(&self, brackets: &[Bracket], n_runs: usize) -> Result<Vec<Vec<u32>>> {
        let engine = CpuEngine::new();
        let grid = Pass::over(self.plan(), &Runtime::on_cpu(1, self.runtime.memory_bytes), &Reads::new()).grid;
        let n_chunks = grid.n_chunks();
        let step = n_chunks.div_ceil(n_runs.max(1)).max(1);
        let mut found = vec![Found::default(); brackets.len()];
        let (mut reader, mut formed) = (ChunkReader::default(), Formed::default());
        // From the middle of each stretch, so that neither a tensor's beginning nor its end is favoured.
        for chunk in (step / 2..n_chunks).step_by(step) {
            self.progress.check()?;
            let run = |block: Block| Block { n_rows: block.n_rows.min(RUN_ROWS), ..block };
            let blocks: Vec<Block> = grid.blocks(chunk).into_iter().take(1).map(run).collect();
            reader.read(self.plan(), &Reads::new(), &blocks)?;
            let (chunk, scratch) = formed.form(self.part, engine, reader.chunk())?;
            engine.count(chunk, brackets, scratch, &mut found).map_err(device_error)?;
        }
        Ok(found.into_iter().map(|found| found.listed).collect())
    }

    /// Merges every row and writes it; answers the digests of what was read.
    ///
    /// # Errors
    /// As [`Pass::run`] and [`CheckpointWriter::write`](crate::checkpoint::CheckpointWriter::write).
    pub fn write(&self, merge: &Merge, outputs: Outputs<'_>, range: &RangeCheck) -> Result<Read> {
        let plan = self.plan();
        let n_digests = plan.n_digests();
        let mut table = TensorDigests::new(n_digests);
        let fold = |Folded { blocks, digests, .. }: Folded<'_, ()>| {
            for (block, columns) in blocks.iter().zip(digests.chunks_exact(n_digests)) {
                table.push(block.tensor, columns);
            }
            Ok(())
        };
        let write = WriteMerged { stream: *self, merge, outputs, range };
        if self.part.is_as_read() {
            let reads = Reads::new();
            Pass::over(plan, self.runtime, &reads).run(&write, self.runtime, self.progress, fold)?;
        } else {
            let engine = CpuEngine::new();
            let each = |read: ReadChunk<'_>, chunk: Chunk<'_>, scratch: &mut Scratch| {
                let mut rows = Vec::new();
                engine.run(merge, chunk, scratch, &mut rows).map_err(device_error)?;
                write.put(read.blocks, |index| read.chunk.layout.slice(index, 0).dtype, &mut rows)
            };
            self.visit(each, fold)?;
        }
        Ok(self.read(&table.finish(plan.tensors.len())))
    }

    /// Reads everything once, for its digests alone.
    ///
    /// # Errors
    /// As [`Pass::visit`].
    pub fn digests(&self) -> Result<Read> {
        let (plan, reads) = (self.plan(), Reads::new());
        let n_digests = plan.n_digests();
        let mut table = TensorDigests::new(n_digests);
        Pass::over(plan, self.runtime, &reads).visit(&DigestOnly, self.runtime, self.progress, |folded| {
            for (block, columns) in folded.blocks.iter().zip(folded.digests.chunks_exact(n_digests)) {
                table.push(block.tensor, columns);
            }
            Ok(())
        })?;
        Ok(self.read(&table.finish(plan.tensors.len())))
    }

    /// What a table of digests says of what was read.
    pub(super) fn read(&self, table: &TableOfDigests) -> Read {
        let (plan, part) = (self.plan(), self.part);
        let n_columns = plan.n_columns();
        let codes = part.coded.iter().enumerate().filter_map(|(index, &column)| {
            Some(CodesRead {
                column,
                task: part.atoms.as_ref()?.columns.get(column)?.clone(),
                digests: digests_by_name(plan, table, n_columns + index),
            })
        });
        Read {
            base: digests_by_name(plan, table, 0),
            columns: (1..n_columns).map(|column| digests_by_place(plan, table, column)).collect(),
            codes: codes.collect(),
            ..Read::default()
        }
    }
}

/// The operation: rows of the merged model, written where they belong.
pub(super) struct WriteMerged<'a> {
    pub(super) stream: Stream<'a>,
    pub(super) merge: &'a Merge,
    pub(super) outputs: Outputs<'a>,
    pub(super) range: &'a RangeCheck,
}

impl WriteMerged<'_> {
    /// Writes the rows of some blocks, one after another in `rows`; `dtype` is that of the base in each.
    pub(super) fn put(&self, blocks: &[Block], dtype: impl Fn(usize) -> Dtype, rows: &mut [u8]) -> Result<()> {
        let mut rest = rows;
        for (index, block) in blocks.iter().enumerate() {
            let stored = self.merge.dtype.unwrap_or_else(|| dtype(index));
            let (own, others) = rest
                .split_at_mut_checked(block.n_rows * stored.size())
                .ok_or_else(|| Error::failed("a merged chunk is shorter than its blocks"))?;
            rest = others;
            let Some(tensor) = self.stream.plan().tensors.get(block.tensor) else { continue };
            let (outputs, first_row) = (0..1, block.first_row);
            let looked_at = Rows { outputs, tensor: &tensor.name, first_row, dtype: stored, bytes: &mut *own };
            self.range.look(looked_at, || self.origin(*block))?;
            self.outputs.write(0, &tensor.name, (block.first_row * stored.size()) as u64, own)?;
        }
        Ok(())
    }

    /// What a block was formed from, read again.
    pub(super) fn origin(&self, block: Block) -> Result<Origin> {
        let (plan, part) = (self.stream.plan(), self.stream.part);
        let (mut reader, mut formed) = (ChunkReader::default(), Formed::default());
        reader.read(plan, &Reads::new(), &[block])?;
        let (chunk, _) = formed.form(part, CpuEngine::new(), reader.chunk())?;
        let wide = |rows: Vec<f32>| rows.into_iter().map(f64::from).collect::<Vec<_>>();
        let base = crate::pass::decode_rows(chunk, 0, 0);
        let mut inputs = vec![Input { name: plan.column_name(0), values: wide(base), is_base: true }];
        for (task, values) in decode_deltas(chunk, 0, part.n_tasks).into_iter().enumerate() {
            let name = match part.is_as_read() {
                true => plan.column_name(task + 1),
                false => format!("task vector number {}", task + 1),
            };
            inputs.push(Input { name, values: wide(values), is_base: false });
        }
        Ok(Origin { inputs, exact: Vec::new() })
    }
}

impl Operation for WriteMerged<'_> {
    type Work = Merge;
    type Part = ();

    fn work(&self) -> &Merge {
        self.merge
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<()> {
        self.put(done.blocks, |index| done.layout.slice(index, 0).dtype, rows)
    }
}
