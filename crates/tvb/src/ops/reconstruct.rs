//! Base + weights × columns → checkpoints: one fused streaming pass for any number of edits at once.
//!
//! The columns are the atoms of a basis (deltas) or the original fine-tunes (checkpoints, differenced on the way). What no
//! column holds (frozen, skipped, integer tensors) is copied from the base byte for byte, or converted where another type
//! was asked for. Digests of the base and of the columns are taken as they pass; whoever knows what they should be compares
//! them before anything is kept.

use super::generate::GeneratedEdits;
use super::generated::RawColumns;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Tensor};
use crate::columns::plan::{Plan, Task};
use crate::digest::{BLOCK_ROWS, Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::{Done, Folded, Operation, Pass, Reads, Runtime};
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
}

impl Edits {
    /// Edits Σ_t alpha\[t\]·τt from the originals of a plan, one for each of `alphas` (each of length T).
    pub fn from_checkpoints(plan: &Plan, alphas: &[Vec<f64>]) -> Edits {
        Edits {
            source: Source::Checkpoints { origin: plan.base.clone(), tasks: plan.tasks.clone() },
            weights: alphas.to_vec(),
            tensors: plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
        }
    }

    /// λ times a bare edit that was written before.
    pub fn from_delta(delta: Checkpoint, scale: f64) -> Edits {
        Edits {
            tensors: delta.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            source: Source::Deltas(vec![Task { name: "edit".into(), checkpoint: delta }]),
            weights: vec![vec![scale]],
        }
    }
}

/// Digests of what was read while edits were formed, to be checked before they are kept.
#[derive(Clone, Debug)]
pub struct Read {
    /// Of every tensor of the base that was read, by name.
    pub base: HashMap<String, Digest>,
    /// For each column that was read, of its tensors in its own file order; `None` for one that was not read.
    pub columns: Vec<(Task, Vec<Option<Digest>>)>,
}

/// Forms the edits and writes them, one writer for each; with `base` the outputs are edited checkpoints, without it the
/// bare edits. Nothing is committed here.
///
/// # Errors
/// Rejected: columns that do not fit the base. Failed: I/O, device. Interrupted.
pub fn reconstruct(
    base: Option<&Checkpoint>,
    edits: Edits,
    dtype: Option<tvb_kernels::Dtype>,
    writers: &[CheckpointWriter],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Read> {
    let rest = base.map(|base| rest_of(base, &edits.tensors)).unwrap_or_default();
    let rest_bytes = rest.iter().map(|tensor| tensor.n_bytes()).sum::<u64>();
    let mut read = match &edits.source {
        Source::Generated(raw) => {
            progress.begin("reconstruct", raw.n_bytes() + rest_bytes);
            let generated = GeneratedEdits { raw, weights: &edits.weights };
            Read { base: generated.form(base, dtype, writers, runtime, progress)?, columns: Vec::new() }
        }
        Source::Checkpoints { origin, tasks } => {
            let stored = Stored { kind: Columns::Checkpoints, origin: Some(origin), tasks, edits: &edits };
            stored.form(base, dtype, rest_bytes, writers, runtime, progress)?
        }
        Source::Deltas(tasks) => {
            let stored = Stored { kind: Columns::Deltas, origin: None, tasks, edits: &edits };
            stored.form(base, dtype, rest_bytes, writers, runtime, progress)?
        }
    };
    if let Some(base) = base {
        for tensor in rest {
            let digest = copy_tensor(base, tensor, dtype, writers, progress)?;
            read.base.insert(tensor.name.clone(), digest);
        }
    }
    progress.finish();
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
        dtype: Option<tvb_kernels::Dtype>,
        rest_bytes: u64,
        writers: &[CheckpointWriter],
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Read> {
        let weights = &self.edits.weights;
        // Columns that no output gives a weight to need not be read.
        let used: Vec<usize> =
            (0..self.tasks.len()).filter(|&column| weights.iter().any(|output| output[column] != 0.0)).collect();
        let tasks: Vec<Task> = used.iter().map(|&column| self.tasks[column].clone()).collect();
        // A bare edit of deltas has no base: the first column stands in for it, so that the stream has one; the engine
        // ignores it.
        let stand_in = match base.or(self.origin).or(tasks.first().map(|task| &task.checkpoint)) {
            Some(checkpoint) => checkpoint.clone(),
            None => return Err(Error::usage("an edit of nothing and no base: nothing to write")),
        };
        let plan = Plan::of_columns(stand_in, tasks, &self.edits.tensors)?;
        let work = Reconstruct {
            weights: used.iter().flat_map(|&column| weights.iter().map(move |output| output[column] as f32)).collect(),
            n_outputs: weights.len(),
            columns: self.kind,
            base: if base.is_some() { Base::Added } else { Base::Left },
            dtype,
        };
        progress.begin("reconstruct", plan.n_bytes() + rest_bytes);
        run(&plan, work, writers, runtime, progress)
    }
}

/// The operation: rows of the edits, written where they belong.
struct WriteEdits<'a> {
    plan: &'a Plan,
    work: Reconstruct,
    writers: &'a [CheckpointWriter],
}

