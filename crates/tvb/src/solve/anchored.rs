//! `anchored`: non-negative atoms whose sum is exactly proportional to the weighted sum of the tasks.
//!
//! The subspace must hold a, the task weights, so that V·a can be an exact sum of atoms; the other M − 1 directions are
//! then best chosen as the top eigenvectors u of G' = G − (Ga)(Ga)ᵀ/(aᵀGa), the Gram of what is left of the tasks once
//! V·a is taken out. The loss is what G' keeps beyond them, Σ_{k≥M} λk(G')/T². As G'a = 0, every u with λ > 0 is
//! orthogonal to a; the simplex construction turns (a, u1 … u(M−1)) into atoms without changing their span.

use super::deflate::{CANCELS, deflated, uncancelled};
use super::method::ExactOptions;
use super::problem::{Found, Problem};
use super::{exact, simplex};
use crate::error::{Error, Result};
use faer::Mat;

/// Below this part the sum is still used, but an f32 Gram knows its direction only roughly.
const NEARLY_CANCELS: f64 = 1e-5;

pub(super) fn solve(problem: &Problem<'_>, weights: Option<&[f64]>) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    if let Some(weights) = weights {
        check_weights(weights, n_tasks)?;
    }
    let a = weights.map_or_else(|| vec![1.0; n_tasks], <[f64]>::to_vec);
    let anchor = problem.stretched(&a);
    let remains = uncancelled(problem.gram, &anchor);
    let mut notes = Vec::new();
    if problem.gram.trace() > 0.0 && remains <= CANCELS {
        notes.push(
            "the task vectors cancel: their weighted sum is zero and gives no direction to anchor to; solved as 'exact'".to_owned(),
        );
        let found = exact::solve(problem, &ExactOptions::default())?;
        notes.extend(found.notes);
        return Ok(Found { notes, ..found });
    }
    if problem.gram.trace() > 0.0 && remains < NEARLY_CANCELS {
        notes.push(format!(
            "the task vectors nearly cancel: their weighted sum has {:.1e} of the length it could have, so addition is \
             only as exact as the Gram matrix",
            remains.sqrt()
        ));
    }
    if problem.n_atoms == n_tasks && a.iter().all(|&weight| weight == a[0]) {
        return Ok(Found { notes, ..Found::encoded(Mat::identity(n_tasks, n_tasks)) });
    }
    // Equal weights are asked for at every M of a table, so their eigenvectors are kept; others are not.
    let own;
    let spectrum = if weights.is_none() {
        problem.gram.kept().deflated.get_or_init(|| deflated(problem.gram, &anchor))
    } else {
        own = deflated(problem.gram, &anchor);
        &own
    };
    let mut directions = spectrum.vectors.view().subcols(0, problem.n_atoms - 1).to_owned();
    problem.unstretch(&mut directions);
    Ok(Found { notes, ..Found::encoded(simplex::cover(&a, directions.as_ref())) })
}

fn check_weights(weights: &[f64], n_tasks: usize) -> Result<()> {
    if weights.len() != n_tasks {
        return Err(Error::rejected(format!("{} task weights for {n_tasks} tasks: expected one each", weights.len())));
    }
    match weights.iter().position(|weight| !(weight.is_finite() && *weight > 0.0)) {
        Some(t) => Err(Error::rejected(format!(
            "weight of task number {t} is {}: expected a positive number, as 'anchored' mixes with positive weights",
            weights[t]
        ))
        .hint("leave the task out, or apply the weight when adding")),
        None => Ok(()),
    }
}
