//! What a basis says of itself after tasks have joined or left.

use super::coefficients::GramErrors;
use super::history::{Estimates, Event, Happened};
use super::manifest::{Manifest, VERSION};
use crate::matrix::Matrix;

/// Marks `now`, which `before` has become, as grown: its version, its history, and what of its Gram matrix is estimated. All of it but
/// that is filled in already.
pub(crate) fn mark_grown(
    now: &mut Manifest,
    before: &Manifest,
    (event, tasks): (Happened, Vec<String>),
    estimates: Option<Estimates>,
    notes: Vec<String>,
) {
    now.version = VERSION;
    now.tool = crate::TOOL.into();
    now.estimates = estimates;
    now.history = match before.history.as_slice() {
        [] => {
            let names = before.tasks.iter().map(|task| task.name.clone()).collect();
            vec![Event { tool: before.tool.clone(), ..event_of(before, Happened::Made, names, before.notes.clone()) }]
        }
        known => known.to_vec(),
    };
    let event = event_of(now, event, tasks, notes);
    now.history.push(event);
}

fn event_of(manifest: &Manifest, event: Happened, tasks: Vec<String>, notes: Vec<String>) -> Event {
    let errors: Vec<f64> = manifest.tasks.iter().filter_map(|task| task.relative_error).collect();
    let are_known = !errors.is_empty() && errors.len() == manifest.tasks.len();
    Event {
        event,
        tasks,
        tool: manifest.tool.clone(),
        n_tasks: manifest.tasks.len(),
        n_atoms: manifest.n_vectors(),
        bytes: manifest.stored_bytes(),
        addition: manifest.addition,
        mean_error: are_known.then(|| errors.iter().sum::<f64>() / errors.len() as f64),
        worst_error: are_known.then(|| errors.iter().copied().fold(0.0, f64::max)),
        n_estimated: manifest.estimates.as_ref().map_or(0, |estimates| estimates.n_pairs),
        notes,
    }
}

/// What the manifest says of the errors of a Gram matrix; `None` where all of it is exact.
pub(crate) fn estimates_of(errors: &GramErrors, gram: &Matrix, unbiased: bool) -> Option<Estimates> {
    let n = gram.n_rows();
    let pairs = || (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).filter(|&(i, j)| errors.is_estimate(i, j));
    let as_cosine = |matrix: &Matrix, (i, j): (usize, usize)| {
        let norms = (gram[(i, i)] * gram[(j, j)]).sqrt();
        if norms > 0.0 { matrix[(i, j)] / norms } else { 0.0 }
    };
    let n_pairs = errors.n_pairs();
    let largest = |matrix: &Matrix| pairs().map(|at| as_cosine(matrix, at)).fold(0.0, f64::max);
    let bound = largest(&errors.bound);
    (n_pairs > 0).then(|| Estimates {
        n_pairs,
        cosine_error: largest(&errors.standard),
        cosine_bound: bound.is_finite().then_some(bound),
        unbiased,
    })
}