impl Operation for WriteEdits<'_> {
    type Work = Reconstruct;
    type Part = ();

    fn work(&self) -> &Reconstruct {
        &self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<()> {
        let mut at = 0;
        for writer in self.writers {
            for (index, block) in done.blocks.iter().enumerate() {
                let stored = self.work.dtype.unwrap_or(done.layout.slice(index, 0).dtype);
                let own = &rows[at..at + block.n_rows * stored.size()];
                at += own.len();
                let name = &self.plan.tensors[block.tensor].name;
                writer.write(name, (block.first_row * stored.size()) as u64, own)?;
            }
        }
        Ok(())
    }
}

fn run(
    plan: &Plan,
    work: Reconstruct,
    writers: &[CheckpointWriter],
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
    Pass::over(plan, runtime, &reads).run(&WriteEdits { plan, work, writers }, runtime, progress, fold)?;
    let table = table.finish(plan.tensors.len());
    let base = plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(table.column(0)).collect();
    let columns = (1..n_columns).map(|column| {
        let mut by_place = vec![None; plan.column_checkpoint(column).tensors().len()];
        for (tensor, digest) in plan.tensors.iter().zip(table.column(column)) {
            by_place[tensor.columns[column] as usize] = Some(digest);
        }
        (plan.tasks[column - 1].clone(), by_place)
    });
    Ok(Read { base, columns: columns.collect() })
}

/// The tensors of the base that no column edits.
fn rest_of<'a>(base: &'a Checkpoint, edited: &[String]) -> Vec<&'a Tensor> {
    let edited: HashSet<&str> = edited.iter().map(String::as_str).collect();
    base.tensors().iter().filter(|tensor| !edited.contains(tensor.name.as_str())).collect()
}

/// Copies one tensor of the base to every output, converted where it is a float and another type was asked for.
fn copy_tensor(
    base: &Checkpoint,
    tensor: &Tensor,
    dtype: Option<tvb_kernels::Dtype>,
    writers: &[CheckpointWriter],
    progress: &dyn Progress,
) -> Result<Digest> {
    let size = tensor.dtype.size();
    let convert = match (tensor.dtype.float(), dtype) {
        (Some(from), Some(to)) if from != to => Some((from, to)),
        _ => None,
    };
    let mut buffer = vec![0; size * BLOCK_ROWS.min(tensor.n_elements())];
    let mut blocks = Vec::new();
    for first_row in (0..tensor.n_elements()).step_by(BLOCK_ROWS) {
        progress.check()?;
        let n_rows = BLOCK_ROWS.min(tensor.n_elements() - first_row);
        let bytes = &mut buffer[..n_rows * size];
        base.read(tensor, (first_row * size) as u64, bytes)?;
        blocks.push(Digest::of(bytes));
        let converted = convert.map(|(from, to)| (tvb_kernels::convert(bytes, from, to), to.size()));
        let (rows, stored) = converted.as_ref().map_or((&*bytes, size), |(rows, stored)| (rows.as_slice(), *stored));
        for writer in writers {
            writer.write(&tensor.name, (first_row * stored) as u64, rows)?;
        }
        progress.advance(bytes.len() as u64);
    }
    Ok(Digest::of_digests(blocks))
}
