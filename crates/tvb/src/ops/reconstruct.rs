//! Base + weights × columns → checkpoints: one fused streaming pass for any number of edits at once.
//!
//! The columns are the atoms of a basis (deltas) or the original fine-tunes (checkpoints, differenced on the way). What no
//! column holds (frozen, skipped, integer tensors) is copied from the base byte for byte, or converted where another type
//! was asked for. Digests of the base and of the columns are taken as they pass; whoever knows what they should be compares
//! them before anything is kept. Whether the files are still those that were opened is asked here, and whether every value
//! that was written is finite.

use super::decode::{Decoding, digests_by_name};
pub use super::edits::{EditBlock, Edits, Read, Source};
use super::generate::GeneratedEdits;
use super::in_f32::weight_in_f32;
use super::outputs::{Format, Outputs};
use super::range::{Input, Origin, RangeCheck, Rows};
use crate::checkpoint::{Checkpoint, values_of};
use crate::columns::fit::Rest;
use crate::columns::plan::{Plan, Task};
use crate::digest::{BLOCK_ROWS, Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::range::Clipped;
use crate::pass::{Block, ChunkReader, Done, Folded, Operation, Pass, Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::collections::HashSet;
use tvb_kernels::{Base, Columns, Reconstruct};

/// Forms the edits and writes them, one output for each; with `base` the outputs are edited checkpoints, without it the
/// bare edits. Nothing is committed here.
///
/// # Errors
/// Usage: a weight beyond f32, or a memory cap that is too low. Rejected: columns that do not fit the base, inputs that
/// were written to meanwhile, values that are not finite or that the format cannot hold (each counted over the whole
/// output). Failed: I/O, device. Interrupted.
pub fn reconstruct(
    base: Option<&Checkpoint>,
    edits: Edits,
    outputs: Outputs<'_>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Read> {
    let range = RangeCheck::new(outputs.format.clip);
    let edited: HashSet<&str> = edits.tensors.iter().map(String::as_str).collect();
    let whole = base.filter(|_| outputs.takes_rest());
    let rest = whole.map(|base| edits.fit.rest(base, &edited)).unwrap_or_default();
    let rest_bytes = rest.iter().map(Rest::n_bytes).sum::<u64>();
    let seen = base.map(|base| edits.fit.seen(base)).transpose()?;
    let parts = edits.uniform();
    let mut steps = Vec::new();
    for part in &parts {
        steps.extend(steps_of(part, seen.as_ref(), outputs.format.dtype)?);
    }
    // Before anything is written.
    for step in &steps {
        if let Step::Decode(decoding) = step {
            check_memory(&decoding.plan, outputs.len(), runtime)?;
        }
    }
    progress.begin("reconstruct", steps.iter().map(Step::n_bytes).sum::<u64>() + rest_bytes);
    let mut read = Read::default();
    for step in steps {
        read.add(step.run(seen.as_ref(), outputs, &range, runtime, progress)?);
    }
    if let Some(base) = base {
        for part in rest {
            let digest = copy_part(base, &part, outputs, &range, progress)?;
            if part.is_seen {
                read.base.insert(part.name, digest);
            }
        }
        // The passes have asked before the rest was read.
        base.check_unchanged()?;
    }
    progress.finish();
    read.clipped = range.finish(|output| outputs.name(output))?;
    Ok(read)
}

/// One pass, ready to be run.
pub(super) enum Step<'a> {
    /// Columns that are made on the way.
    Generate(GeneratedEdits<'a>),
    /// Columns of values.
    Add(Box<(Plan, Reconstruct)>),
    /// Columns of codes.
    Decode(Box<Decoding<'a>>),
}

impl Step<'_> {
    /// What it reads.
    fn n_bytes(&self) -> u64 {
        match self {
            Step::Generate(generated) => generated.raw.n_bytes(),
            Step::Add(ready) => ready.0.n_bytes(),
            Step::Decode(decoding) => decoding.plan.n_bytes(),
        }
    }

    fn run(
        self,
        base: Option<&Checkpoint>,
        outputs: Outputs<'_>,
        range: &RangeCheck,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Read> {
        match self {
            Step::Generate(generated) => {
                Ok(Read { base: generated.form(base, outputs, range, runtime, progress)?, ..Read::default() })
            }
            Step::Add(ready) => {
                let (plan, work) = *ready;
                let outputs = Outputs { format: Format { dtype: work.dtype, ..outputs.format }, ..outputs };
                run(&plan, work, outputs, range, runtime, progress)
            }
            Step::Decode(decoding) => {
                let decoded = decoding.run(outputs, range, runtime, progress)?;
                Ok(Read { base: decoded.base, codes: decoded.codes, ..Read::default() })
            }
        }
    }
}

/// The passes for edits of the same weights everywhere, onto the base as the columns see it.
pub(super) fn steps_of<'a>(
    edits: &'a Edits,
    base: Option<&Checkpoint>,
    dtype: Option<tvb_kernels::Dtype>,
) -> Result<Vec<Step<'a>>> {
    let add = |kind, origin, tasks: &[Task], weights: &[Vec<f64>], tensors: &[String], dtype| {
        let stored = Stored { kind, origin, tasks, weights, tensors };
        stored.ready(base, dtype).map(|ready| Step::Add(Box::new(ready)))
    };
    match &edits.source {
        Source::Generated(raw) => Ok(vec![Step::Generate(GeneratedEdits { raw, weights: &edits.weights })]),
        Source::Checkpoints { origin, tasks } => {
            Ok(vec![add(Columns::Checkpoints, Some(origin), tasks, &edits.weights, &edits.tensors, dtype)?])
        }
        Source::Deltas(tasks) => Ok(vec![add(Columns::Deltas, None, tasks, &edits.weights, &edits.tensors, dtype)?]),
        Source::Coded(atoms) => {
            // The few tensors that are not coded, then the others.
            let mut steps = Vec::new();
            let raw = atoms.names(false);
            if !raw.is_empty() {
                let own = &atoms.columns[..atoms.n_own];
                let weights: Vec<Vec<f64>> =
                    edits.weights.iter().map(|output| output[..atoms.n_own].to_vec()).collect();
                // A column in bf16 stands in for a base that is not there; what comes out is in f32, as of codes.
                let own_dtype = if base.is_some() { None } else { Some(tvb_kernels::Dtype::F32) };
                steps.push(add(Columns::Deltas, None, own, &weights, &raw, dtype.or(own_dtype))?);
            }
            steps.push(Step::Decode(Box::new(Decoding::new(atoms, &edits.weights, base, dtype)?)));
            Ok(steps)
        }
    }
}

/// Columns that are read as values.
struct Stored<'a> {
    kind: Columns,
    origin: Option<&'a Checkpoint>,
    tasks: &'a [Task],
    weights: &'a [Vec<f64>],
    tensors: &'a [String],
}

