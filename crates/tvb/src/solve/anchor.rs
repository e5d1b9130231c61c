//! The best anchor: over positive a, the least loss of a convex basis whose sum is V·a.
//!
//! f(a) = Σ_{k≥M} λk(G'_a), G'_a = G − (Ga)(Ga)ᵀ/(aᵀGa), with eigenvectors u. Its gradient is
//! −2 Σ_{k≥M} λk uk (ukᵀw), w = Ga/(aᵀGa): at a fixed subspace the loss is least squares in a, and the subspace is at its
//! best, so only the direct term counts. a = exp(z), z boxed to ±[`REACH`] so that no atom is squeezed to nothing;
//! projected gradient steps of Barzilai–Borwein length, not every one of which must go down.

use super::deflate::{CANCELS, deflated, uncancelled};
use super::gram::Spectrum;
use super::linear;
use super::method::ExactOptions;
use super::problem::Problem;
use crate::error::Result;
use faer::{Mat, MatRef};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// |z| at most, so that no entry of a is below 1/55 of another. Tried 3.5 too: the loss falls by a few 1e-4 of tr G, the
/// atoms' condition grows a hundredfold.
const REACH: f64 = 2.0;
/// A step must beat the worst of so many losses before it.
const MEMORY: usize = 8;
/// Stop where no entry of the projected gradient, relative to tr G, is larger.
const FLAT: f64 = 1e-9;
/// Stop where so many steps together lowered the loss by less than [`STALL`] of tr G.
const PATIENCE: usize = 12;
const STALL: f64 = 1e-6;
/// Random starts are made up to this many tasks; beyond, the fixed ones are dear enough.
const RANDOM_TASKS: usize = 100;
/// One start's work is held to about so many multiplications, an eigendecomposition counted as 10·T³.
const WORK: f64 = 4e11;

/// What the search found.
pub(super) struct Best {
    /// a, \[n_tasks\], positive, in the problem's stretched coordinates.
    pub(super) anchor: Vec<f64>,
    /// [n_tasks, n_atoms − 1], in the same coordinates.
    pub(super) directions: Mat<f64>,
    /// Σ_{k≥M} λk(G'_a).
    pub(super) left: f64,
    /// How many starts were tried.
    pub(super) n_starts: usize,
}

/// Searches from the equal-weight anchor, from the projection of it into `basis` (the top eigenvectors) and from random
/// ones; the least loss wins, the earlier start on a tie.
pub(super) fn best(problem: &Problem<'_>, options: &ExactOptions, basis: &Mat<f64>) -> Result<Best> {
    let n_tasks = problem.gram.n_tasks();
    let n_random = if n_tasks > RANDOM_TASKS { 0 } else { options.restarts };
    let mut starts = vec![problem.stretched(&vec![1.0; n_tasks])];
    starts.push(projected(basis.as_ref(), &starts[0]));
    starts.push(linear::column(basis.as_ref(), 0).iter().map(|u| u.abs()).collect());
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    starts.extend((0..n_random).map(|_| {
        (0..n_tasks).map(|_| (Distribution::<f64>::sample(&StandardNormal, &mut rng)).exp()).collect::<Vec<f64>>()
    }));
    let affordable = (WORK / (10.0 * (n_tasks as f64).powi(3)) / starts.len() as f64).max(8.0) as usize;
    let max_steps = options.max_steps.min(affordable);
    let mut best: Option<(f64, Vec<f64>)> = None;
    for (number, start) in starts.iter().enumerate() {
        let report =
            |step: usize| problem.report((number as f64 + step as f64 / max_steps as f64) / starts.len() as f64);
        let (loss, z) = descend(problem, log(start), max_steps, &report)?;
        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
            best = Some((loss, z));
        }
    }
    let (_, z) = best.unwrap_or_else(|| (0.0, vec![0.0; n_tasks]));
    let anchor: Vec<f64> = z.iter().map(|z| z.exp()).collect();
    let spectrum = deflated(problem.gram, &anchor);
    let directions = spectrum.vectors.view().subcols(0, problem.n_atoms - 1).to_owned();
    Ok(Best { anchor, directions, left: spectrum.tail(problem.n_atoms - 1), n_starts: starts.len() })
}

/// The projection of `wish` onto the columns of `basis`, with what is not positive set to a small part of the rest.
fn projected(basis: MatRef<'_, f64>, wish: &[f64]) -> Vec<f64> {
    let y = linear::times_transposed(basis, wish);
    let p = linear::times(basis, &y);
    let floor = 0.02 * p.iter().fold(0.0_f64, |most, x| most.max(x.abs())).max(f64::MIN_POSITIVE);
    p.iter().map(|x| x.max(floor)).collect()
}

