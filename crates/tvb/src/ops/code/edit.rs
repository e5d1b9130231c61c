//! One edit as codes: a patch. It is formed in f32 from whatever it is an edit of, and coded as one column.

use super::operations::FormAndCode;
use super::part::{CodedChunk, Coder, N_MEASURED};
use super::run::Measured;
use super::sink::CodeSink;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::decode::{CodedAtoms, CodesRead, used_columns};
use crate::ops::reconstruct::{Edits, Read, Source};
use crate::pass::{Folded, Pass, Reads, Runtime, TotalSums};
use crate::progress::Progress;
use std::collections::HashMap;
use tvb_kernels::{Base, Code, Columns, CpuEngine, Decode, Dtype, Rate, Reconstruct, Work};

/// An edit that was coded.
#[derive(Clone, Debug)]
pub struct CodedEdit {
    /// What came out of it.
    pub measured: Measured,
    /// For each tensor of [`edit_tensors`], whether the edit moves it; others were dropped.
    pub moved: Vec<bool>,
    /// [n_moved, 1]: digests of what was written.
    pub digests: TableOfDigests,
    /// Digests of what was read.
    pub read: Read,
}

/// What is read for some of the tensors, and how their rows are formed.
struct Part<W> {
    plan: Plan,
    work: W,
}

enum AnyPart {
    Rows(Part<Reconstruct>),
    Codes(Part<Decode>),
}

/// The tensors of an edit and their shapes, in the order in which they are coded.
///
/// # Errors
/// Rejected: columns that do not fit each other. Usage: an edit of atoms that are made from a seed.
pub fn edit_tensors(edits: &Edits) -> Result<Vec<(String, Vec<usize>)>> {
    let tensors = parts(edits)?.into_iter().flat_map(|part| match part {
        AnyPart::Rows(Part { plan, .. }) => plan.tensors,
        AnyPart::Codes(Part { plan, .. }) => plan.tensors,
    });
    Ok(tensors.map(|tensor| (tensor.name, tensor.shape)).collect())
}

/// Forms the first of `edits` in f32, codes it at `rate` and hands it to `sink`, whose tensors are those of [`edit_tensors`].
///
/// # Errors
/// Usage: a weight beyond f32, a memory cap that is too low. Rejected: columns that do not fit each other or were damaged, an
/// edit that is too large to be coded. Failed: I/O, device. Interrupted.
pub fn code_edit(
    edits: &Edits,
    rate: Rate,
    seed: u64,
    sink: &mut dyn CodeSink,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<CodedEdit> {
    let parts = parts(edits)?;
    let n_bytes = parts.iter().map(|part| match part {
        AnyPart::Rows(part) => part.plan.n_bytes(),
        AnyPart::Codes(part) => part.plan.n_bytes(),
    });
    progress.begin("code", n_bytes.sum());
    let mut coded = CodedEdit {
        measured: Measured::default(),
        moved: Vec::new(),
        digests: TableOfDigests { n_columns: 1, digests: Vec::new() },
        read: Read::default(),
    };
    for part in parts {
        match part {
            AnyPart::Rows(part) => {
                let found = run(&part, rate, seed, coded.moved.len(), sink, runtime, progress, &mut coded)?;
                coded.read.base.extend(found.by_name(&part.plan, 0));
                let columns = (1..part.plan.n_columns()).map(|column| found.of_column(&part.plan, column));
                coded.read.columns.extend(columns);
            }
            AnyPart::Codes(part) => {
                let found = run(&part, rate, seed, coded.moved.len(), sink, runtime, progress, &mut coded)?;
                let Source::Coded(atoms) = &edits.source else { continue };
                let used = used_columns(&edits.weights, atoms.columns.len());
                let by_column =
                    used.iter().enumerate().map(|(at, &column)| (column, found.by_name(&part.plan, at + 1)));
                coded.read.codes = by_column.collect::<CodesRead>();
            }
        }
    }
    progress.finish();
    Ok(coded)
}

/// Digests of what one part has read.
struct Found(TableOfDigests);

impl Found {
    fn by_name(&self, plan: &Plan, column: usize) -> HashMap<String, Digest> {
        plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(self.0.column(column)).collect()
    }

    /// A column's digests by their places in its file.
    fn of_column(&self, plan: &Plan, column: usize) -> (Task, Vec<Option<Digest>>) {
        let mut by_place = vec![None; plan.column_checkpoint(column).tensors().len()];
        for (tensor, digest) in plan.tensors.iter().zip(self.0.column(column)) {
            if let Some(place) = by_place.get_mut(tensor.columns[column] as usize) {
                *place = Some(digest);
            }
        }
        (plan.tasks[column - 1].clone(), by_place)
    }
}

#[expect(clippy::too_many_arguments, reason = "a pass' usual company, and what is coded")]
fn run<W: Work<Output = Vec<u8>>>(
    part: &Part<W>,
    rate: Rate,
    seed: u64,
    first_tensor: usize,
    sink: &mut dyn CodeSink,
    runtime: &Runtime,
    progress: &dyn Progress,
    coded: &mut CodedEdit,
) -> Result<Found> {
    let Part { plan, work } = part;
    let name = |_: usize| "the edit".to_owned();
    let code = || Code { rate, kept_rate: rate, kept: Vec::new(), n_kept: 0, seed };
    let coder = || Coder { plan, code: code(), n_own: 1, name: &name };
    // What is read may be codes itself, whose signs go by their own numbers.
    let (engine, first) = (CpuEngine::new(), Some(first_tensor));
    let operation = FormAndCode { coder: coder(), work: work.clone(), engine, first_tensor: first };
    let same = coder();
    let n_digests = plan.n_digests();
    let (mut inputs, mut written) = (TensorDigests::new(n_digests), TensorDigests::new(1));
    let mut sums = TotalSums::new(N_MEASURED);
    let mut moved = vec![false; plan.tensors.len()];
    let fold = |Folded { blocks, digests, part }: Folded<'_, CodedChunk>| {
        let mut index = 0;
        same.each_block(&part, blocks, |block, pieces| {
            inputs.push(block.tensor, &digests[index * n_digests..][..n_digests]);
            written.push(block.tensor, &part.digests[index..=index]);
            let measured = &part.measured[index * N_MEASURED..][..N_MEASURED];
            sums.add(block, measured);
            moved[block.tensor] |= measured[0] != 0.0;
            let of_patch = crate::pass::Block { tensor: first_tensor + block.tensor, ..*block };
            sink.put(&of_patch, pieces)?;
            if block.first_row + block.n_rows == plan.tensors[block.tensor].n_rows {
                sink.end(of_patch.tensor, moved[block.tensor])?;
            }
            index += 1;
            Ok(())
        })
    };
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).run(&operation, runtime, progress, fold)?;
    let sums = sums.finish();
    coded.measured.energy += sums[0];
    coded.measured.product += sums[1];
    coded.measured.decoded += sums[2];
    let written = written.finish(plan.tensors.len());
    let stays = written.column(0).zip(&moved).filter(|(_, moved)| **moved).map(|(digest, _)| digest);
    coded.digests.digests.extend(stays);
    coded.moved.extend(moved);
    Ok(Found(inputs.finish(plan.tensors.len())))
}