impl Stored<'_> {
    /// What is streamed, and what is done with it.
    fn ready(&self, base: Option<&Checkpoint>, dtype: Option<tvb_kernels::Dtype>) -> Result<(Plan, Reconstruct)> {
        let weights = self.weights;
        // Columns that no output gives a weight to need not be read, but for one to say what is zero: the engines make no
        // bare edit of nothing, and a task that did not move is one.
        let mut used: Vec<usize> =
            (0..self.tasks.len()).filter(|&column| weights.iter().any(|output| output[column] != 0.0)).collect();
        if used.is_empty() && base.is_none() && !self.tasks.is_empty() {
            used.push(0);
        }
        let tasks: Vec<Task> = used.iter().map(|&column| self.tasks[column].clone()).collect();
        // A bare edit of deltas has no base: the first column stands in for it, so that the stream has one; the engine
        // ignores it.
        let stand_in = match base.or(self.origin).or(tasks.first().map(|task| &task.checkpoint)) {
            Some(checkpoint) => checkpoint.clone(),
            None => return Err(Error::usage("an edit of nothing and no base: nothing to write")),
        };
        let plan = Plan::of_columns(stand_in, tasks, self.tensors)?;
        let weights_of = |&column: &usize| weights.iter().map(move |output| (column, output[column]));
        let work = Reconstruct {
            weights: used
                .iter()
                .flat_map(weights_of)
                .map(|(at, weight)| self.in_f32(at, weight))
                .collect::<Result<_>>()?,
            n_outputs: weights.len(),
            columns: self.kind,
            base: if base.is_some() { Base::Added } else { Base::Left },
            dtype,
        };
        Ok((plan, work))
    }

    /// A column's weight as the engines take it.
    fn in_f32(&self, column: usize, weight: f64) -> Result<f32> {
        let Task { name, checkpoint } = &self.tasks[column];
        weight_in_f32(weight, || format!("{}: the weight of {name}", checkpoint.path().display()))
    }
}

