//! Base + weights × columns → checkpoints: one fused streaming pass for any number of edits at once.
//!
//! The columns are the atoms of a basis (deltas) or the original fine-tunes (checkpoints, differenced on the way). What no
//! column holds (frozen, skipped, integer tensors) is copied from the base byte for byte, or converted where another type
//! was asked for. Digests of the base and of the columns are taken as they pass; whoever knows what they should be compares
//! them before anything is kept. Whether the files are still those that were opened is asked here, and whether every value
//! that was written is finite.

use super::decode::{CodedAtoms, CodesRead, Decoding, digests_by_name};
use super::generate::GeneratedEdits;
use super::generated::RawColumns;
use super::in_f32::weight_in_f32;
use super::outputs::{Format, Outputs};
use super::range::{Clipped, Input, Origin, RangeCheck, Rows};
use crate::checkpoint::{Checkpoint, values_of};
use crate::columns::fit::{Fit, Rest};
use crate::columns::plan::{Plan, Task};
use crate::digest::{BLOCK_ROWS, Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::{Block, ChunkReader, Done, Folded, Operation, Pass, Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::collections::{HashMap, HashSet};
use tvb_kernels::{Base, Columns, Reconstruct};

/// What edits are formed from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Original fine-tunes, each differenced against `origin` on the way, even where the output is the bare edit.
    Checkpoints {
        /// What the fine-tunes started from.
        origin: Checkpoint,
        /// The fine-tunes.
        tasks: Vec<Task>,
    },
    /// Deltas as they are: atoms, or an edit that was written before.
    Deltas(Vec<Task>),
    /// Columns that are made on the way from a seed.
    Generated(RawColumns),
    /// Coded atoms: weights are over their own columns and the shared ones.
    Coded(CodedAtoms),
}

/// Edits to be formed in one pass, and what they are formed from.
#[derive(Clone, Debug)]
pub struct Edits {
    /// The columns beside the base.
    pub source: Source,
    /// \[n_outputs\]\[n_columns\]: output k is [base +] Σ_c weights\[k\]\[c\]·column_c.
    pub weights: Vec<Vec<f64>>,
    /// Names of the tensors that the columns edit.
    pub tensors: Vec<String>,
    /// How they fit the base.
    pub fit: Fit,
}

impl Edits {
    /// Edits Σ_t alpha\[t\]·τt from the originals of a plan, one for each of `alphas` (each of length T).
    pub fn from_checkpoints(plan: &Plan, alphas: &[Vec<f64>]) -> Edits {
        Edits {
            source: Source::Checkpoints { origin: plan.column_checkpoint(0).clone(), tasks: plan.tasks.clone() },
            weights: alphas.to_vec(),
            tensors: plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            fit: plan.fit.clone(),
        }
    }

    /// λ times a bare edit that was written before.
    pub fn from_delta(delta: Checkpoint, scale: f64, fit: Fit) -> Edits {
        Edits {
            tensors: delta.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            source: Source::Deltas(vec![Task { name: "edit".into(), checkpoint: delta }]),
            weights: vec![vec![scale]],
            fit,
        }
    }
}

impl Edits {
    /// The same edits of some of the tensors: those that `keep` answers true for.
    #[must_use]
    pub fn only(&self, keep: &dyn Fn(&str) -> bool) -> Edits {
        let source = match &self.source {
            Source::Generated(raw) => Source::Generated(raw.only(keep)),
            Source::Coded(atoms) => Source::Coded(atoms.only(keep)),
            Source::Checkpoints { .. } | Source::Deltas(_) => self.source.clone(),
        };
        let tensors = self.tensors.iter().filter(|name| keep(name)).cloned().collect();
        Edits { source, tensors, weights: self.weights.clone(), fit: self.fit.clone() }
    }

    /// The tensors that are edited and their shapes, in order; without those that the first column lacks.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let in_checkpoint = |like: Option<&Checkpoint>| {
            let shape = |name: &String| Some((name.clone(), like?.get(name)?.shape.clone()));
            self.tensors.iter().filter_map(shape).collect()
        };
        match &self.source {
            Source::Generated(raw) => raw.tensors.clone(),
            Source::Coded(atoms) => {
                atoms.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
            }
            Source::Checkpoints { origin, .. } => in_checkpoint(Some(origin)),
            Source::Deltas(columns) => in_checkpoint(columns.first().map(|column| &column.checkpoint)),
        }
    }
}

/// Digests of what was read while edits were formed, to be checked before they are kept.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Of every tensor of the base that was read, by name.
    pub base: HashMap<String, Digest>,
    /// For each column that was read, of its tensors in its own file order; `None` for one that was not read.
    pub columns: Vec<(Task, Vec<Option<Digest>>)>,
    /// Of the codes that were read.
    pub codes: Vec<CodesRead>,
    /// What was written as the largest finite value of its type.
    pub clipped: Clipped,
}

