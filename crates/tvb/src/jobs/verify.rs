//! Is a basis what it was, and is it as good as it says? Checksums, and with the originals the true errors.

use crate::basis::random_atoms::RawColumns;
use crate::basis::{Basis, atom};
use crate::columns::plan::{Plan, Task};
use crate::digest::{BLOCK_ROWS, Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::chunks::{Block, Grid};
use crate::pass::stream::{Pass, Runtime, Visit};
use crate::progress::Progress;
use tvb_kernels::{Base, Chunk, ChunkLayout, Columns, CpuEngine, Output, Reconstruct, Scratch, Work};

/// One file of a basis and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCheck {
    /// Its name inside the basis folder.
    pub file: String,
    /// `None` where it is as it was written; otherwise what is wrong.
    pub damage: Option<String>,
}

/// Streams every atom and compares its checksum; the manifest and the coefficients were checked when the basis was opened.
///
/// # Errors
/// Interrupted only: damage and unreadable files are the answer.
pub fn verify_files(basis: &Basis, runtime: &Runtime, progress: &dyn Progress) -> Result<Vec<FileCheck>> {
    let manifest = &basis.manifest;
    let intact = |file: &str| FileCheck { file: file.to_owned(), damage: None };
    let mut checks = vec![intact(crate::basis::manifest::FILE_NAME), intact(&manifest.coefficients.file)];
    progress.begin("verify", manifest.atoms.iter().map(|atom| atom.bytes).sum());
    for (index, record) in manifest.atoms.iter().enumerate() {
        let damage = match atom_checksum(basis, index, runtime, progress) {
            Ok(found) if found == record.checksum => None,
            Ok(found) => Some(format!("checksum {} expected, {found} found", record.checksum)),
            Err(error) if error.kind() == crate::ErrorKind::Interrupted => return Err(error),
            Err(error) => Some(error.message().to_owned()),
        };
        checks.push(FileCheck { file: record.file.clone(), damage });
    }
    progress.finish();
    Ok(checks)
}

fn atom_checksum(basis: &Basis, index: usize, runtime: &Runtime, progress: &dyn Progress) -> Result<Digest> {
    let atom = basis.open_atom(index)?;
    let names: Vec<String> = atom.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let plan = Plan::of_columns(atom.clone(), Vec::new(), &names)?;
    let mut digests = TensorDigests::new(1);
    let each = |(): &mut (), visit: Visit<'_>| Ok(visit.digests.to_vec());
    let fold = |blocks: &[Block], read: Vec<Digest>| {
        blocks.iter().zip(&read).for_each(|(block, digest)| digests.push(block.tensor, &[*digest]));
        Ok(())
    };
    whole_pass(&plan).visit(runtime, progress, || (), each, fold)?;
    atom::checksum(&atom, digests.finish(plan.tensors.len()).column(0))
}

fn whole_pass(plan: &Plan) -> Pass<'_> {
    let rows = plan.tensors.iter().map(|tensor| tensor.n_rows);
    Pass { plan, grid: Grid::new(rows, BLOCK_ROWS), work: Work::Gram, slots: Vec::new() }
}

/// A task's error as measured on the data, beside the one predicted from the Gram matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueError {
    /// The task.
    pub task: String,
    /// ‖τ̂ − τ‖²/‖τ‖² from the stored atoms and the originals; zero for a task that did not move and is recovered as such.
    pub measured: f64,
    /// As the manifest has it, before storage rounding.
    pub predicted: Option<f64>,
}