/// The operation: rows of the edits, written where they belong.
struct WriteEdits<'a> {
    plan: &'a Plan,
    work: Reconstruct,
    outputs: Outputs<'a>,
    range: &'a RangeCheck,
    reads: &'a Reads,
}

impl WriteEdits<'_> {
    /// What output `output` was formed from over one block, read again and formed in f64.
    fn origin(&self, output: usize, block: Block) -> Result<Origin> {
        let Reconstruct { weights, n_outputs, columns, base, .. } = &self.work;
        let mut reader = ChunkReader::default();
        reader.read(self.plan, self.reads, &[block])?;
        let chunk = reader.chunk();
        let values = |column: usize| {
            let slice = chunk.layout.slice(0, column);
            values_of(&chunk.bytes[slice.offset..slice.offset + block.n_rows * slice.dtype.size()], slice.dtype)
        };
        let is_added = *base == Base::Added;
        let origin = values(0);
        let mut exact = if is_added { origin.clone() } else { vec![0.0; block.n_rows] };
        let mut inputs = Vec::new();
        if is_added || *columns == Columns::Checkpoints {
            inputs.push(Input { name: self.plan.column_name(0), values: origin.clone(), is_base: is_added });
        }
        for column in 1..self.plan.n_columns() {
            let weight = f64::from(weights[(column - 1) * n_outputs + output]);
            if weight != 0.0 {
                let path = self.plan.column_checkpoint(column).path().display();
                let name = match columns {
                    Columns::Checkpoints => format!("{} ({path})", self.plan.column_name(column)),
                    Columns::Deltas => path.to_string(),
                };
                let is_whole = *columns == Columns::Checkpoints && !chunk.layout.slice(0, column).is_delta;
                let values = values(column);
                for ((exact, value), origin) in exact.iter_mut().zip(&values).zip(&origin) {
                    let delta = if is_whole { value - origin } else { *value };
                    *exact += weight * delta;
                }
                inputs.push(Input { name, values, is_base: false });
            }
        }
        Ok(Origin { inputs, exact })
    }
}

impl Operation for WriteEdits<'_> {
    type Work = Reconstruct;
    type Part = ();

    fn work(&self) -> &Reconstruct {
        &self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<()> {
        let mut at = 0;
        for output in 0..self.outputs.len() {
            for (index, block) in done.blocks.iter().enumerate() {
                let stored = self.work.dtype.unwrap_or(done.layout.slice(index, 0).dtype);
                let own = &mut rows[at..at + block.n_rows * stored.size()];
                at += own.len();
                let name = &self.plan.tensors[block.tensor].name;
                let (outputs, first_row) = (output..output + 1, block.first_row);
                let looked_at = Rows { outputs, tensor: name, first_row, dtype: stored, bytes: &mut *own };
                self.range.look(looked_at, || self.origin(output, *block))?;
                self.outputs.write(output, name, (block.first_row * stored.size()) as u64, own)?;
            }
        }
        Ok(())
    }
}

