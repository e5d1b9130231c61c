//! The columns of a merge: base and task vectors, and how the task vectors are formed from what is read.

use crate::checkpoint::Checkpoint;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::ops::decode::CodedAtoms;
use crate::ops::edits::{Edits, Source};
use crate::ops::reconstruct::{Step, steps_of};
use crate::pass::device_error;
use tvb_kernels::{Base, Chunk, ChunkLayout, Columns, CpuEngine, Decode, Dtype, Reconstruct, Scratch, Segment, Slice};

/// How task vectors come of what is read.
#[derive(Clone, Debug)]
pub(super) enum Former {
    /// The columns are the tasks.
    Read,
    /// They are weighted sums of the columns: atoms, or tasks that are mixed.
    Add(Reconstruct),
    /// They are decoded.
    Decode(Decode),
}

/// Tensors that are read in one way.
#[derive(Clone, Debug)]
pub struct MergePart {
    /// What is read: the base, and what the task vectors are formed from.
    pub plan: Plan,
    pub(super) former: Former,
    /// Numbers of the basis' columns whose codes are read.
    pub(super) coded: Vec<usize>,
    pub(super) atoms: Option<CodedAtoms>,
    pub(super) n_tasks: usize,
}

/// All tensors that task vectors move, in parts.
#[derive(Clone, Debug)]
pub struct MergeColumns {
    /// The parts; no tensor is in two of them.
    pub parts: Vec<MergePart>,
    /// T.
    pub n_tasks: usize,
}

impl MergeColumns {
    /// The task vectors that are the outputs of `edits`, beside `base` as they see it.
    ///
    /// # Errors
    /// Usage: weights beyond f32, columns that are made from a seed. Rejected: columns that do not fit the base.
    pub fn new(base: &Checkpoint, edits: &Edits) -> Result<MergeColumns> {
        if matches!(edits.source, Source::Generated(_)) {
            return Err(Error::usage("a merge of random atoms: task vectors or atoms of a solve expected")
                .hint("`random` is a control: its atoms say nothing of single elements"));
        }
        let n_tasks = edits.weights.len();
        let is_plain = |rows: &[Vec<f64>]| {
            let is_one = |(row, weights): (usize, &Vec<f64>)| {
                weights.len() == n_tasks
                    && weights.iter().enumerate().all(|(at, w)| *w == f64::from(u8::from(at == row)))
            };
            rows.iter().enumerate().all(is_one)
        };
        let as_read =
            matches!(edits.source, Source::Checkpoints { .. } | Source::Deltas(_)) && is_plain(&edits.weights);
        let seen = edits.fit.seen(base)?;
        let mut parts = Vec::new();
        for step in steps_of(edits, Some(&seen), Some(Dtype::F32))? {
            parts.push(match step {
                Step::Add(ready) => {
                    let (plan, work) = *ready;
                    let is_read = as_read && work.columns == Columns::Checkpoints && plan.tasks.len() == n_tasks;
                    let former = match is_read {
                        true => Former::Read,
                        false => Former::Add(Reconstruct { base: Base::Left, dtype: Some(Dtype::F32), ..work }),
                    };
                    MergePart { plan, former, coded: Vec::new(), atoms: None, n_tasks }
                }
                Step::Decode(decoding) => {
                    let (atoms, coded, plan, work) = decoding.into_parts();
                    let former = Former::Decode(Decode { base: Base::Left, dtype: Some(Dtype::F32), ..work });
                    MergePart { plan, former, coded, atoms: Some(atoms), n_tasks }
                }
                Step::Generate(_) => return Err(Error::failed("columns of values expected, generated ones found")),
            });
        }
        parts.retain(|part| !part.plan.tensors.is_empty());
        Ok(MergeColumns { parts, n_tasks })
    }
}

impl MergePart {
    /// The same with each of its tensors alone, in order. What they share is copied for each, the list of all tensors once.
    pub fn tensors(&self) -> impl Iterator<Item = MergePart> + '_ {
        let bare = MergePart { plan: self.plan.only(|_| false), ..self.clone() };
        self.plan.tensors.iter().enumerate().map(move |(index, tensor)| {
            let mut one = bare.clone();
            one.plan.tensors.push(tensor.clone());
            for (own, all) in one.plan.codes.iter_mut().zip(&self.plan.codes) {
                own.places.extend(all.places.get(index).copied());
            }
            one
        })
    }

    /// T.
    pub fn n_tasks(&self) -> usize {
        self.n_tasks
    }

    /// Whether a device can merge what is read without the host forming task vectors first.
    pub(super) fn is_as_read(&self) -> bool {
        matches!(self.former, Former::Read)
    }
}

/// One thread's room for task vectors.
#[derive(Debug, Default)]
pub(super) struct Formed {
    pub(super) scratch: Scratch,
    rows: Vec<u8>,
    bytes: Vec<u8>,
    layout: ChunkLayout,
}

impl Formed {
    /// A chunk of base and task vectors of one that was read, with the buffers to work on it.
    #[allow(clippy::indexing_slicing, reason = "the chunk was read by its layout, and the engine has checked it")]
    pub(super) fn form<'a>(
        &'a mut self,
        part: &MergePart,
        engine: CpuEngine,
        read: Chunk<'a>,
    ) -> Result<(Chunk<'a>, &'a mut Scratch)> {
        let Formed { scratch, rows, bytes, layout } = self;
        let made = match &part.former {
            Former::Read => return Ok((read, scratch)),
            Former::Add(work) => engine.run(work, read, scratch, rows),
            Former::Decode(work) => engine.run(work, read, scratch, rows),
        };
        made.map_err(device_error)?;
        bytes.clear();
        layout.segments = read.layout.segments.clone();
        layout.n_columns = part.n_tasks + 1;
        layout.slices.clear();
        let n_rows: usize = layout.segments.iter().map(|segment| segment.n_rows).sum();
        let mut bases = Vec::with_capacity(layout.segments.len());
        for (index, Segment { n_rows, .. }) in layout.segments.iter().enumerate() {
            let slice = read.layout.slice(index, 0);
            bases.push(Slice::new(bytes.len(), slice.dtype));
            bytes.extend_from_slice(&read.bytes[slice.offset..][..n_rows * slice.dtype.size()]);
            bytes.resize(bytes.len().next_multiple_of(64), 0);
        }
        let start = bytes.len();
        bytes.extend_from_slice(rows);
        let mut first = 0;
        for (base, segment) in bases.into_iter().zip(&layout.segments) {
            layout.slices.push(base);
            layout.slices.extend((0..part.n_tasks).map(|task| Slice::of_delta(start + 4 * (task * n_rows + first))));
            first += segment.n_rows;
        }
        layout.n_bytes = bytes.len();
        Ok((Chunk { layout, bytes }, scratch))
    }
}
