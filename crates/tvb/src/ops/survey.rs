//! What edits would be formed from, read once and looked at before anything is written: its digests, and how large a value of the
//! result can become.
//!
//! An edit in place cannot be taken back, since a rounded sum does not say what its parts were. So all that can go wrong while it is
//! formed is looked for first. Forming it twice would find everything, and take twice as long; a bound from the columns' largest
//! values, which is far above what real edits reach and far below what a type holds, takes no more than the reading.

use super::decode::{Decoding, digests_by_name};
use super::reconstruct::{Edits, Read, Source, digests_by_place};
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::{Folded, HostOperation, Pass, ReadChunk, Reads, Runtime};
use crate::progress::Progress;
use tvb_kernels::{Dtype, count_non_finite, largest_finite, n_blocks, scale_from_bits};

/// Types that a base may have.
const DTYPES: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16];
/// Sums in f32 may be a little larger than they are.
const ROUNDING: f64 = 1.001;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Digests of what was read.
    pub read: Read,
    /// The largest finite magnitude among the base's tensors of each type.
    base: [f64; 4],
    /// The largest magnitude that the edit can have; infinite where nobody knows.
    edit: f64,
}

impl Survey {
    /// Whether base and edit stay within the base's types, whatever is added up.
    pub fn fits(&self) -> bool {
        let fits = |(dtype, base): (&Dtype, &f64)| *base == 0.0 || base + self.largest_edit() <= dtype.largest();
        // What is zero now may be edited all the same.
        let is_small = self.largest_edit() <= Dtype::F16.largest() / 2.0;
        is_small && DTYPES.iter().zip(&self.base).all(fits)
    }

    /// What no value of the edit is larger than; infinite where nobody knows.
    pub fn largest_edit(&self) -> f64 {
        self.edit * ROUNDING
    }
}

/// Reads the columns of an edit of one output, and the tensors of `base` that it is for.
///
/// # Errors
/// Usage: a memory cap that is too low. Rejected: columns that do not fit the base, codes that no coder writes. Failed: I/O.
/// Interrupted.
pub fn survey(base: &Checkpoint, edits: &Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<Survey> {
    let mut survey = Survey::default();
    for block in edits.uniform() {
        survey.of_block(base, &block, runtime, progress)?;
    }
    Ok(survey)
}

impl Survey {
    fn of_block(&mut self, base: &Checkpoint, edits: &Edits, runtime: &Runtime, progress: &dyn Progress) -> Result<()> {
        let [weights] = edits.weights.as_slice() else { return Err(Error::failed("one edit expected")) };
        match &edits.source {
            // Nothing is read of these, or nobody knows how large a difference is.
            Source::Generated(_) | Source::Checkpoints { .. } => self.edit = f64::INFINITY,
            Source::Deltas(tasks) => self.of_deltas(base, tasks, weights, &edits.tensors, runtime, progress)?,
            Source::Coded(atoms) => {
                let own: Vec<Task> = atoms.columns.iter().take(atoms.n_own).cloned().collect();
                let own_weights = &weights[..atoms.n_own];
                self.of_deltas(base, &own, own_weights, &atoms.names(false), runtime, progress)?;
                let decoding = Decoding::new(atoms, &edits.weights, Some(base), None)?;
                let (table, sizes) = sizes_of(&decoding.plan, runtime, progress)?;
                self.add(&sizes, decoding.work.weights.iter().map(|weight| f64::from(*weight)));
                let (base, codes) = (digests_by_name(&decoding.plan, &table, 0), decoding.codes_read(&table));
                self.read.add(Read { base, codes, ..Read::default() });
            }
        }
        Ok(())
    }

    fn of_deltas(
        &mut self,
        base: &Checkpoint,
        tasks: &[Task],
        weights: &[f64],
        names: &[String],
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let used = || tasks.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
        let plan = Plan::of_columns(base.clone(), used().map(|(task, _)| task.clone()).collect(), names)?;
        let (table, sizes) = sizes_of(&plan, runtime, progress)?;
        self.add(&sizes, used().map(|(_, weight)| *weight));
        let columns = (1..plan.n_columns()).map(|column| digests_by_place(&plan, &table, column)).collect();
        self.read.add(Read { base: digests_by_name(&plan, &table, 0), columns, ..Read::default() });
        Ok(())
    }

    /// Adds what was found in other tensors; `weights` are those of the columns.
    fn add(&mut self, sizes: &Sizes, weights: impl Iterator<Item = f64>) {
        self.base.iter_mut().zip(sizes.base).for_each(|(most, base)| *most = most.max(base));
        let edit: f64 = sizes.columns.iter().zip(weights).map(|(largest, weight)| largest * weight.abs()).sum();
        self.edit = self.edit.max(edit);
    }
}

/// How large the values of some rows are.
#[derive(Clone, Debug)]
struct Sizes {
    /// Of the base's types.
    base: [f64; 4],
    /// Of every column but the base; infinite where a value is.
    columns: Vec<f64>,
}

impl Sizes {
    fn none(plan: &Plan) -> Sizes {
        Sizes { base: [0.0; 4], columns: vec![0.0; plan.n_digests() - 1] }
    }

    fn and(&mut self, other: &Sizes) {
        self.base.iter_mut().zip(other.base).for_each(|(most, other)| *most = most.max(other));
        self.columns.iter_mut().zip(&other.columns).for_each(|(most, other)| *most = most.max(*other));
    }
}

/// The operation: looks at every value, and at every scale of codes.
struct Look<'a> {
    plan: &'a Plan,
}

