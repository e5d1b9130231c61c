//! Gram matrices → M, B and W, as the options say.

use super::options::CompressOptions;
use super::size::{Size, atoms_for_bytes, atoms_for_ratio};
use crate::columns::plan::Plan;
use crate::error::Result;
use crate::ops::Grams;
use crate::ops::generated::RawColumns;
use crate::ops::products::products;
use crate::pass::{Reads, Runtime};
use crate::progress::{Progress, unless_cancelled};
use crate::solve::{self, Gram, Solved};

/// Chooses M and solves, from the Gram matrices alone.
///
/// # Errors
/// Rejected: M outside 1..T, or a target that no M meets. Interrupted.
pub fn solve_for(grams: &Grams, options: &CompressOptions, progress: &dyn Progress) -> Result<Solved> {
    with_atoms(grams, options, progress, |gram, n_atoms, options, go_on| {
        let coefficients = solve::solve(&gram, &options.method, &options.solve_options(n_atoms), go_on)?;
        let assessment = solve::assess(&gram, &coefficients)?;
        Ok(Solved { gram, coefficients, assessment })
    })
}

/// The `random` method: its atoms are no mixtures of the tasks, so one more pass measures them on the data.
pub(super) fn solve_random(
    gram: Gram,
    raw: &RawColumns,
    plan: &Plan,
    grams: &Grams,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Solved> {
    let (raw_gram, raw_task) = products(raw, plan, grams, reads, runtime, progress)?;
    let seed = raw.generator.seed;
    unless_cancelled(progress, move |_| {
        let coefficients = solve::random_coefficients(&gram, seed, &raw_gram, &raw_task)?;
        let assessment = solve::assess(&gram, &coefficients)?;
        Ok(Solved { gram, coefficients, assessment })
    })
}

/// M, as the size says, and the Gram matrix of everything that says it.
pub(super) fn choose_atoms(grams: &Grams, options: &CompressOptions, progress: &dyn Progress) -> Result<(Gram, usize)> {
    with_atoms(grams, options, progress, |gram, n_atoms, _, _| Ok((gram, n_atoms)))
}

/// Chooses M and goes on with it, for as long as the user does not ask to stop.
fn with_atoms<T: Send + 'static>(
    grams: &Grams,
    options: &CompressOptions,
    progress: &dyn Progress,
    then: impl FnOnce(Gram, usize, &CompressOptions, &dyn Fn(f64) -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let total = grams.total();
    let moved_bytes = grams.moved_bytes(options.dtype.into());
    let n_rows = grams.n_moved_rows();
    let options = options.clone();
    unless_cancelled(progress, move |go_on| {
        let gram = Gram::new(total)?.over(n_rows);
        let n_atoms = choose(&gram, moved_bytes, &options, go_on)?;
        then(gram, n_atoms, &options, go_on)
    })
}

fn choose(gram: &Gram, moved_bytes: u64, options: &CompressOptions, go_on: &dyn Fn(f64) -> bool) -> Result<usize> {
    let n_tasks = gram.n_tasks();
    Ok(match options.size {
        _ if options.method.fixed_atoms(n_tasks).is_some() => n_tasks,
        Size::Atoms(n_atoms) => n_atoms,
        Size::Ratio(ratio) => atoms_for_ratio(ratio, n_tasks)?,
        Size::MaxError(target) => {
            solve::atoms_for_error(gram, &options.method, &options.solve_options(1), target, go_on)?
        }
        Size::MaxBytes(limit) => atoms_for_bytes(limit, moved_bytes, n_tasks, &options.method)?,
    })
}
