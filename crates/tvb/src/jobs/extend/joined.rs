//! What is known of all tasks of a basis that was not coded, and what its manifest says of them after an extension.

use super::estimates::AllGrams;
use super::newcomers::{Newcomers, fingerprint_of};
use super::options::ExtendOptions;
use super::remade::Remade;
use super::side_by_side::SideBySide;
use crate::basis::Basis;
use crate::basis::coefficients::GramErrors;
use crate::basis::history::Happened;
use crate::basis::manifest::{AtomRecord, Manifest, TaskRecord};
use crate::basis::regrown::Regrown;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::gram::PER_TENSOR_BYTES;
use crate::ops::{Per, unpack_triangle};
use crate::shown::shown_path;
use crate::solve::{Assessment, Gram, JoinedAtoms, JoinedError, Joining, Old, Solved, assess};
use std::collections::HashMap;
use std::path::Path;
use tvb_kernels::{Dtype as Float, triangle_len};

/// Everything that the new manifest follows from, beside the atoms.
pub(super) struct Joined<'a> {
    pub(super) basis: &'a Basis,
    pub(super) newcomers: &'a Newcomers,
    pub(super) beside: &'a SideBySide,
    pub(super) frozen: &'a [HashMap<String, Digest>],
    pub(super) joining: &'a Joining,
    pub(super) remade: &'a Remade,
    pub(super) appends: bool,
}

/// What is known of all tasks: from the atoms, or from a Gram file.
///
/// # Errors
/// Rejected: a Gram file of other inputs, an old task whose error is not known.
pub(super) fn known(
    basis: &Basis,
    newcomers: &Newcomers,
    beside: &SideBySide,
    frozen: &[HashMap<String, Digest>],
    options: &ExtendOptions,
) -> Result<(Joining, AllGrams)> {
    let columns = beside.grams.total();
    let gram = basis.total_gram().ok_or_else(|| Error::failed("a basis without its Gram matrix"))?;
    let old = Old { gram: &gram, encode: &basis.coefficients.encode, decode: &basis.coefficients.decode };
    if let Some(path) = &options.gram {
        let all = AllGrams::of_file(basis, path, &fingerprints(newcomers, beside, frozen))?;
        return Ok((Joining::of_all(columns, old, &all.sum_of(|_| true))?, all));
    }
    // What storing each atom has lost of it, at most.
    let lost = |m: usize| rounding(dtype_of(basis), columns[(m, m)].max(0.0).sqrt(), beside.n_rows());
    let lost: Vec<f64> = (0..basis.n_atoms()).map(lost).collect();
    let joining = if basis.manifest.history.is_empty() {
        Joining::exact(columns, old, &lost)?
    } else {
        let lengths = |(task, record): (usize, &TaskRecord)| {
            let most = record.error_length().or_else(|| record.norm.filter(|norm| *norm == 0.0));
            let expected = record.relative_error.zip(record.norm).map(|(error, norm)| error.max(0.0).sqrt() * norm);
            let unknown = || Error::rejected(format!("{}: errors of all tasks expected", shown_path(&basis.folder)));
            let most = most.ok_or_else(unknown)?;
            // A bound has it already; an error is that before rounding.
            let is_error = record.error_bound.is_none();
            let weights = old.decode.column(task).iter().zip(&lost);
            let rounded: f64 = if is_error { weights.map(|(weight, lost)| weight.abs() * lost).sum() } else { 0.0 };
            Ok((expected.unwrap_or(most).min(most), most + rounded))
        };
        let off: Vec<(f64, f64)> = basis.manifest.tasks.iter().enumerate().map(lengths).collect::<Result<_>>()?;
        Joining::estimated(columns, old, &off)?
    };
    let all = estimated(basis, beside, &joining)?;
    Ok((joining, all))
}