impl Read {
    /// Adds what was read of other tensors of the same columns.
    pub fn add(&mut self, other: Read) {
        self.base.extend(other.base);
        for (task, digests) in other.columns {
            match self.columns.iter_mut().find(|(known, _)| known.name == task.name) {
                Some((_, known)) => known.iter_mut().zip(digests).for_each(|(known, digest)| *known = known.or(digest)),
                None => self.columns.push((task, digests)),
            }
        }
        for codes in other.codes {
            match self.codes.iter_mut().find(|known| known.column == codes.column) {
                Some(known) => known.digests.extend(codes.digests),
                None => self.codes.push(codes),
            }
        }
        self.clipped = self.clipped.and(other.clipped);
    }
}

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
    let seen = seen.as_ref();
    let mut read = match &edits.source {
        Source::Generated(raw) => {
            progress.begin("reconstruct", raw.n_bytes() + rest_bytes);
            let generated = GeneratedEdits { raw, weights: &edits.weights };
            let base = generated.form(seen, outputs, &range, runtime, progress)?;
            Read { base, ..Read::default() }
        }
        Source::Coded(atoms) => {
            let coded = Coded { atoms, edits: &edits };
            coded.form(seen, rest_bytes, outputs, &range, runtime, progress)?
        }
        Source::Checkpoints { origin, tasks } => {
            let stored = Stored { kind: Columns::Checkpoints, origin: Some(origin), tasks, edits: &edits };
            stored.form(seen, rest_bytes, outputs, &range, runtime, progress)?
        }
        Source::Deltas(tasks) => {
            let stored = Stored { kind: Columns::Deltas, origin: None, tasks, edits: &edits };
            stored.form(seen, rest_bytes, outputs, &range, runtime, progress)?
        }
    };
    if let Some(base) = base {
        for part in rest {
            let digest = copy_part(base, &part, outputs, &range, progress)?;
            if part.is_seen {
                read.base.insert(part.name, digest);
            }
        }
        // The pass has asked before the rest was read.
        base.check_unchanged()?;
    }
    progress.finish();
    read.clipped = range.finish(|output| outputs.name(output))?;
    Ok(read)
}

/// Edits whose columns are read.
struct Stored<'a> {
    kind: Columns,
    origin: Option<&'a Checkpoint>,
    tasks: &'a [Task],
    edits: &'a Edits,
}

impl Stored<'_> {
    /// Streams the columns; `rest_bytes` are still to come after it.
    fn form(
        &self,
        base: Option<&Checkpoint>,
        rest_bytes: u64,
        outputs: Outputs<'_>,
        range: &RangeCheck,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Read> {
        let weights = &self.edits.weights;
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
        let plan = Plan::of_columns(stand_in, tasks, &self.edits.tensors)?;
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
            dtype: outputs.format.dtype,
        };
        progress.begin("reconstruct", plan.n_bytes() + rest_bytes);
        run(&plan, work, outputs, range, runtime, progress)
    }

    /// A column's weight as the engines take it.
    fn in_f32(&self, column: usize, weight: f64) -> Result<f32> {
        let Task { name, checkpoint } = &self.tasks[column];
        weight_in_f32(weight, || format!("{}: the weight of {name}", checkpoint.path().display()))
    }
}

/// Edits whose columns are codes.
struct Coded<'a> {
    atoms: &'a CodedAtoms,
    edits: &'a Edits,
}

impl Coded<'_> {
    /// The few tensors that are not coded, then the others; `rest_bytes` are still to come after them.
    fn form(
        &self,
        base: Option<&Checkpoint>,
        rest_bytes: u64,
        outputs: Outputs<'_>,
        range: &RangeCheck,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Read> {
        let Coded { atoms, edits } = *self;
        let raw_names = atoms.names(false);
        let own: Vec<Task> = atoms.columns.iter().take(atoms.n_own).cloned().collect();
        let own_weights = edits.weights.iter().map(|output| output[..atoms.n_own].to_vec()).collect();
        let (source, fit) = (Source::Deltas(own.clone()), Fit::default());
        let raw = Edits { source, weights: own_weights, tensors: raw_names, fit };
        let decoding = Decoding::new(atoms, &edits.weights, base, outputs.format.dtype)?;
        // Before anything of the others is written.
        check_memory(&decoding.plan, edits.weights.len(), runtime)?;
        let coded_bytes = decoding.plan.n_bytes();
        let mut read = Read::default();
        if !raw.tensors.is_empty() {
            let stored = Stored { kind: Columns::Deltas, origin: None, tasks: &own, edits: &raw };
            // A column in bf16 stands in for a base that is not there; what comes out is in f32, as of codes.
            let own_dtype = if base.is_some() { None } else { Some(tvb_kernels::Dtype::F32) };
            let format = Format { dtype: outputs.format.dtype.or(own_dtype), ..outputs.format };
            let outputs = Outputs { format, ..outputs };
            read = stored.form(base, coded_bytes + rest_bytes, outputs, range, runtime, progress)?;
        } else {
            progress.begin("reconstruct", coded_bytes + rest_bytes);
        }
        let decoded = decoding.run(outputs, range, runtime, progress)?;
        read.base.extend(decoded.base);
        read.codes = decoded.codes;
        Ok(read)
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
fn copy_part(
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