/// z = log a about its middle, inside the box.
fn log(a: &[f64]) -> Vec<f64> {
    let top = a.iter().fold(0.0_f64, |most, x| most.max(*x)).max(f64::MIN_POSITIVE);
    let z: Vec<f64> = a.iter().map(|x| (x / top).max(1e-12).ln()).collect();
    let middle = z.iter().sum::<f64>() / z.len() as f64;
    z.iter().map(|x| (x - middle).clamp(-REACH, REACH)).collect()
}

/// f and its gradient in z.
fn evaluate(problem: &Problem<'_>, z: &[f64]) -> (f64, Vec<f64>) {
    let a: Vec<f64> = z.iter().map(|z| z.exp()).collect();
    let kept = problem.n_atoms - 1;
    let Spectrum { values, vectors, .. } = deflated(problem.gram, &a);
    let left: f64 = values.iter().skip(kept).sum();
    if uncancelled(problem.gram, &a) <= CANCELS {
        return (left, vec![0.0; a.len()]);
    }
    let ga = linear::times(problem.gram.view(), &a);
    let along = linear::dot(&a, &ga);
    let w: Vec<f64> = ga.iter().map(|x| x / along).collect();
    let tail = vectors.view().subcols(kept, vectors.n_columns() - kept);
    let mut inside = linear::times_transposed(tail, &w);
    inside.iter_mut().zip(&values[kept..]).for_each(|(x, value)| *x *= value);
    let slope = linear::times(tail, &inside);
    (left, a.iter().zip(&slope).map(|(a, slope)| -2.0 * a * slope).collect())
}

/// Spectral projected gradient from z; the best point on the way.
fn descend(
    problem: &Problem<'_>,
    start: Vec<f64>,
    max_steps: usize,
    report: &dyn Fn(usize) -> Result<()>,
) -> Result<(f64, Vec<f64>)> {
    let scale = problem.gram.trace().max(f64::MIN_POSITIVE);
    let mut z = start;
    let (mut loss, mut slope) = evaluate(problem, &z);
    let mut best = (loss, z.clone());
    let mut recent = vec![loss];
    let mut length = 1.0 / slope.iter().fold(1e-12 * scale, |most, g| most.max(g.abs()));
    let mut marked = loss;
    for step in 0..max_steps {
        report(step)?;
        if step > 0 && step.is_multiple_of(PATIENCE) {
            if marked - best.0 < STALL * scale {
                break;
            }
            marked = best.0;
        }
        let clamp = |z: f64| z.clamp(-REACH, REACH);
        let flat = z.iter().zip(&slope).map(|(z, g)| (clamp(z - g / scale) - z).abs()).fold(0.0, f64::max);
        if flat < FLAT {
            break;
        }
        let move_by: Vec<f64> = z.iter().zip(&slope).map(|(z, g)| clamp(z - length * g) - z).collect();
        let downhill = linear::dot(&slope, &move_by);
        let worst = recent.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
        let mut share = 1.0;
        let accepted = loop {
            let next: Vec<f64> = z.iter().zip(&move_by).map(|(z, d)| z + share * d).collect();
            let (next_loss, next_slope) = evaluate(problem, &next);
            if next_loss <= worst + 1e-4 * share * downhill {
                break Some((next, next_loss, next_slope));
            }
            share *= 0.3;
            if share < 1e-6 {
                break None;
            }
        };
        let Some((next, next_loss, next_slope)) = accepted else { break };
        let (moved, turned): (Vec<f64>, Vec<f64>) =
            (0..z.len()).map(|t| (next[t] - z[t], next_slope[t] - slope[t])).unzip();
        let curvature = linear::dot(&moved, &turned);
        length = if curvature > 0.0 { linear::dot(&moved, &moved) / curvature } else { 4.0 * length };
        length = length.clamp(1e-6 / scale, 1e6 / scale);
        (z, loss, slope) = (next, next_loss, next_slope);
        if loss < best.0 {
            best = (loss, z.clone());
        }
        recent.push(loss);
        if recent.len() > MEMORY {
            recent.remove(0);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::solve::{Gram, SolveOptions};

    /// The closed-form slope is that of the loss, by central differences.
    #[test]
    fn the_slope_is_that_of_the_loss() {
        let v = Mat::from_fn(12, 6, |i, j| ((5 * i + 3 * j * j) as f64 * 0.71).sin());
        let gram = Gram::new(Matrix::of(linear::product(v.transpose(), v.as_ref()))).expect("a Gram matrix");
        for n_atoms in [1, 2, 4] {
            let problem = Problem::new(&gram, &SolveOptions::atoms(n_atoms), &|_| true);
            let z: Vec<f64> = (0..6).map(|t| (t as f64 * 1.3).cos()).collect();
            let (_, slope) = evaluate(&problem, &z);
            for (t, found) in slope.iter().enumerate() {
                let at = |by: f64| {
                    let mut z = z.clone();
                    z[t] += by;
                    evaluate(&problem, &z).0
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((found - expected).abs() < 1e-8, "M = {n_atoms}, entry {t}: {found} {expected}");
            }
        }
    }
}
