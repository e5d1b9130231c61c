//! Base + weights × columns → checkpoints: one fused streaming pass for any number of edits at once.
//!
//! The columns are the atoms of a basis (deltas) or the original fine-tunes (checkpoints, differenced on the way). What no
//! column holds (frozen, skipped, integer tensors) is copied from the base byte for byte, or converted where another type
//! was asked for. Digests of the base and of the atoms are taken as they pass and checked before anything is kept.

use crate::basis::random_atoms::GeneratedEdits;
use crate::basis::{Basis, atom};
use crate::checkpoint::{Checkpoint, CheckpointWriter, Tensor};
use crate::columns::plan::{Plan, Task};
use crate::digest::{BLOCK_ROWS, Digest, TensorDigests, fingerprint};
use crate::error::{Error, Result};
use crate::pass::chunks::{Block, Grid};
use crate::pass::stream::{Done, Pass, Runtime};
use crate::progress::Progress;
use std::collections::HashMap;
use tvb_kernels::{Base, Columns, Output, Reconstruct, Work};

/// Edits to be formed in one pass, and what they are formed from.
#[derive(Clone, Debug)]
pub struct Edits {
    /// What the columns beside the base hold.
    pub columns: Columns,
    /// The columns: atoms or fine-tunes.
    pub inputs: Vec<Task>,
    /// What columns that are checkpoints are differenced against, even where the output is the bare edit.
    pub origin: Option<Checkpoint>,
    /// [n_inputs, n_outputs], row-major: output k is [base +] Σ_c weights\[c, k\]·column_c.
    pub weights: Vec<f64>,
    /// K.
    pub n_outputs: usize,
    /// Names of the tensors that the columns edit.
    pub tensors: Vec<String>,
    /// Atoms that are made on the way, in place of columns.
    pub generated: Option<GeneratedEdits>,
}

impl Edits {
    /// Edits Σ_t alpha\[t\]·τ̂t from a basis, one for each of `alphas` (each of length M, weights over atoms).
    pub fn from_basis(basis: &Basis, atom_weights: &[Vec<f64>]) -> Result<Edits> {
        let n_atoms = basis.n_atoms();
        let generated = GeneratedEdits::of(basis, atom_weights)?;
        let inputs = (0..n_atoms)
            .map(|index| Ok(Task { name: atom::stem(index, n_atoms), checkpoint: basis.open_atom(index)? }));
        Ok(Edits {
            columns: Columns::Deltas,
            inputs: inputs.collect::<Result<_>>()?,
            origin: None,
            weights: by_column(n_atoms, atom_weights),
            n_outputs: atom_weights.len(),
            tensors: basis.manifest.groups.iter().flat_map(|group| group.tensors.iter().cloned()).collect(),
            generated,
        })
    }

    /// Edits Σ_t alpha\[t\]·τt from the originals of a plan.
    pub fn from_checkpoints(plan: &Plan, alphas: &[Vec<f64>]) -> Edits {
        Edits {
            columns: Columns::Checkpoints,
            inputs: plan.tasks.clone(),
            origin: Some(plan.base.clone()),
            weights: by_column(plan.tasks.len(), alphas),
            n_outputs: alphas.len(),
            tensors: plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            generated: None,
        }
    }

    /// λ times a bare edit that was written before.
    pub fn from_delta(delta: Checkpoint, scale: f64) -> Edits {
        Edits {
            columns: Columns::Deltas,
            tensors: delta.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            generated: None,
            inputs: vec![Task { name: "edit".into(), checkpoint: delta }],
            origin: None,
            weights: vec![scale],
            n_outputs: 1,
        }
    }

    /// Leaves out the columns that no output gives a weight to: they need not be read.
    fn without_unused(mut self) -> Edits {
        let used: Vec<bool> = self.weights.chunks(self.n_outputs).map(|row| row.iter().any(|w| *w != 0.0)).collect();
        let mut keep = used.iter();
        self.inputs.retain(|_| *keep.next().unwrap_or(&true));
        let rows = self.weights.chunks(self.n_outputs).zip(&used).filter(|(_, used)| **used);
        self.weights = rows.flat_map(|(row, _)| row.iter().copied()).collect();
        self
    }
}

fn by_column(n_columns: usize, weights: &[Vec<f64>]) -> Vec<f64> {
    (0..n_columns).flat_map(|column| weights.iter().map(move |output| output[column])).collect()
}

/// Digests of what was read while edits were formed, to be checked before they are kept.
#[derive(Clone, Debug)]
pub struct Read {
    /// Of every tensor of the base that was read, by name.
    base: HashMap<String, Digest>,
    /// For each input by name, of its tensors in its own file order.
    inputs: Vec<(Task, Vec<Option<Digest>>)>,
}

