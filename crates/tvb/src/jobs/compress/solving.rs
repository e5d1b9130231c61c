//! Gram matrices → M, B and W, as the options say.

use super::options::CompressOptions;
use super::size::{Size, atoms_for_bytes, atoms_for_ratio};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::spectra::with_spectra;
use crate::matrix::Matrix;
use crate::ops::Grams;
use crate::ops::generated::RawColumns;
use crate::progress::{Progress, unless_cancelled};
use crate::solve::{self, Gram, Limit, Method, Parts, Solved, Storage};
use tvb_kernels::Engine;

/// The Gram matrix by what a code does with a tensor.
pub(super) fn parts_of(grams: &Grams) -> Parts {
    let (coded, raw) = grams.parted();
    Parts { coded, raw }
}

/// The options with a budget replaced by what it comes to: the rung of coded tasks, or M and the storage of mixtures whose
/// storage was left open. Other sizes stay as they are.
///
/// # Errors
/// Rejected: nothing keeps to the budget; says what would. Interrupted.
pub(super) fn chosen(
    plan: &Plan,
    options: &CompressOptions,
    grams: Option<&Grams>,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<CompressOptions> {
    let limit = match options.size {
        Size::MaxBytes(limit) => {
            let all_bytes = plan.n_rows().saturating_mul(4).saturating_mul(plan.tasks.len() as u64);
            Limit::Bytes(limit.of(grams.map_or(all_bytes, Grams::full_bytes)))
        }
        Size::MaxError(target) => Limit::Error(target),
        Size::Atoms(_) | Size::Ratio(_) => return Ok(options.clone()),
    };
    let n_tasks = plan.tasks.len();
    let moves = |index: usize| grams.and_then(|grams| grams.tensors.get(index)).is_none_or(|tensor| !tensor.frozen);
    let planned = plan.tensors.iter().enumerate().filter(|(index, _)| moves(*index));
    let shapes: Vec<Vec<usize>> = planned.map(|(_, tensor)| tensor.shape.clone()).collect();
    let coding = options.coding.clone().unwrap_or_default();
    let kept: Vec<Vec<f64>> = coding.kept_edits(n_tasks)?.into_iter().map(|edit| edit.alpha).collect();
    if let (Method::Identity, Some(coding)) = (&options.method, &options.coding) {
        let rung = match limit {
            Limit::Bytes(limit) => solve::rung_for_bytes(limit, |rung| rung.bytes(n_tasks, &shapes), n_tasks)?,
            Limit::Error(target) => {
                let grams = grams.ok_or_else(|| Error::failed("a target without the Gram matrix"))?;
                let gram = gram_of(grams, options, engine, progress)?;
                solve::rung_for_error(&gram, &parts_of(grams), &kept, target)?
            }
        };
        if let Some(warning) = rung.warning() {
            progress.warn(&format!("{rung} bits are what fits: {warning}"));
        }
        return Ok(options.clone().coding(Some(coding.clone().rung(rung))).size(Size::Ratio(1.0)));
    }
    let storages = match &options.coding {
        _ if options.any_storage => Storage::all(),
        Some(coding) => vec![Storage::Coded(coding.rung)],
        None => return Ok(options.clone()),
    };
    let grams = grams.ok_or_else(|| Error::failed("a budget for mixtures without the Gram matrix"))?;
    let (gram, parts) = (gram_of(grams, options, engine, progress)?, parts_of(grams));
    let wanted = options.clone();
    let found = unless_cancelled(progress, move |go_on| {
        let options = wanted.solve_options(1);
        solve::mixture_for(&gram, &parts, &wanted.method, &options, &storages, &kept, &shapes, limit, go_on)
    })?;
    let options = options.clone().size(Size::Atoms(found.n_atoms));
    Ok(match found.storage {
        Storage::Plain(dtype) => options.dtype(dtype),
        Storage::Coded(rung) => options.coding(Some(coding.rung(rung))),
    })
}

/// The Gram matrix of everything, with the spectra that solving it will ask for where the engine's device finds them.
///
/// # Errors
/// Rejected: what is no Gram matrix. Interrupted.
pub(super) fn gram_of(
    grams: &Grams,
    options: &CompressOptions,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<Gram> {
    let gram = Gram::new(grams.total())?.over(grams.n_moved_rows());
    let balance = options.solve_options(1).balance;
    let has_target = matches!(options.size, Size::MaxError(_));
    with_spectra(gram, vec![options.method.clone()], (balance, has_target), engine, progress)
}

/// Chooses M and solves, from the Gram matrices alone; eigendecompositions are found on `engine`.
///
/// # Errors
/// Rejected: M outside 1..T, or a target that no M meets. Interrupted.
pub fn solve_for(grams: &Grams, options: &CompressOptions, engine: &Engine, progress: &dyn Progress) -> Result<Solved> {
    with_atoms(grams, options, engine, progress, |gram, n_atoms, options, go_on| {
        let coefficients = solve::solve(&gram, &options.method, &options.solve_options(n_atoms), go_on)?;
        let assessment = solve::assess(&gram, &coefficients)?;
        Ok(Solved { gram, coefficients, assessment })
    })
}

/// The `random` method: its atoms are no mixtures of the tasks, so one more pass has measured them on the data.
pub(super) fn solve_random(
    gram: Gram,
    raw: &RawColumns,
    (raw_gram, raw_task): (Matrix, Matrix),
    progress: &dyn Progress,
) -> Result<Solved> {
    let seed = raw.generator.seed;
    unless_cancelled(progress, move |_| {
        let coefficients = solve::random_coefficients(&gram, seed, &raw_gram, &raw_task)?;
        let assessment = solve::assess(&gram, &coefficients)?;
        Ok(Solved { gram, coefficients, assessment })
    })
}

/// M, as the size says, and the Gram matrix of everything that says it.
pub(super) fn choose_atoms(
    grams: &Grams,
    options: &CompressOptions,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<(Gram, usize)> {
    with_atoms(grams, options, engine, progress, |gram, n_atoms, _, _| Ok((gram, n_atoms)))
}

/// Chooses M and goes on with it, for as long as the user does not ask to stop.
fn with_atoms<T: Send + 'static>(
    grams: &Grams,
    options: &CompressOptions,
    engine: &Engine,
    progress: &dyn Progress,
    then: impl FnOnce(Gram, usize, &CompressOptions, &dyn Fn(f64) -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let sizes = (grams.moved_bytes(options.dtype.into()), grams.full_bytes());
    let gram = gram_of(grams, options, engine, progress)?;
    let options = options.clone();
    unless_cancelled(progress, move |go_on| {
        let n_atoms = choose(&gram, sizes, &options, go_on)?;
        then(gram, n_atoms, &options, go_on)
    })
}

fn choose(
    gram: &Gram,
    (moved_bytes, full_bytes): (u64, u64),
    options: &CompressOptions,
    go_on: &dyn Fn(f64) -> bool,
) -> Result<usize> {
    let n_tasks = gram.n_tasks();
    Ok(match options.size {
        _ if options.method.fixed_atoms(n_tasks).is_some() => n_tasks,
        Size::Atoms(n_atoms) => n_atoms,
        Size::Ratio(ratio) => atoms_for_ratio(ratio, n_tasks)?,
        Size::MaxError(target) => {
            solve::atoms_for_error(gram, &options.method, &options.solve_options(1), target, go_on)?
        }
        Size::MaxBytes(limit) => atoms_for_bytes(limit.of(full_bytes), moved_bytes, n_tasks, &options.method)?,
    })
}
