//! Merges that look at whole rows of a matrix at once: ranks within a row, weights for each row.

use super::columns::Formed;
use super::passes::Stream;
use crate::digest::BLOCK_ROWS;
use crate::error::{Error, Result};
use crate::ops::outputs::Outputs;
use crate::ops::range::{Input, Origin, RangeCheck, Rows as Looked};
use crate::pass::{Block, ChunkReader, Reads, decode_deltas, device_error};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{Chunk, ChunkLayout, Consensus, CpuEngine, Dtype, Keep, Merge, MergeTask, Segment, Slice};

/// Elements of a group of rows, about.
const GROUP_ELEMENTS: usize = 16 * BLOCK_ROWS;

/// How a tensor is cut: runs of `length` elements, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Elements of a row.
    pub length: usize,
    /// How many rows there are.
    pub n: usize,
}

impl Rows {
    /// Runs along the last dimension; a vector is one row.
    pub fn of_shape(shape: &[usize]) -> Rows {
        let length = shape.last().copied().unwrap_or(1).max(1);
        Rows { length, n: shape.iter().product::<usize>() / length }
    }
}

/// Whole rows of base and task vectors.
#[derive(Clone, Debug)]
pub struct RowGroup {
    /// The first row.
    pub first: usize,
    /// θ0 as it is stored.
    pub base: Vec<u8>,
    /// How it is stored.
    pub dtype: Dtype,
    /// \[n_tasks\]: τ of the same elements.
    pub tasks: Vec<Vec<f32>>,
}

/// out = base·θ0 + λ·δ, δ given.
fn one_delta(base: f32, lambda: f32, dtype: Option<Dtype>) -> Merge {
    let task = MergeTask { factor: 1.0, weight: 1.0, keep: Keep::All };
    Merge { tasks: vec![task], variance: None, consensus: Consensus::Sum, base, lambda, dtype }
}

/// Rows of base and one task vector, as an engine takes them.
fn beside(base: &[u8], dtype: Dtype, delta: &[f32]) -> (ChunkLayout, Vec<u8>) {
    let mut bytes = base.to_vec();
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    let start = bytes.len();
    delta.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let layout = ChunkLayout {
        n_columns: 2,
        segments: vec![Segment::new(delta.len())],
        slices: vec![Slice::new(0, dtype), Slice::of_delta(start)],
        codes: Vec::new(),
        factors: Vec::new(),
        n_bytes: bytes.len(),
    };
    (layout, bytes)
}