/// What has to be read, in the order in which it is coded: of coded atoms the coded tensors, then the others.
fn parts(edits: &Edits) -> Result<Vec<AnyPart>> {
    let weights = edits.weights.first().map_or(&[][..], Vec::as_slice);
    match &edits.source {
        Source::Checkpoints { origin, tasks } => {
            Ok(vec![rows(origin.clone(), tasks, weights, &edits.tensors, Columns::Checkpoints)?])
        }
        Source::Deltas(tasks) => {
            let first = tasks.first().ok_or_else(|| Error::usage("an edit of nothing: nothing to code"))?;
            Ok(vec![rows(first.checkpoint.clone(), tasks, weights, &edits.tensors, Columns::Deltas)?])
        }
        Source::Coded(atoms) => {
            let mut parts = vec![AnyPart::Codes(codes(atoms, weights)?)];
            let raw = atoms.names(false);
            if !raw.is_empty() {
                let own: Vec<Task> = atoms.columns.iter().take(atoms.n_own).cloned().collect();
                parts.push(rows(atoms.zeros()?, &own, &weights[..atoms.n_own], &raw, Columns::Deltas)?);
            }
            Ok(parts)
        }
        Source::Generated(_) => Err(Error::usage("bits for an edit of random atoms: they are made from a seed")
            .hint("leave out --bits: the bare edit is written in the base's type")),
    }
}

fn rows(
    origin: crate::checkpoint::Checkpoint,
    tasks: &[Task],
    weights: &[f64],
    tensors: &[String],
    columns: Columns,
) -> Result<AnyPart> {
    let plan = Plan::of_columns(origin, tasks.to_vec(), tensors)?;
    let weights = weights.iter().map(|weight| in_f32(*weight)).collect::<Result<_>>()?;
    let work = Reconstruct { weights, n_outputs: 1, columns, base: Base::Left, dtype: Some(Dtype::F32) };
    Ok(AnyPart::Rows(Part { plan, work }))
}

fn codes(atoms: &CodedAtoms, weights: &[f64]) -> Result<Part<Decode>> {
    let used = used_columns(&[weights.to_vec()], atoms.columns.len());
    let plan = atoms.plan(atoms.zeros()?, Vec::new(), &used)?;
    let work = Decode {
        rates: used.iter().map(|&column| atoms.rates[column]).collect(),
        weights: used.iter().map(|&column| in_f32(weights[column])).collect::<Result<_>>()?,
        n_outputs: 1,
        base: Base::Left,
        dtype: Some(Dtype::F32),
        seed: atoms.seed,
    };
    Ok(Part { plan, work })
}

fn in_f32(weight: f64) -> Result<f32> {
    let narrow = weight as f32;
    if narrow.is_finite() {
        Ok(narrow)
    } else {
        Err(Error::usage(format!("a weight comes to {weight:e}: at most ±{:.1e} expected", f32::MAX)))
    }
}
