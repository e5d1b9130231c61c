//! `exact`: convex atoms that span the top-M eigenvectors of G, the autoencoder's optimum without training.
//!
//! Where that span holds a positive vector p, the simplex construction around p gives B ≥ 0 with the very same span, and
//! so the loss L*. p is taken as close as it can be to the projection of the all-ones vector: B·1 ∝ p, so the plain sum
//! of atoms is then the best approximation of Στ that the subspace has.
//!
//! Where there is none, some other subspace must do. Any B ≥ 0 has a non-negative a = B·1 in its span, and any subspace
//! with a positive a has a B ≥ 0 (again the simplex). So the best convex basis is the best *anchor*: minimise the loss of
//! `anchored`, Σ_{k≥M} λk(G'_a), over positive a alone (see [`super::anchor`]).

use super::method::ExactOptions;
use super::problem::{Found, Problem};
use super::{anchor, linear, positive, simplex};
use crate::error::Result;
use faer::Mat;

/// Where p lies outside the span of the kept eigenvectors to within this, it is moved towards them.
const OUTSIDE: f64 = 1e-6;

pub(super) fn solve(problem: &Problem<'_>, options: &ExactOptions) -> Result<Found> {
    let (gram, n_atoms) = (problem.gram, problem.n_atoms);
    let n_tasks = gram.n_tasks();
    if n_atoms == n_tasks {
        return Ok(Found::encoded(Mat::identity(n_tasks, n_tasks)));
    }
    let spectrum = gram.spectrum();
    // Directions of no length cost nothing: p may use them beside the top M.
    let free_from = spectrum.rank().max(n_atoms);
    let kept = spectrum.vectors.view().subcols(0, n_atoms);
    let free = spectrum.vectors.view().subcols(free_from, n_tasks - free_from);
    let basis =
        Mat::from_fn(
            n_tasks,
            n_atoms + free.ncols(),
            |t, k| {
                if k < n_atoms { kept[(t, k)] } else { free[(t, k - n_atoms)] }
            },
        );
    let wish = problem.stretched(&vec![1.0; n_tasks]);
    let Some(y) = positive::find(basis.as_ref(), &wish) else {
        return fallback(problem, options, &basis);
    };
    let mut p = linear::times(basis.as_ref(), &y);
    for (value, unreached) in p.iter_mut().zip(positive::unreached(basis.as_ref())) {
        *value = if unreached { 0.0 } else { value.max(0.0) };
    }
    let mut along = linear::times_transposed(kept, &p);
    if linear::norm(&along) < OUTSIDE * linear::norm(&p) {
        let top = linear::column(kept, 0);
        let room = p.iter().zip(&top).filter(|(_, u)| **u < 0.0).map(|(p, u)| p / -u).fold(1.0, f64::min);
        p.iter_mut().zip(&top).for_each(|(p, u)| *p += 0.5 * room * u);
        along = linear::times_transposed(kept, &p);
    }
    let mut directions = linear::product(kept, linear::complement(&along).as_ref());
    problem.unstretch(&mut directions);
    Ok(Found::encoded(simplex::cover(&problem.unstretched(&p), directions.as_ref())))
}

fn fallback(problem: &Problem<'_>, options: &ExactOptions, basis: &Mat<f64>) -> Result<Found> {
    let gram = problem.gram;
    let found = anchor::best(problem, options, basis)?;
    let mut directions = found.directions;
    problem.unstretch(&mut directions);
    let encode = simplex::cover(&problem.unstretched(&found.anchor), directions.as_ref());
    let bound = gram.spectrum().tail(problem.n_atoms);
    let note = format!(
        "no positive vector lies in the top {} eigenvectors, so no convex basis reaches the spectral bound; the best \
         found, by a numerical search from {} starts, leaves {:.3} % of the squared norms where the bound leaves {:.3} %",
        problem.n_atoms,
        found.n_starts,
        100.0 * found.left / gram.trace(),
        100.0 * bound / gram.trace(),
    );
    Ok(Found { notes: vec![note], ..Found::encoded(encode) })
}
