//! The solvers' eigendecompositions on the device that a job runs on: all that are known to be needed, as one batch, before the
//! solve begins.
//!
//! The engine says which orders its device takes. Everything else, and everything on the CPU engine, is left to the solver, which
//! finds on the CPU what it asks for. A device that fails is reopened once; where that is no help the CPU is enough.
//!
//! Where it gains: nowhere much. What the device finds in f32 the host refines to f64, with products of T × T matrices that
//! take about as long as its own decomposition, so one matrix is never faster; see `docs/methods.md`.

use crate::error::Result;
use crate::matrix::Matrix;
use crate::progress::{Progress, unless_cancelled};
use crate::solve::{Gram, Method, WantedSpectrum, wanted_spectra};
use std::collections::BTreeMap;
use tvb_kernels::{Eigh, Engine, KernelError};

/// Lets the engine's device find the spectra that solving `gram` by these methods asks for, and leaves them with `gram`; `balance`
/// where tasks are scaled to one length, `has_target` where M is to be found for an error. Answers with what the user should
/// be told: that the device failed, or what it got wrong.
pub fn find_spectra(
    gram: &Gram,
    methods: &[Method],
    (balance, has_target): (bool, bool),
    engine: &Engine,
) -> Option<String> {
    if !engine.decomposes(gram.n_tasks()) {
        return None;
    }
    let wanted = wanted_spectra(gram, methods, balance, has_target);
    find(&wanted.into_iter().map(|one| (gram, one)).collect::<Vec<_>>(), gram.n_tasks(), engine)
}

/// A Gram matrix with those spectra, for as long as the user does not ask to stop; what there is to be told goes to `progress`.
///
/// # Errors
/// Interrupted, once the user asked to stop.
pub fn with_spectra(
    gram: Gram,
    methods: Vec<Method>,
    options: (bool, bool),
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<Gram> {
    if !engine.decomposes(gram.n_tasks()) {
        return Ok(gram);
    }
    let engine = engine.clone();
    let (gram, warning) = unless_cancelled(progress, move |_| {
        let warning = find_spectra(&gram, &methods, options, &engine);
        Ok((gram, warning))
    })?;
    warning.iter().for_each(|warning| progress.warn(warning));
    Ok(gram)
}

/// Finds the spectra of several Gram matrices themselves, those of one order as one batch, and answers with what the user should
/// be told.
pub fn find_own_spectra(grams: &[&Gram], engine: &Engine) -> Vec<String> {
    let mut by_order: BTreeMap<usize, Vec<(&Gram, WantedSpectrum)>> = BTreeMap::new();
    for &gram in grams {
        let wanted = wanted_spectra(gram, &[], false, false);
        by_order.entry(gram.n_tasks()).or_default().extend(wanted.into_iter().map(|one| (gram, one)));
    }
    by_order.iter().filter_map(|(&n, wanted)| find(wanted, n, engine)).collect()
}

/// Finds spectra of matrices of order n, if that is for the engine's device.
fn find(wanted: &[(&Gram, WantedSpectrum)], n: usize, engine: &Engine) -> Option<String> {
    if wanted.is_empty() || !engine.decomposes(n) {
        return None;
    }
    let matrices: Vec<&Matrix> = wanted.iter().map(|(_, one)| one.matrix()).collect();
    let (found, warning) = match decompose(&matrices, n, engine) {
        Ok(found) => found,
        Err(error) => return Some(on_cpu_instead(&error)),
    };
    for ((gram, one), Eigh { values, vectors }) in wanted.iter().zip(found) {
        // Column-major: entry (i, k) is eigenvector k's i-th.
        let vectors = Matrix::from_fn(n, n, |i, k| vectors.get(k * n + i).copied().unwrap_or(f64::NAN));
        one.give(gram, values, vectors);
    }
    warning
}

/// Decompositions of symmetric matrices of order n by the engine, and what the user should be told.
///
/// # Errors
/// Those of the engine.
pub(super) fn decompose(
    matrices: &[&Matrix],
    n: usize,
    engine: &Engine,
) -> std::result::Result<(Vec<Eigh>, Option<String>), KernelError> {
    let entries: Vec<f64> = matrices.iter().flat_map(|matrix| matrix.columns().flatten().copied()).collect();
    let n_on_host = || if let Engine::Gpu(engine) = engine { engine.n_eigh_on_host() } else { 0 };
    let before = n_on_host();
    let mut reopened = None;
    let found = match (engine.eigh(&entries, n, matrices.len()), engine) {
        // As a pass does: once, so that the result has the bits of an undisturbed run.
        (Err(error), Engine::Gpu(gpu)) if error.is_device_fault() && gpu.rebuild().is_ok() => {
            reopened = Some(format!("{error}; the device was reopened for the eigendecompositions"));
            engine.eigh(&entries, n, matrices.len())?
        }
        (found, _) => found?,
    };
    tracing::debug!(n, n_matrices = matrices.len(), engine = %engine.name(), "eigendecompositions");
    let warning = match n_on_host().saturating_sub(before) {
        0 => reopened,
        n_wrong => Some(format!(
            "{n_wrong} of {} eigendecompositions by {} did not pass the check; the CPU did them",
            matrices.len(),
            engine.name()
        )),
    };
    Ok((found, warning))
}

/// What the user is told where a device failed.
pub(super) fn on_cpu_instead(error: &KernelError) -> String {
    format!("{error}; the CPU does the eigendecompositions")
}