/// The Gram matrix of all tasks, where what old tasks and newcomers have in common is what the atoms hold of it.
fn estimated(basis: &Basis, beside: &SideBySide, joining: &Joining) -> Result<AllGrams> {
    let (n_old, n_new) = (joining.n_old(), joining.n_new());
    let (n_tasks, n_columns) = (n_old + n_new, joining.n_atoms() + n_new);
    // Tensors that no task moved have a matrix of zeros and are not stored.
    let is_moved = |gram: &&Matrix| (0..n_old).any(|t| gram[(t, t)] > 0.0);
    let moved: Vec<&Matrix> = basis.coefficients.grams.iter().filter(is_moved).collect();
    let n_stored = basis.stored_tensors().len();
    let is_small = n_tasks.saturating_mul(n_tasks).saturating_mul(8 * n_stored) <= PER_TENSOR_BYTES;
    let total = basis.total_gram();
    let by_tensor = beside.grams.per == Per::Tensor && moved.len() == n_stored && is_small;
    let slots: Vec<(Matrix, &Matrix)> = if by_tensor {
        let of = |slot: usize| unpack_triangle(beside.grams.triangle(slot), n_columns);
        moved.into_iter().enumerate().map(|(slot, old)| (of(slot), old)).collect()
    } else {
        total.iter().map(|old| (beside.grams.total(), old)).collect()
    };
    let mut triangles = vec![0.0; slots.len() * triangle_len(n_tasks)];
    for (triangle, (columns, old)) in triangles.chunks_exact_mut(triangle_len(n_tasks)).zip(&slots) {
        let across = joining.across(columns);
        for i in 0..n_tasks {
            for j in 0..=i {
                triangle[triangle_len(i) + j] = match (i.checked_sub(n_old), j.checked_sub(n_old)) {
                    (None, _) => old[(i, j)],
                    (Some(new), None) => across[(new, j)],
                    (Some(new), Some(other)) => columns[(n_columns - n_new + new, n_columns - n_new + other)],
                };
            }
        }
    }
    let mut all = AllGrams { n_tasks, triangles, errors: None, notes: Vec::new() };
    let before = all.sum_of(|_| true);
    all.shrink(n_old);
    let after = all.sum_of(|_| true);
    let bounds = joining.bounds();
    let mut errors = basis.coefficients.gram_errors.as_ref().map_or(GramErrors::none(n_tasks), |known| {
        let of = |matrix: &Matrix| {
            Matrix::from_fn(n_tasks, n_tasks, |i, j| if i.max(j) < n_old { matrix[(i, j)] } else { 0.0 })
        };
        GramErrors { standard: of(&known.standard), bound: of(&known.bound) }
    });
    let exact = is_exact(basis);
    for (new, task) in (0..n_new).flat_map(|new| (0..n_old).map(move |task| (new, task))) {
        let (i, j) = (n_old + new, task);
        let bound = if exact { 0.0 } else { bounds[(new, task)] } + (before[(i, j)] - after[(i, j)]).abs();
        (errors.bound[(i, j)], errors.bound[(j, i)]) = (bound, bound);
    }
    all.errors = (errors.n_pairs() > 0).then_some(errors);
    Ok(all)
}

/// How atoms are stored.
pub(super) fn dtype_of(basis: &Basis) -> Float {
    basis.manifest.atoms.first().and_then(|atom| atom.dtype.float()).unwrap_or(Float::F32)
}

/// The most that storing a vector of this length and so many rows loses of it; nothing that matters in f32.
fn rounding(dtype: Float, length: f64, n_rows: u64) -> f64 {
    match dtype {
        Float::F32 | Float::F64 => 0.0,
        _ => dtype.unit_roundoff() * length + 0.5 * dtype.least() * (n_rows as f64).sqrt(),
    }
}

/// Whether the atoms are the tasks to the last bit that matters.
fn is_exact(basis: &Basis) -> bool {
    basis.manifest.method.name == "identity" && dtype_of(basis) == Float::F32
}

/// Name and fingerprint of each newcomer.
fn fingerprints(
    newcomers: &Newcomers,
    beside: &SideBySide,
    frozen: &[HashMap<String, Digest>],
) -> Vec<(String, Digest)> {
    let tasks = newcomers.tasks.iter().zip(frozen.iter().skip(1)).enumerate();
    tasks
        .map(|(new, (task, frozen))| {
            let frozen = frozen.iter().map(|(name, digest)| (name.as_str(), *digest));
            (task.name.clone(), fingerprint_of(task, beside.of_newcomer(new).chain(frozen)))
        })
        .collect()
}