impl HostOperation for Look<'_> {
    type Part = Sizes;
    type Buffers = ();

    fn on_chunk(&self, read: ReadChunk<'_>, _buffers: &mut ()) -> Result<Sizes> {
        let (plan, layout) = (self.plan, read.chunk.layout);
        let mut sizes = Sizes::none(plan);
        for (index, block) in read.blocks.iter().enumerate() {
            let dtype = layout.slice(index, 0).dtype;
            let largest = largest_finite(read.rows(index, 0)?, dtype);
            let of_dtype = DTYPES.iter().zip(&mut sizes.base).filter(|(known, _)| **known == dtype);
            of_dtype.for_each(|(_, most)| *most = most.max(largest));
            for column in 1..plan.n_columns() {
                let (rows, dtype) = (read.rows(index, column)?, layout.slice(index, column).dtype);
                let largest = match count_non_finite(rows, dtype) {
                    0 => largest_finite(rows, dtype),
                    _ => f64::INFINITY,
                };
                sizes.columns[column - 1] = sizes.columns[column - 1].max(largest);
            }
            for (coded, column) in plan.codes.iter().enumerate() {
                let scales = layout.codes[index * plan.codes.len() + coded].scales;
                let scales = &read.chunk.bytes[scales..][..2 * n_blocks(block.n_rows)];
                let scale = scales.as_chunks::<2>().0.iter().map(|raw| u16::from_le_bytes(*raw)).max().unwrap_or(0);
                // Each of the 256 lines of a block adds at most this, over 256.
                let level = column.rate.levels().last().copied().unwrap_or(0.0);
                let largest = f64::from(scale_from_bits(scale)) * f64::from(level);
                let at = plan.n_columns() - 1 + coded;
                sizes.columns[at] = sizes.columns[at].max(largest);
            }
        }
        Ok(sizes)
    }
}

fn sizes_of(plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<(TableOfDigests, Sizes)> {
    progress.begin("check", plan.n_bytes());
    let n_digests = plan.n_digests();
    let (mut table, mut sizes) = (TensorDigests::new(n_digests), Sizes::none(plan));
    let fold = |Folded { blocks, digests, part }: Folded<'_, Sizes>| {
        for (block, columns) in blocks.iter().zip(digests.chunks_exact(n_digests)) {
            table.push(block.tensor, columns);
        }
        sizes.and(&part);
        Ok(())
    };
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&Look { plan }, runtime, progress, fold)?;
    progress.finish();
    Ok((table.finish(plan.tensors.len()), sizes))
}
