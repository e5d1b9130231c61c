//! Is a basis what it was, and is it as good as it says? Checksums, and with the originals the true errors.

use crate::basis::Basis;
use crate::basis::atoms::{Atoms, plain};
use crate::columns::plan::Plan;
use crate::digest::{Digest, TensorDigests};
use crate::error::{ErrorKind, Result};
use crate::ops::measure::{Recovery, SquareError, measure};
use crate::pass::{DigestOnly, Folded, Pass, Reads, Runtime};
use crate::progress::Progress;

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
    progress.begin("verify", manifest.atoms.iter().map(|atom| atom.bytes).sum());
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
    let atom = basis.open_atom(index)?;
    let names: Vec<String> = atom.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let plan = Plan::of_columns(atom.clone(), Vec::new(), &names)?;
    let mut table = TensorDigests::new(1);
    let fold = |Folded { blocks, digests, .. }: Folded<'_, ()>| {
        blocks.iter().zip(digests).for_each(|(block, digest)| table.push(block.tensor, &[*digest]));
        Ok(())
    };
    let reads = Reads::new();
    Pass::over(&plan, runtime, &reads).visit(&DigestOnly, runtime, progress, fold)?;
    plain::checksum(&atom, table.finish(plan.tensors.len()).column(0))
}

/// A task's error as measured on the data, beside the one predicted from the Gram matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueError {
    /// The task.
    pub task: String,
    /// ‖τ̂ − τ‖²/‖τ‖² from the stored atoms and the originals. That of a task that did not move is over the mean ‖τ‖² of all
    /// the basis' tasks; 0 where it is recovered as such.
    pub measured: f64,
    /// As the manifest has it, before storage rounding.
    pub predicted: Option<f64>,
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
    let mut columns = plan.tasks.clone();
    let atoms = basis.atoms()?;
    let (recovery, weights) = match &atoms {
        Atoms::Plain(atoms) => {
            columns.extend(atoms.iter().cloned());
            (Recovery::Atoms, weights)
        }
        Atoms::Generated(atoms) => {
            let raw_weights = weights.iter().map(|weights| atoms.raw_weights(weights)).collect();
            (Recovery::Generated(&atoms.raw), raw_weights)
        }
    };
    let all = Plan::of_columns(plan.base.clone(), columns, basis.stored_tensors())?;
    let measured = measure(&all, recovery, &weights, runtime, progress)?;
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
    let errors = measured.iter().zip(records).map(|(&SquareError { error, norm }, record)| TrueError {
        task: record.name.clone(),
        measured: relative(error, norm),
        predicted: record.relative_error,
    });
    Ok(errors.collect())
}