fn run(
    plan: &Plan,
    work: Reconstruct,
    outputs: Outputs<'_>,
    range: &RangeCheck,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Read> {
    let n_columns = plan.n_columns();
    let mut table = TensorDigests::new(n_columns);
    let fold = |Folded { blocks, digests, .. }: Folded<'_, ()>| {
        for (block, columns) in blocks.iter().zip(digests.chunks_exact(n_columns)) {
            table.push(block.tensor, columns);
        }
        Ok(())
    };
    let reads = Reads::new();
    let operation = WriteEdits { plan, work, outputs, range, reads: &reads };
    Pass::over(plan, runtime, &reads).run(&operation, runtime, progress, fold)?;
    let table = table.finish(plan.tensors.len());
    let base = digests_by_name(plan, &table, 0);
    let columns = (1..n_columns).map(|column| digests_by_place(plan, &table, column));
    Ok(Read { base, columns: columns.collect(), ..Read::default() })
}

/// One column's digests by the places of its tensors in its file.
pub(super) fn digests_by_place(plan: &Plan, table: &TableOfDigests, column: usize) -> (Task, Vec<Option<Digest>>) {
    let mut by_place = vec![None; plan.column_checkpoint(column).tensors().len()];
    for (tensor, digest) in plan.tensors.iter().zip(table.column(column)) {
        by_place[tensor.columns[column] as usize] = Some(digest);
    }
    (plan.tasks[column - 1].clone(), by_place)
}

/// Copies these tensors of a checkpoint to every output, converted where another type was asked for.
///
/// # Errors
/// Rejected: values that the format cannot hold, a file that was written to meanwhile. Failed: I/O. Interrupted.
pub fn copy_tensors(
    from: &Checkpoint,
    names: &[String],
    outputs: Outputs<'_>,
    progress: &dyn Progress,
) -> Result<Clipped> {
    let range = RangeCheck::new(outputs.format.clip);
    for tensor in names.iter().filter_map(|name| from.get(name)) {
        let (name, n_elements) = (tensor.name.clone(), tensor.n_elements());
        copy_part(from, &Rest { tensor, name, first: 0, n_elements, is_seen: true }, outputs, &range, progress)?;
    }
    from.check_unchanged()?;
    range.finish(|output| outputs.name(output))
}

/// Copies a part of the base to every output, converted where it is a float and another type was asked for.
pub(crate) fn copy_part(
    base: &Checkpoint,
    part: &Rest<'_>,
    outputs: Outputs<'_>,
    range: &RangeCheck,
    progress: &dyn Progress,
) -> Result<Digest> {
    let tensor = part.tensor;
    let size = tensor.dtype.size();
    let convert = match (tensor.dtype.float(), outputs.format.dtype) {
        (Some(from), Some(to)) if from != to => Some((from, to)),
        _ => None,
    };
    let mut buffer = vec![0; size * BLOCK_ROWS.min(part.n_elements)];
    let mut blocks = Vec::new();
    let end = part.first + part.n_elements;
    for first_row in (part.first..end).step_by(BLOCK_ROWS) {
        progress.check()?;
        let n_rows = BLOCK_ROWS.min(end - first_row);
        let bytes = &mut buffer[..n_rows * size];
        base.read(tensor, (first_row * size) as u64, bytes)?;
        blocks.push(Digest::of(bytes));
        let converted = match convert {
            Some((from, to)) => {
                let mut rows = tvb_kernels::convert(bytes, from, to);
                let (all, bytes_out) = (0..outputs.len(), rows.as_mut_slice());
                let looked_at = Rows { outputs: all, tensor: &tensor.name, first_row, dtype: to, bytes: bytes_out };
                let name = || format!("base {}", base.path().display());
                range.look(looked_at, || {
                    let exact = values_of(bytes, from);
                    Ok(Origin { inputs: vec![Input { name: name(), values: exact.clone(), is_base: true }], exact })
                })?;
                Some((rows, to.size()))
            }
            None => None,
        };
        let (rows, stored) = converted.as_ref().map_or((&*bytes, size), |(rows, stored)| (rows.as_slice(), *stored));
        for output in 0..outputs.len() {
            outputs.write(output, &tensor.name, (first_row * stored) as u64, rows)?;
        }
        progress.advance(bytes.len() as u64);
    }
    Ok(Digest::of_digests(blocks))
}
