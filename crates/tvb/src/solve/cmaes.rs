//! CMA-ES: the least value of a function of a few numbers that can only be evaluated, with noise or without.
//!
//! Ask for a generation of points, evaluate them anywhere and in any order, tell their values in the order of the points. The same
//! seed and the same values give the same points. Points are drawn as m + σ·A·z with AAᵀ = C; the step path is summed from z
//! itself, so a Cholesky factor is enough and no eigenvectors are needed. Strategy constants are those of Hansen's tutorial.

use crate::error::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// More numbers than this are refused: the covariance is dense.
pub const DIMENSIONS_MAX: usize = 512;

/// The state of one search.
#[derive(Clone, Debug)]
pub struct CmaEs {
    rng: ChaCha8Rng,
    mean: Vec<f64>,
    sigma: f64,
    /// Row by row, \[n\]\[n\].
    covariance: Vec<f64>,
    /// Lower Cholesky factor of the covariance.
    factor: Vec<f64>,
    step_path: Vec<f64>,
    path: Vec<f64>,
    generation: u32,
    /// Of the points that were asked for and not told yet.
    asked: Vec<Vec<f64>>,
}

impl CmaEs {
    /// A search from `start` with first steps of about `sigma`.
    ///
    /// # Errors
    /// Usage: no numbers or more than [`DIMENSIONS_MAX`], a start that is not finite, a step that is not positive.
    pub fn new(start: &[f64], sigma: f64, seed: u64) -> Result<CmaEs> {
        let n = start.len();
        if n == 0 || n > DIMENSIONS_MAX {
            return Err(Error::usage(format!("a search: expected 1 to {DIMENSIONS_MAX} coefficients, found {n}")));
        }
        if !(start.iter().all(|value| value.is_finite()) && sigma.is_finite() && sigma > 0.0) {
            return Err(Error::usage("a search: expected a finite start and a positive step"));
        }
        let identity: Vec<f64> = (0..n * n).map(|at| if at % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
        Ok(CmaEs {
            rng: ChaCha8Rng::seed_from_u64(seed),
            mean: start.to_vec(),
            sigma,
            covariance: identity.clone(),
            factor: identity,
            step_path: vec![0.0; n],
            path: vec![0.0; n],
            generation: 0,
            asked: Vec::new(),
        })
    }

    /// Points in a generation.
    pub fn population(&self) -> usize {
        4 + (3.0 * (self.mean.len() as f64).ln()) as usize
    }

    /// The middle of the next generation.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The next generation of points.
    pub fn ask(&mut self) -> Vec<Vec<f64>> {
        let n = self.mean.len();
        self.asked = (0..self.population()).map(|_| (0..n).map(|_| normal(&mut self.rng)).collect()).collect();
        let point = |z: &Vec<f64>| (0..n).map(|row| self.mean[row] + self.sigma * self.scaled(z, row)).collect();
        self.asked.iter().map(point).collect()
    }

    /// Row `row` of A·z.
    fn scaled(&self, z: &[f64], row: usize) -> f64 {
        let n = self.mean.len();
        (0..=row).map(|column| self.factor[row * n + column] * z[column]).sum()
    }

    /// What the points of the last [`CmaEs::ask`] are worth, in their order; less is better, a value that is no number is worst.
    ///
    /// # Errors
    /// Usage: another number of values than points were asked for.
    pub fn tell(&mut self, values: &[f64]) -> Result<()> {
        let asked = std::mem::take(&mut self.asked);
        if values.len() != asked.len() || asked.is_empty() {
            return Err(Error::usage(format!("a search: expected {} values, found {}", asked.len(), values.len())));
        }
        let n = self.mean.len();
        let dims = n as f64;
        let mut order: Vec<usize> = (0..values.len()).collect();
        let rank = |at: usize| if values[at].is_nan() { f64::INFINITY } else { values[at] };
        order.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)));
        let n_parents = values.len() / 2;
        let raw: Vec<f64> = (0..n_parents).map(|at| (n_parents as f64 + 0.5).ln() - (at as f64 + 1.0).ln()).collect();
        let total: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|weight| weight / total).collect();
        let mu = 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>();
        let c_sigma = (mu + 2.0) / (dims + mu + 5.0);
        let damping = 1.0 + 2.0 * (((mu - 1.0) / (dims + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma;
        let c_path = (4.0 + mu / dims) / (dims + 4.0 + 2.0 * mu / dims);
        let c_one = 2.0 / ((dims + 1.3).powi(2) + mu);
        let c_mu = (1.0 - c_one).min(2.0 * (mu - 2.0 + 1.0 / mu) / ((dims + 2.0).powi(2) + mu)).max(0.0);
        let expected = dims.sqrt() * (1.0 - 1.0 / (4.0 * dims) + 1.0 / (21.0 * dims * dims));

        let parents = || order.iter().zip(&weights);
        let z_mean: Vec<f64> = (0..n).map(|row| parents().map(|(&at, weight)| weight * asked[at][row]).sum()).collect();
        let steps: Vec<Vec<f64>> =
            order[..n_parents].iter().map(|&at| (0..n).map(|row| self.scaled(&asked[at], row)).collect()).collect();
        let step: Vec<f64> = (0..n).map(|row| self.scaled(&z_mean, row)).collect();
        self.generation = self.generation.saturating_add(1);
        let keep = (c_sigma * (2.0 - c_sigma) * mu).sqrt();
        for (path, z) in self.step_path.iter_mut().zip(&z_mean) {
            *path = (1.0 - c_sigma) * *path + keep * z;
        }
        let length = self.step_path.iter().map(|value| value * value).sum::<f64>().sqrt();
        let decay = (1.0 - (1.0 - c_sigma).powf(2.0 * f64::from(self.generation))).sqrt();
        let is_calm = length / decay < (1.4 + 2.0 / (dims + 1.0)) * expected;
        let grow = if is_calm { (c_path * (2.0 - c_path) * mu).sqrt() } else { 0.0 };
        for (path, step) in self.path.iter_mut().zip(&step) {
            *path = (1.0 - c_path) * *path + grow * step;
        }
        let lost = if is_calm { 0.0 } else { c_one * c_path * (2.0 - c_path) };
        for row in 0..n {
            self.mean[row] += self.sigma * step[row];
            for column in 0..n {
                let spread: f64 =
                    steps.iter().zip(&weights).map(|(step, weight)| weight * step[row] * step[column]).sum();
                let entry = &mut self.covariance[row * n + column];
                let one = self.path[row] * self.path[column];
                *entry = (1.0 - c_one - c_mu + lost) * *entry + c_one * one + c_mu * spread;
            }
        }
        self.sigma *= (c_sigma / damping * (length / expected - 1.0)).min(1.0).exp();
        // Where rounding has made it indefinite the last factor serves for another generation.
        if let Some(factor) = cholesky(&self.covariance, n) {
            self.factor = factor;
        }
        Ok(())
    }
}

/// A normal value by Box–Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let unit = 1.0 / 4_294_967_296.0;
    // In (0, 1], so that the logarithm is finite.
    let radius = (-2.0 * ((f64::from(rng.next_u32()) + 1.0) * unit).ln()).sqrt();
    radius * (std::f64::consts::TAU * f64::from(rng.next_u32()) * unit).cos()
}

