//! Is a basis what it was, and is it as good as it says? Checksums, and with the originals the true errors.

use crate::basis::Basis;
use crate::basis::atoms::{Atoms, coded, factors, plain};
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::decode::CodedAtoms;
use crate::ops::measure::{Recovery, SquareError, measure};
use crate::pass::{DigestOnly, Folded, Pass, Reads, Runtime};
use crate::progress::Progress;
use crate::solve::Coding;
use std::collections::HashMap;

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
/// Interrupted. Usage: a memory cap that leaves no room for a chunk. Damage and unreadable files are the answer.
pub fn verify_files(basis: &Basis, runtime: &Runtime, progress: &dyn Progress) -> Result<Vec<FileCheck>> {
    let manifest = &basis.manifest;
    let intact = |file: &str| FileCheck { file: file.to_owned(), damage: None };
    let mut checks = vec![intact(crate::basis::manifest::FILE_NAME), intact(&manifest.coefficients.file)];
    progress.begin("verify", manifest.stored_bytes());
    if let Some(shared) = manifest.shared() {
        let damage = match basis.sides() {
            Ok(_) => None,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Usage) => return Err(error),
            Err(error) => Some(error.message().to_owned()),
        };
        checks.push(FileCheck { file: shared.file.clone(), damage });
    }
    for (index, record) in manifest.atoms.iter().enumerate() {
        let damage = match atom_checksum(basis, index, runtime, progress) {
            Ok(found) if found == record.checksum => None,
            Ok(found) => Some(format!("checksum {} expected, {found} found", record.checksum)),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Usage) => return Err(error),
            Err(error) => Some(error.message().to_owned()),
        };
        checks.push(FileCheck { file: record.file.clone(), damage });
    }
    progress.finish();
    Ok(checks)
}

fn atom_checksum(basis: &Basis, index: usize, runtime: &Runtime, progress: &dyn Progress) -> Result<Digest> {
    if basis.manifest.coded.is_some() {
        return coded_checksum(basis, index, runtime, progress);
    }
    let atom = basis.open_atom(index)?;
    if basis.manifest.factors.is_some() {
        return factors_checksum(basis, &atom, runtime, progress);
    }
    let names: Vec<String> = atom.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let plan = Plan::of_columns(atom.clone(), Vec::new(), &names)?;
    let table = digests_of(&plan, runtime, progress)?;
    plain::checksum(&atom, table.column(0))
}

/// The checksum of an adapter: of its factors, which are in memory, and of what it has as a whole.
fn factors_checksum(basis: &Basis, atom: &Checkpoint, runtime: &Runtime, progress: &dyn Progress) -> Result<Digest> {
    let dense = atom.tensors().iter().filter(|tensor| !tensor.is_delta());
    let dense: Vec<String> = dense.map(|tensor| tensor.name.clone()).collect();
    let plan = Plan::of_columns(atom.clone(), Vec::new(), &dense)?;
    let table = digests_of(&plan, runtime, progress)?;
    let digests: HashMap<&str, Digest> =
        plan.tensors.iter().map(|tensor| tensor.name.as_str()).zip(table.column(0)).collect();
    let found = factors::checksum(atom, basis.stored_tensors(), |name| digests.get(name).copied())?;
    found.ok_or_else(|| Error::failed(format!("{}: not all of it was read", atom.path().display())))
}

/// The checksum of a coded atom: of its codes, and of the few tensors that are not coded.
fn coded_checksum(basis: &Basis, index: usize, runtime: &Runtime, progress: &dyn Progress) -> Result<Digest> {
    let atoms = basis.coded_atoms(index..index + 1)?;
    let [atom] = atoms.columns.as_slice() else { return Err(Error::failed("one atom expected")) };
    let mut digests: HashMap<String, Digest> = HashMap::new();
    let codes = atoms.plan(atoms.zeros()?, Vec::new(), &[0])?;
    let raw = Plan::of_columns(atom.checkpoint.clone(), Vec::new(), &atoms.names(false));
    let raw = if atoms.n_own == 1 { Some(raw?) } else { None };
    for (plan, column) in [(Some(codes), 1), (raw, 0)] {
        let Some(plan) = plan else { continue };
        let table = digests_of(&plan, runtime, progress)?;
        digests.extend(plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(table.column(column)));
    }
    let is_own = atoms.n_own == 1;
    let found = coded::checksum(&atom.checkpoint, &atoms.tensors, is_own, |name| digests.get(name).copied())?;
    found.ok_or_else(|| Error::failed(format!("{}: not all of it was read", atom.checkpoint.path().display())))
}

/// Digests of all tensors of a plan, in all columns.
fn digests_of(plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<TableOfDigests> {
    let n_digests = plan.n_digests();
    let mut table = TensorDigests::new(n_digests);
    let fold = |Folded { blocks, digests, .. }: Folded<'_, ()>| {
        for (block, columns) in blocks.iter().zip(digests.chunks_exact(n_digests)) {
            table.push(block.tensor, columns);
        }
        Ok(())
    };
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&DigestOnly, runtime, progress, fold)?;
    Ok(table.finish(plan.tensors.len()))
}