impl Stream<'_> {
    /// Writes θ0 + λ·δ for a group of rows, δ given.
    ///
    /// # Errors
    /// As [`CheckpointWriter::write`](crate::checkpoint::CheckpointWriter::write). Failed: another number of values than the group has.
    pub fn write_rows(
        &self,
        group: &RowGroup,
        rows: Rows,
        delta: &[f32],
        lambda: f32,
        outputs: Outputs<'_>,
        range: &RangeCheck,
    ) -> Result<()> {
        self.write_delta(group.first * rows.length, (&group.base, group.dtype), delta, lambda, outputs, range)
    }

    /// The same for all of a tensor.
    ///
    /// # Errors
    /// As [`Stream::digests`] and [`CheckpointWriter::write`](crate::checkpoint::CheckpointWriter::write).
    pub fn write_whole(&self, delta: &[f32], lambda: f32, outputs: Outputs<'_>, range: &RangeCheck) -> Result<()> {
        self.visit(
            |read, chunk, _| {
                for (index, block) in read.blocks.iter().enumerate() {
                    let slice = chunk.layout.slice(index, 0);
                    let base = slice.offset..slice.offset + block.n_rows * slice.dtype.size();
                    let base = chunk.bytes.get(base).unwrap_or(&[]);
                    let own = delta.get(block.first_row..block.first_row + block.n_rows).unwrap_or(&[]);
                    self.write_delta(block.first_row, (base, slice.dtype), own, lambda, outputs, range)?;
                }
                Ok(())
            },
            |_| Ok(()),
        )
    }

    fn write_delta(
        &self,
        first: usize,
        (base, dtype): (&[u8], Dtype),
        delta: &[f32],
        lambda: f32,
        outputs: Outputs<'_>,
        range: &RangeCheck,
    ) -> Result<()> {
        let Some(tensor) = self.part.plan.tensors.first() else { return Ok(()) };
        let (stored, engine) = (outputs.format.dtype.unwrap_or(dtype), CpuEngine::new());
        let (layout, bytes) = beside(base, dtype, delta);
        let (chunk, merge) = (Chunk { layout: &layout, bytes: &bytes }, one_delta(1.0, lambda, outputs.format.dtype));
        let mut out = Vec::new();
        engine.run(&merge, chunk, &mut engine.scratch(), &mut out).map_err(device_error)?;
        let looked_at =
            Looked { outputs: 0..1, tensor: &tensor.name, first_row: first, dtype: stored, bytes: &mut out };
        range.look(looked_at, || {
            let values = tvb_kernels::decode(base, dtype).into_iter().map(f64::from).collect();
            let base = Input { name: self.part.plan.column_name(0), values, is_base: true };
            let delta = delta.iter().map(|value| f64::from(*value)).collect();
            let edit = Input { name: "the merged task vector".to_owned(), values: delta, is_base: false };
            Ok(Origin { inputs: vec![base, edit], exact: Vec::new() })
        })?;
        outputs.write(0, &tensor.name, (first * stored.size()) as u64, &out)
    }

    /// Hands whole rows of the stream's one tensor to `each`, on all threads, and what it makes of them to `fold`, in order.
    ///
    /// # Errors
    /// Those of `each` and `fold`, and of reading. Interrupted. Usage: a memory cap that rows do not fit in.
    pub fn for_rows<P: Send>(
        &self,
        rows: Rows,
        each: impl Fn(RowGroup) -> Result<P> + Sync,
        mut fold: impl FnMut(P) -> Result<()>,
    ) -> Result<()> {
        let per_group = (GROUP_ELEMENTS / rows.length).max(1);
        let n_groups = rows.n.div_ceil(per_group);
        let row_bytes = (rows.length as u64).saturating_mul(4 * (2 * self.part.n_tasks as u64 + 3));
        let group_bytes = row_bytes.saturating_mul(per_group.min(rows.n.max(1)) as u64);
        self.runtime.check_memory(group_bytes, "whole rows of all tasks")?;
        let n_workers = self.runtime.n_affordable(group_bytes, self.runtime.n_threads).min(n_groups.max(1));
        // As many groups at a time as there are workers, folded in their order.
        let mut first = 0;
        while first < n_groups {
            self.progress.check()?;
            let n = n_workers.min(n_groups - first);
            let next = AtomicUsize::new(0);
            let made: Mutex<Vec<(usize, Result<P>)>> = Mutex::default();
            let work = || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= n {
                        break;
                    }
                    let from = (first + at) * per_group;
                    let group = self.row_group(rows, from, per_group.min(rows.n - from));
                    let part = group.and_then(&each);
                    made.lock().unwrap_or_else(PoisonError::into_inner).push((at, part));
                }
            };
            std::thread::scope(|scope| {
                for _ in 1..n {
                    scope.spawn(work);
                }
                work();
            });
            let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
            made.sort_by_key(|(at, _)| *at);
            for (_, part) in made {
                fold(part?)?;
            }
            first += n;
        }
        Ok(())
    }

    /// Some whole rows, read and formed.
    fn row_group(&self, rows: Rows, first: usize, n: usize) -> Result<RowGroup> {
        let plan = &self.part.plan;
        let n_elements = plan.tensors.first().map_or(0, |tensor| tensor.n_rows);
        let elements = first * rows.length..(first + n) * rows.length;
        if plan.tensors.len() != 1 || elements.end > n_elements {
            return Err(Error::failed("rows of one tensor expected"));
        }
        let mut group =
            RowGroup { first, base: Vec::new(), dtype: Dtype::F32, tasks: vec![Vec::new(); self.part.n_tasks] };
        let (mut reader, mut formed) = (ChunkReader::default(), Formed::default());
        let start = elements.start / BLOCK_ROWS * BLOCK_ROWS;
        for first_row in (start..elements.end).step_by(BLOCK_ROWS) {
            let block = Block { tensor: 0, first_row, n_rows: BLOCK_ROWS.min(n_elements - first_row) };
            reader.read(plan, &Reads::new(), &[block])?;
            let (chunk, _) = formed.form(self.part, CpuEngine::new(), reader.chunk())?;
            let own = elements.start.max(first_row) - first_row..elements.end.min(first_row + block.n_rows) - first_row;
            let take = |all: &mut Vec<f32>, rows: &[f32]| all.extend_from_slice(rows.get(own.clone()).unwrap_or(&[]));
            let slice = chunk.layout.slice(0, 0);
            group.dtype = slice.dtype;
            let size = slice.dtype.size();
            let stored = slice.offset + own.start * size..slice.offset + own.end * size;
            group.base.extend_from_slice(chunk.bytes.get(stored).unwrap_or(&[]));
            for (all, rows) in group.tasks.iter_mut().zip(decode_deltas(chunk, 0, self.part.n_tasks)) {
                take(all, &rows);
            }
        }
        Ok(group)
    }
}