/// Writes the coefficients into `folder`, and answers the manifest and what the user should know.
///
/// # Errors
/// Rejected: what is no Gram matrix. Failed: I/O.
pub(super) fn describe(
    joined: &Joined<'_>,
    made: &JoinedAtoms,
    all: AllGrams,
    atoms: Vec<AtomRecord>,
    mut notes: Vec<String>,
    folder: &Path,
) -> Result<(Manifest, Vec<String>)> {
    let Joined { basis, newcomers, remade, .. } = *joined;
    let coefficients = made.coefficients.clone();
    let gram = Gram::new(all.sum_of(|_| true))?.over(joined.beside.n_rows());
    let solved = Solved { assessment: assess(&gram, &coefficients)?, gram, coefficients };
    notes.extend(all.notes.iter().cloned());
    if !joined.appends {
        notes.extend(solved.coefficients.notes.iter().cloned());
    }
    if all.errors.is_some() {
        notes.push(
            "what old tasks and newcomers have in common is known as far as the atoms hold it: the rest is taken for none, and the \
             errors of old tasks are expected ones, with the most that they can be"
                .into(),
        );
    }
    if dtype_of(basis) != Float::F32 && !joined.appends {
        notes.push(format!(
            "atoms in {} are rounded again with every extension: f32 is better for a basis that grows",
            crate::checkpoint::Dtype::from(dtype_of(basis)).to_string().to_lowercase()
        ));
    }
    let names = newcomers.tasks.iter().map(|task| task.name.clone()).collect();
    let regrown = Regrown {
        before: basis,
        solved: &solved,
        triangles: &all.triangles,
        errors: all.errors.as_ref(),
        unbiased: false,
        tasks: tasks(joined, made, &solved.assessment, all.errors.is_none()),
        atoms,
        codes: None,
        encode: &solved.coefficients.encode,
        recovered: None,
        dtype: dtype_of(basis),
    };
    let mut now = regrown.describe(folder, (Happened::Extended, names), notes.clone())?;
    if let Some(options) = now.method.options.as_object_mut() {
        let method = serde_json::to_value(&remade.method);
        options
            .insert("options".into(), method.map_err(|error| Error::failed(format!("a method's options: {error}")))?);
    }
    if !joined.appends {
        now.notes = solved.coefficients.notes.clone();
    }
    Ok((now, notes))
}

/// The records of all tasks: old ones as they are to be expected now, with the most that they can be off by, new ones as they are.
fn tasks(joined: &Joined<'_>, made: &JoinedAtoms, assessment: &Assessment, is_exact: bool) -> Vec<TaskRecord> {
    let Joined { basis, newcomers, joining, .. } = *joined;
    let errors = joining.errors(made);
    let n_old = basis.n_tasks();
    let over = |squared: f64, norm: f64| if norm > 0.0 { squared / (norm * norm) } else { 0.0 };
    let decode = &made.coefficients.decode;
    // What storing the atoms loses of a task, at most.
    let lost = |t: usize| -> f64 {
        let of_atom = |length: &f64| rounding(dtype_of(basis), *length, joined.beside.n_rows());
        decode.column(t).iter().zip(&assessment.atom_norms).map(|(w, length)| w.abs() * of_atom(length)).sum()
    };
    let with = |record: TaskRecord, gain: f64, error: &JoinedError, t: usize| {
        let norm = assessment.norms[t];
        let relative = over(error.expected, norm);
        let most = error.bound.max(0.0).sqrt() + lost(t);
        TaskRecord {
            relative_error: Some(relative),
            gain: Some(gain),
            noise: Some((relative - (1.0 - gain).powi(2)).max(0.0)),
            error_bound: (!is_exact && norm > 0.0).then(|| most / norm),
            ..record
        }
    };
    let old = basis.manifest.tasks.iter().enumerate().map(|(t, record)| match joined.appends {
        // Its atoms and its weights are what they were.
        true => {
            let most =
                record.error_length().map(|length| length + if record.error_bound.is_none() { lost(t) } else { 0.0 });
            let bound = most.map(|most| most / assessment.norms[t]).filter(|bound| !is_exact && bound.is_finite());
            TaskRecord { error_bound: record.error_bound.or(bound), ..record.clone() }
        }
        false => with(record.clone(), assessment.gains[t], &errors[t], t),
    });
    let prints = fingerprints(newcomers, joined.beside, joined.frozen);
    let back = joining.newcomers_back(made);
    let new = newcomers.tasks.iter().zip(prints).enumerate().map(|(new, (task, (name, fingerprint)))| {
        let t = n_old + new;
        let norm = assessment.norms[t];
        let gain = if norm > 0.0 { back[new] / (norm * norm) } else { 1.0 };
        let record = TaskRecord {
            name,
            source: Some(task.checkpoint.source()),
            fingerprint: Some(fingerprint),
            norm: Some(norm),
            relative_error: None,
            gain: None,
            noise: None,
            error_bound: None,
        };
        with(record, gain, &errors[t], t)
    });
    old.chain(new).collect()
}