/// A task's error as measured on the data, beside the one predicted from the Gram matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueError {
    /// The task.
    pub task: String,
    /// ‖τ̂ − τ‖²/‖τ‖² from the stored atoms and the originals. That of a task that did not move is over the mean ‖τ‖² of all
    /// the basis' tasks; 0 where it is recovered as such.
    pub measured: f64,
    /// ⟨τ, τ̂⟩/‖τ‖²: 1 is right, less is shrunk; `None` for a task that did not move.
    pub gain: Option<f64>,
    /// As the manifest has it, before storage rounding.
    pub predicted: Option<f64>,
}

impl TrueError {
    /// ‖τ̂ − gain·τ‖²/‖τ‖².
    pub fn noise(&self) -> Option<f64> {
        self.gain.map(|gain| (self.measured - (1.0 - gain).powi(2)).max(0.0))
    }
}

/// Reads the originals and the atoms once and measures every task's error.
///
/// # Errors
/// Rejected: originals that do not fit the basis. Failed: I/O. Interrupted.
pub fn verify_errors(basis: &Basis, plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<Vec<TrueError>> {
    let names = basis.task_names();
    let which: Vec<usize> =
        plan.tasks.iter().map(|task| crate::arithmetic::find_task(&names, &task.name)).collect::<Result<_>>()?;
    let decode = &basis.coefficients.decode;
    let weights: Vec<Vec<f64>> =
        which.iter().map(|&task| (0..decode.n_rows()).map(|m| decode[(m, task)]).collect()).collect();
    // As the basis sees them, which may be made from more tasks.
    let fit = &basis.manifest.fit;
    let (base, tasks, note) = basis.columns(plan)?;
    note.iter().for_each(|note| progress.note(note));
    let base = fit.seen(&base)?;
    let seen = |task: &Task| Ok(Task { checkpoint: fit.seen(&task.checkpoint)?, ..task.clone() });
    let mut columns = tasks.iter().map(seen).collect::<Result<Vec<Task>>>()?;
    let atoms = basis.atoms()?;
    let (recovery, weights) = match &atoms {
        Atoms::Coded(atoms) => {
            let coding = basis.coding().ok_or_else(|| Error::failed("coded atoms without their coding"))?;
            let measured = measure_coded((&base, &columns), atoms, &coding, &weights, runtime, progress)?;
            return Ok(true_errors(basis, &which, &measured));
        }
        Atoms::Plain(atoms) => {
            columns.extend(atoms.iter().cloned());
            (Recovery::Atoms, weights)
        }
        Atoms::Generated(atoms) => {
            let raw_weights = weights.iter().map(|weights| atoms.raw_weights(weights)).collect();
            (Recovery::Generated(&atoms.raw), raw_weights)
        }
    };
    let all = Plan::of_columns(base, columns, basis.stored_tensors())?;
    let measured = measure(&all, recovery, &weights, runtime, progress)?;
    Ok(true_errors(basis, &which, &measured))
}

/// The tensors that are not coded are measured apart from those that are.
fn measure_coded(
    (base, tasks): (&Checkpoint, &[Task]),
    atoms: &CodedAtoms,
    coding: &Coding,
    weights: &[Vec<f64>],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<SquareError>> {
    let n_tasks = weights.len();
    let all: Vec<usize> = (0..atoms.columns.len()).collect();
    let coded = atoms.plan(base.clone(), tasks.to_vec(), &all)?;
    let of_columns: Vec<Vec<f64>> = weights.iter().map(|weights| coding.column_weights(weights)).collect();
    let codes = Recovery::Codes { rates: &atoms.rates, seed: atoms.seed };
    let mut measured = vec![SquareError::default(); n_tasks];
    let raw_names = atoms.names(false);
    let columns = tasks.iter().chain(atoms.columns.iter().take(atoms.n_own)).cloned().collect();
    let raw = Plan::of_columns(base.clone(), columns, &raw_names)?;
    let parts = [(&coded, codes, of_columns.as_slice()), (&raw, Recovery::Atoms, weights)];
    for (plan, recovery, weights) in parts.into_iter().filter(|(plan, ..)| !plan.tensors.is_empty()) {
        let part = measure(plan, recovery, weights, runtime, progress)?;
        for (sum, part) in measured.iter_mut().zip(part) {
            *sum = sum.plus(part);
        }
    }
    Ok(measured)
}

fn true_errors(basis: &Basis, which: &[usize], measured: &[SquareError]) -> Vec<TrueError> {
    // As predicted errors are: those of a zero task are over the mean ‖τ‖² of all.
    let norms: Vec<f64> = basis.manifest.tasks.iter().filter_map(|task| task.norm.map(|norm| norm * norm)).collect();
    let mean = norms.iter().sum::<f64>() / norms.len().max(1) as f64;
    let relative = |error: f64, norm: f64| match (norm > 0.0, mean > 0.0) {
        _ if error == 0.0 => 0.0,
        (true, _) => error / norm,
        (false, true) => error / mean,
        (false, false) => f64::INFINITY,
    };
    let records = which.iter().filter_map(|&task| basis.manifest.tasks.get(task));
    let errors = measured.iter().zip(records).map(|(found, record)| TrueError {
        task: record.name.clone(),
        measured: relative(found.error, found.norm),
        gain: found.gain(),
        predicted: record.relative_error,
    });
    errors.collect()
}
