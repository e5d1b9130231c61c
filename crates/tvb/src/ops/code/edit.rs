//! One edit as codes: a patch. It is formed in f32 from whatever it is an edit of, and coded as one column.

use super::operations::FormAndCode;
use super::part::{CodedChunk, Coder, N_MEASURED};
use super::setup::Measured;
use super::sink::CodeSink;
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::decode::{Decoding, digests_by_name};
use crate::ops::in_f32::weight_in_f32;
use crate::ops::reconstruct::{Edits, Read, Source, digests_by_place};
use crate::pass::{Folded, Pass, Reads, Runtime, TotalSums};
use crate::progress::Progress;
use tvb_kernels::{Base, Code, Columns, CpuEngine, Dtype, Rate, Reconstruct, Work};

/// An edit that was coded.
#[derive(Clone, Debug)]
pub struct CodedEdit {
    /// What came out of it.
    pub measured: Measured,
    /// For each of [`EditParts::tensors`], whether the edit moves it; others were dropped.
    pub moved: Vec<bool>,
    /// [n_moved, 1]: digests of what was written.
    pub digests: TableOfDigests,
    /// Digests of what was read.
    pub read: Read,
}

/// What has to be read for an edit, in the order in which it is coded: of coded atoms the coded tensors, then the others.
#[derive(Debug)]
pub struct EditParts<'a>(Vec<Part<'a>>);

#[derive(Debug)]
enum Part<'a> {
    Rows(Plan, Reconstruct),
    Codes(Decoding<'a>),
}

impl Part<'_> {
    fn plan(&self) -> &Plan {
        match self {
            Part::Rows(plan, _) => plan,
            Part::Codes(decoding) => &decoding.plan,
        }
    }
}

impl<'a> EditParts<'a> {
    /// Of an edit's blocks, each the first of its [`Edits`], as [`Edits::uniform`] gives them.
    ///
    /// # Errors
    /// Usage: a weight beyond f32, an edit of atoms that are made from a seed. Rejected: columns that do not fit each other.
    pub fn of(blocks: &'a [Edits]) -> Result<EditParts<'a>> {
        let parts = blocks.iter().map(EditParts::of_block).collect::<Result<Vec<_>>>()?;
        Ok(EditParts(parts.into_iter().flatten().collect()))
    }

    fn of_block(edits: &'a Edits) -> Result<Vec<Part<'a>>> {
        let weights = edits.weights.first().map_or(&[][..], Vec::as_slice);
        let parts = match &edits.source {
            Source::Checkpoints { origin, tasks } => {
                vec![rows(origin.clone(), tasks, weights, &edits.tensors, Columns::Checkpoints)?]
            }
            Source::Deltas(tasks) => {
                let first = tasks.first().ok_or_else(|| Error::usage("an edit of nothing: nothing to code"))?;
                vec![rows(first.checkpoint.clone(), tasks, weights, &edits.tensors, Columns::Deltas)?]
            }
            Source::Coded(atoms) => {
                let decoding = Decoding::new(atoms, &[weights.to_vec()], None, Some(Dtype::F32))?;
                let mut parts = vec![Part::Codes(decoding)];
                let raw = atoms.names(false);
                if !raw.is_empty() {
                    let own: Vec<Task> = atoms.columns.iter().take(atoms.n_own).cloned().collect();
                    parts.push(rows(atoms.zeros()?, &own, &weights[..atoms.n_own], &raw, Columns::Deltas)?);
                }
                parts
            }
            Source::Generated(_) => {
                return Err(Error::usage("bits for an edit of random atoms: they are made from a seed")
                    .hint("leave out --bits: the bare edit is written in the base's type"));
            }
        };
        Ok(parts)
    }

    /// The tensors of the edit and their shapes, in order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let planned = self.0.iter().flat_map(|part| &part.plan().tensors);
        planned.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    /// Forms the edit in f32, codes it at `rate` and hands it to `sink`, whose tensors are [`tensors`](Self::tensors).
    ///
    /// # Errors
    /// Usage: a memory cap that is too low. Rejected: damaged columns, an edit that is too large to be coded. Failed: I/O,
    /// device. Interrupted.
    pub fn code(
        &self,
        rate: Rate,
        seed: u64,
        sink: &mut dyn CodeSink,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<CodedEdit> {
        progress.begin("code", self.0.iter().map(|part| part.plan().n_bytes()).sum());
        let mut coded = CodedEdit {
            measured: Measured::default(),
            moved: Vec::new(),
            digests: TableOfDigests { n_columns: 1, digests: Vec::new() },
            read: Read::default(),
        };
        for part in &self.0 {
            match part {
                Part::Rows(plan, work) => {
                    let table = run(plan, work, rate, seed, sink, runtime, progress, &mut coded)?;
                    let columns = (1..plan.n_columns()).map(|column| digests_by_place(plan, &table, column)).collect();
                    let base = digests_by_name(plan, &table, 0);
                    coded.read.add(Read { base, columns, ..Read::default() });
                }
                Part::Codes(decoding) => {
                    let Decoding { plan, work, .. } = decoding;
                    let table = run(plan, work, rate, seed, sink, runtime, progress, &mut coded)?;
                    coded.read.add(Read { codes: decoding.codes_read(&table), ..Read::default() });
                }
            }
        }
        progress.finish();
        Ok(coded)
    }
}

/// Codes one part, adds what came of it to `coded`, and answers the digests of what was read.
#[expect(clippy::too_many_arguments, reason = "a pass' usual company, and what is coded")]
fn run<W: Work<Output = Vec<u8>>>(
    plan: &Plan,
    work: &W,
    rate: Rate,
    seed: u64,
    sink: &mut dyn CodeSink,
    runtime: &Runtime,
    progress: &dyn Progress,
    coded: &mut CodedEdit,
) -> Result<TableOfDigests> {
    let first_tensor = coded.moved.len();
    let name = |_: usize| "the edit".to_owned();
    let code = || Code { rate, kept_rate: rate, kept: Vec::new(), n_kept: 0, n_carried: 0, seed };
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
    Ok(inputs.finish(plan.tensors.len()))
}

fn rows(
    origin: Checkpoint,
    tasks: &[Task],
    weights: &[f64],
    tensors: &[String],
    columns: Columns,
) -> Result<Part<'static>> {
    let plan = Plan::of_columns(origin, tasks.to_vec(), tensors)?;
    let name = |column: usize| tasks.get(column).map_or("a column", |task| task.name.as_str());
    let in_f32 = |(column, weight): (usize, &f64)| weight_in_f32(*weight, || format!("the weight of {}", name(column)));
    let weights = weights.iter().enumerate().map(in_f32).collect::<Result<_>>()?;
    let work = Reconstruct { weights, n_outputs: 1, columns, base: Base::Left, dtype: Some(Dtype::F32) };
    Ok(Part::Rows(plan, work))
}