/// The lower factor of a symmetric \[n\]\[n\] matrix; `None` where it is not positive definite.
fn cholesky(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut factor = vec![0.0; n * n];
    for row in 0..n {
        for column in 0..=row {
            let known: f64 = (0..column).map(|at| factor[row * n + at] * factor[column * n + at]).sum();
            let left = matrix[row * n + column] - known;
            factor[row * n + column] = if row == column {
                if !(left.is_finite() && left > 0.0) {
                    return None;
                }
                left.sqrt()
            } else {
                left / factor[column * n + column]
            };
        }
    }
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least(f: impl Fn(&[f64]) -> f64, start: &[f64], n_generations: usize) -> f64 {
        let mut search = CmaEs::new(start, 0.5, 3).unwrap();
        for _ in 0..n_generations {
            let values: Vec<f64> = search.ask().iter().map(|point| f(point)).collect();
            search.tell(&values).unwrap();
        }
        f(search.mean())
    }

    #[test]
    fn it_finds_the_least_of_a_sphere_an_ellipsoid_and_rosenbrock() {
        let sphere = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let ellipsoid = |x: &[f64]| (0..x.len()).map(|at| 10f64.powi(at as i32) * x[at] * x[at]).sum::<f64>();
        let rosenbrock =
            |x: &[f64]| x.windows(2).map(|x| 100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)).sum::<f64>();
        assert!(least(sphere, &[1.0; 8], 200) < 1e-8);
        assert!(least(ellipsoid, &[1.0; 5], 400) < 1e-8);
        assert!(least(rosenbrock, &[0.0; 4], 600) < 1e-6);
    }

    #[test]
    fn the_same_seed_asks_for_the_same_points_and_wrong_use_is_refused() {
        let mut one = CmaEs::new(&[0.0; 3], 1.0, 9).unwrap();
        let mut two = one.clone();
        let points = one.ask();
        assert_eq!(points, two.ask());
        assert_ne!(points, CmaEs::new(&[0.0; 3], 1.0, 10).unwrap().ask());
        assert!(one.tell(&[0.0]).is_err());
        assert!(CmaEs::new(&[], 1.0, 0).is_err() && CmaEs::new(&[f64::NAN], 1.0, 0).is_err());
        assert!(CmaEs::new(&[0.0], 0.0, 0).is_err());
    }
}