/// Reads the originals and the atoms once and measures every task's error.
///
/// # Errors
/// Rejected: originals that do not fit the basis. Failed: I/O. Interrupted.
pub fn verify_errors(basis: &Basis, plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<Vec<TrueError>> {
    let n_tasks = plan.tasks.len();
    let names = basis.task_names();
    let given: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let which: Vec<usize> =
        given.iter().map(|name| crate::arithmetic::find_task(&names, name)).collect::<Result<_>>()?;
    let n_atoms = basis.n_atoms();
    let mut columns = plan.tasks.clone();
    for index in 0..n_atoms {
        columns.push(Task { name: atom::stem(index, n_atoms), checkpoint: basis.open_atom(index)? });
    }
    let stored: Vec<String> = basis.manifest.groups.iter().flat_map(|group| group.tensors.iter().cloned()).collect();
    let all = Plan::of_columns(plan.base.clone(), columns, &stored)?;
    let decode = &basis.coefficients.groups[0].decode;
    let work = Work::Reconstruct(Reconstruct {
        weights: (0..n_atoms).flat_map(|m| which.iter().map(move |&t| decode[(m, t)] as f32)).collect(),
        n_outputs: n_tasks,
        columns: Columns::Deltas,
        base: Base::Left,
        dtype: Some(tvb_kernels::Dtype::F32),
    });
    let generated = match (RawColumns::of(basis)?, basis.solved()?.generated) {
        (Some(raw), Some(generated)) => {
            let column = |t: usize| (0..decode.n_rows()).map(|m| decode[(m, t)]).collect::<Vec<f64>>();
            let weights: Vec<Vec<f64>> = which.iter().map(|&t| generated.raw_weights(&column(t))).collect();
            Some((raw, weights))
        }
        _ => None,
    };
    let engine = CpuEngine::new();
    let mut sums = vec![(0.0, 0.0); n_tasks];
    progress.begin("verify", all.n_bytes());
    let state = || (engine.scratch(), Output::Rows(Vec::new()));
    let each = |(scratch, output): &mut (Scratch, Output), visit: Visit<'_>| {
        if let Some((raw, weights)) = &generated {
            let recovered = generated_rows(raw, weights, &all, visit.blocks)?;
            return Ok(square_errors(visit.chunk, n_tasks, &recovered));
        }
        let layout = atoms_only(visit.chunk.layout, n_tasks);
        let atoms = Chunk { layout: &layout, bytes: visit.chunk.bytes };
        engine.run(&work, atoms, scratch, output).map_err(|error| Error::failed(error.to_string()))?;
        let Output::Rows(recovered) = output else {
            return Err(Error::failed("the engine answered a reconstruction with something else"));
        };
        Ok(square_errors(visit.chunk, n_tasks, recovered))
    };
    let fold = |_: &[Block], part: Vec<(f64, f64)>| {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum = (sum.0 + part.0, sum.1 + part.1));
        Ok(())
    };
    whole_pass(&all).visit(runtime, progress, state, each, fold)?;
    progress.finish();
    let errors = sums.iter().zip(&which).map(|(&(error, norm), &task)| TrueError {
        task: names[task].clone(),
        measured: if error == 0.0 { 0.0 } else { error / norm },
        predicted: basis.manifest.tasks[task].relative_error,
    });
    Ok(errors.collect())
}

/// Recovered f32 rows of generated atoms, task by task, block by block.
fn generated_rows(raw: &RawColumns, weights: &[Vec<f64>], plan: &Plan, blocks: &[Block]) -> Result<Vec<u8>> {
    let parts = blocks.iter().map(|block| {
        let first = raw.first_row(&plan.tensors[block.tensor].name)? + block.first_row as u64;
        Ok(raw.mixed(first, block.n_rows, weights))
    });
    let parts: Vec<Vec<Vec<f64>>> = parts.collect::<Result<_>>()?;
    let tasks = (0..weights.len()).flat_map(|task| parts.iter().map(move |part| &part[task]));
    Ok(tasks.flatten().flat_map(|value| (*value as f32).to_le_bytes()).collect())
}

/// The layout of base and atoms inside a chunk that also holds the tasks.
fn atoms_only(layout: &ChunkLayout, n_tasks: usize) -> ChunkLayout {
    let columns: Vec<usize> = std::iter::once(0).chain(n_tasks + 1..layout.n_columns).collect();
    ChunkLayout {
        n_columns: columns.len(),
        segments: layout.segments.clone(),
        slices: (0..layout.segments.len())
            .flat_map(|segment| columns.iter().map(move |&column| layout.slice(segment, column)))
            .collect(),
        n_bytes: layout.n_bytes,
    }
}

/// For each task Σ(τ̂ − τ)² and Στ² over one chunk. `recovered` holds f32 rows, task by task, segment by segment.
fn square_errors(chunk: Chunk<'_>, n_tasks: usize, recovered: &[u8]) -> Vec<(f64, f64)> {
    let decode = |segment: usize, column: usize| {
        let slice = chunk.layout.slice(segment, column);
        let n_rows = chunk.layout.segments[segment].n_rows;
        tvb_kernels::decode(&chunk.bytes[slice.offset..slice.offset + n_rows * slice.dtype.size()], slice.dtype)
    };
    let mut rows = recovered.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default()));
    let mut sums = Vec::with_capacity(n_tasks);
    for task in 0..n_tasks {
        let (mut error, mut norm) = (0.0, 0.0);
        for segment in 0..chunk.layout.segments.len() {
            let (base, tuned) = (decode(segment, 0), decode(segment, task + 1));
            for ((base, tuned), recovered) in base.iter().zip(&tuned).zip(rows.by_ref()) {
                let delta = f64::from(tuned - base);
                error += (f64::from(recovered) - delta).powi(2);
                norm += delta * delta;
            }
        }
        sums.push((error, norm));
    }
    sums
}