impl Read {
    /// Checks what was read against what a basis says of its atoms and, where it knows, of its base.
    ///
    /// # Errors
    /// Rejected: a damaged atom, or another base.
    pub fn check(&self, basis: &Basis, base: Option<&Checkpoint>) -> Result<()> {
        let n_atoms = basis.n_atoms();
        for (task, digests) in &self.inputs {
            let record = (0..n_atoms).find(|&index| atom::stem(index, n_atoms) == task.name);
            let Some(record) = record.map(|index| &basis.manifest.atoms[index]) else { continue };
            let Some(digests) = digests.iter().copied().collect::<Option<Vec<Digest>>>() else { continue };
            if atom::checksum(&task.checkpoint, digests.into_iter())? != record.checksum {
                return Err(Error::rejected(format!(
                    "{}: its checksum does not match: the atom was damaged",
                    task.checkpoint.path().display()
                ))
                .hint("make the basis again, or copy it again; `tvb verify` checks all of it"));
            }
        }
        let (Some(base), Some(expected)) = (base, basis.manifest.base.fingerprint) else { return Ok(()) };
        let found = self.base_fingerprint(base, basis)?;
        if found == expected {
            return Ok(());
        }
        Err(Error::rejected(format!(
            "{}: another base expected, the one this basis was made from ({}): fingerprint {expected} expected, {found} found",
            base.path().display(),
            basis.manifest.base.source
        ))
        .hint("--force uses this base all the same"))
    }

    fn base_fingerprint(&self, base: &Checkpoint, basis: &Basis) -> Result<Digest> {
        let took_part = basis.manifest.groups.iter().flat_map(|group| &group.tensors).chain(&basis.manifest.frozen);
        let mut parts = Vec::new();
        for name in took_part {
            let (Some(tensor), Some(digest)) = (base.get(name), self.base.get(name)) else {
                return Err(Error::rejected(format!("{}: tensor {name} expected, none found", base.path().display())));
            };
            parts.push((name.as_str(), tensor.dtype, tensor.shape.as_slice(), *digest));
        }
        Ok(fingerprint(parts))
    }
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
    let mut read = match &edits.generated {
        Some(generated) => {
            progress.begin("reconstruct", generated.raw.n_bytes() + rest_bytes);
            Read { base: generated.form(base, dtype, writers, runtime, progress)?, inputs: Vec::new() }
        }
        None => form(base, edits, dtype, rest_bytes, writers, runtime, progress)?,
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

/// The stream of stored columns; `rest_bytes` are still to come after it.
fn form(
    base: Option<&Checkpoint>,
    edits: Edits,
    dtype: Option<tvb_kernels::Dtype>,
    rest_bytes: u64,
    writers: &[CheckpointWriter],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Read> {
    let edits = edits.without_unused();
    // A bare edit of deltas has no base: the first column stands in for it, so that the stream has one; the engine
    // ignores it.
    let stand_in = match base.or(edits.origin.as_ref()).or(edits.inputs.first().map(|task| &task.checkpoint)) {
        Some(checkpoint) => checkpoint.clone(),
        None => return Err(Error::usage("an edit of nothing and no base: nothing to write")),
    };
    let plan = Plan::of_columns(stand_in, edits.inputs.clone(), &edits.tensors)?;
    let work = Work::Reconstruct(Reconstruct {
        weights: edits.weights.iter().map(|weight| *weight as f32).collect(),
        n_outputs: edits.n_outputs,
        columns: edits.columns,
        base: if base.is_some() { Base::Added } else { Base::Left },
        dtype,
    });
    progress.begin("reconstruct", plan.n_bytes() + rest_bytes);
    run(&plan, work, dtype, writers, runtime, progress)
}

/// The tensors of the base that no column edits.
fn rest_of<'a>(base: &'a Checkpoint, edited: &[String]) -> Vec<&'a Tensor> {
    let edited: std::collections::HashSet<&str> = edited.iter().map(String::as_str).collect();
    base.tensors().iter().filter(|tensor| !edited.contains(tensor.name.as_str())).collect()
}

fn run(
    plan: &Plan,
    work: Work,
    dtype: Option<tvb_kernels::Dtype>,
    writers: &[CheckpointWriter],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Read> {
    let n_columns = plan.n_columns();
    let pass = Pass {
        plan,
        grid: Grid::new(plan.tensors.iter().map(|tensor| tensor.n_rows), runtime.rows_per_chunk(n_columns)),
        work,
        slots: Vec::new(),
    };
    let mut digests = TensorDigests::new(n_columns);
    let each = |done: Done<'_>| -> Result<Vec<Digest>> {
        let Output::Rows(bytes) = done.output else {
            return Err(Error::failed("the engine answered a reconstruction with something else"));
        };
        let mut at = 0;
        for writer in writers {
            for (index, block) in done.blocks.iter().enumerate() {
                let stored = dtype.unwrap_or(done.layout.slice(index, 0).dtype);
                let rows = &bytes[at..at + block.n_rows * stored.size()];
                at += rows.len();
                let name = &plan.tensors[block.tensor].name;
                writer.write(name, (block.first_row * stored.size()) as u64, rows)?;
            }
        }
        Ok(done.digests.to_vec())
    };
    let fold = |blocks: &[Block], read: Vec<Digest>| {
        for (block, columns) in blocks.iter().zip(read.chunks_exact(n_columns)) {
            digests.push(block.tensor, columns);
        }
        Ok(())
    };
    pass.run(runtime, progress, each, fold)?;
    let table = digests.finish(plan.tensors.len());
    let base = plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(table.column(0)).collect();
    let inputs = (1..n_columns).map(|column| {
        let mut by_place = vec![None; plan.column_checkpoint(column).tensors().len()];
        for (tensor, digest) in plan.tensors.iter().zip(table.column(column)) {
            by_place[tensor.columns[column] as usize] = Some(digest);
        }
        (plan.tasks[column - 1].clone(), by_place)
    });
    Ok(Read { base, inputs: inputs.collect() })
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
