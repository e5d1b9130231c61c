//! CMA-ES: the least value of a function of a few numbers that can only be evaluated, with noise or without.
//!
//! Ask for a generation of points, evaluate them anywhere and in any order, tell their values in the order of the points. The same
//! seed and the same values give the same points. Points are drawn as m + σ·A·z with AAᵀ = C; the step path is summed from z
//! itself, so a Cholesky factor is enough and no eigenvectors are needed. Strategy constants are those of Hansen's tutorial.

use super::linear::{norm, times};
use crate::error::{Error, Result};
use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// More numbers than this are refused: the covariance is dense.
pub const DIMENSIONS_MAX: usize = 512;

/// The state of one search.
#[derive(Clone, Debug)]
pub struct CmaEs {
    rng: ChaCha8Rng,
    constants: Constants,
    mean: Vec<f64>,
    sigma: f64,
    covariance: Mat<f64>,
    /// Lower Cholesky factor of the covariance.
    factor: Mat<f64>,
    step_path: Vec<f64>,
    path: Vec<f64>,
    generation: u32,
    /// Of the points that were asked for and not told yet.
    asked: Vec<Draw>,
}

/// What a point was made from.
#[derive(Clone, Debug)]
struct Draw {
    z: Vec<f64>,
    /// A·z.
    step: Vec<f64>,
}

/// What follows from the number of dimensions alone.
#[derive(Clone, Debug)]
struct Constants {
    population: usize,
    /// Of the better half, the best first; their sum is 1.
    weights: Vec<f64>,
    /// 1/Σw².
    n_effective: f64,
    c_sigma: f64,
    damping: f64,
    c_path: f64,
    c_one: f64,
    c_mu: f64,
    /// The length of a normal vector.
    expected: f64,
}

impl Constants {
    fn of(n: usize) -> Constants {
        let dims = n as f64;
        let population = 4 + (3.0 * dims.ln()) as usize;
        let n_parents = population / 2;
        let raw: Vec<f64> = (0..n_parents).map(|at| (n_parents as f64 + 0.5).ln() - (at as f64 + 1.0).ln()).collect();
        let total: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|weight| weight / total).collect();
        let mu = 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>();
        let c_sigma = (mu + 2.0) / (dims + mu + 5.0);
        let c_one = 2.0 / ((dims + 1.3).powi(2) + mu);
        Constants {
            population,
            weights,
            n_effective: mu,
            c_sigma,
            damping: 1.0 + 2.0 * (((mu - 1.0) / (dims + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma,
            c_path: (4.0 + mu / dims) / (dims + 4.0 + 2.0 * mu / dims),
            c_one,
            c_mu: (1.0 - c_one).min(2.0 * (mu - 2.0 + 1.0 / mu) / ((dims + 2.0).powi(2) + mu)).max(0.0),
            expected: dims.sqrt() * (1.0 - 1.0 / (4.0 * dims) + 1.0 / (21.0 * dims * dims)),
        }
    }

    /// Σ w·of(draw) over the draws, the best first, as many numbers as a point has.
    fn mean_of<'a>(&self, best: &[&'a Draw], of: impl Fn(&'a Draw) -> &'a [f64]) -> Vec<f64> {
        let mut mean = vec![0.0; best.first().map_or(0, |draw| of(draw).len())];
        for (draw, weight) in best.iter().zip(&self.weights) {
            mean.iter_mut().zip(of(draw)).for_each(|(mean, value)| *mean += weight * value);
        }
        mean
    }
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
        Ok(CmaEs {
            rng: ChaCha8Rng::seed_from_u64(seed),
            constants: Constants::of(n),
            mean: start.to_vec(),
            sigma,
            covariance: Mat::identity(n, n),
            factor: Mat::identity(n, n),
            step_path: vec![0.0; n],
            path: vec![0.0; n],
            generation: 0,
            asked: Vec::new(),
        })
    }

    /// Points in a generation.
    pub fn population(&self) -> usize {
        self.constants.population
    }

    /// The middle of the next generation.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The next generation of points.
    pub fn ask(&mut self) -> Vec<Vec<f64>> {
        let n = self.mean.len();
        self.asked.clear();
        for _ in 0..self.constants.population {
            let z: Vec<f64> = (0..n).map(|_| StandardNormal.sample(&mut self.rng)).collect();
            self.asked.push(Draw { step: times(self.factor.as_ref(), &z), z });
        }
        let point =
            |draw: &Draw| self.mean.iter().zip(&draw.step).map(|(mean, step)| mean + self.sigma * step).collect();
        self.asked.iter().map(point).collect()
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
        let rank = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| rank(values[a]).total_cmp(&rank(values[b])));
        let best: Vec<&Draw> = order.iter().take(self.constants.weights.len()).map(|&at| &asked[at]).collect();
        let step = self.constants.mean_of(&best, |draw| &draw.step);
        self.generation = self.generation.saturating_add(1);
        let is_calm = self.follow(&self.constants.mean_of(&best, |draw| &draw.z), &step);
        self.mean.iter_mut().zip(&step).for_each(|(mean, step)| *mean += self.sigma * step);
        self.spread(&best, is_calm);
        let Constants { c_sigma, damping, expected, .. } = self.constants;
        self.sigma *= (c_sigma / damping * (norm(&self.step_path) / expected - 1.0)).min(1.0).exp();
        Ok(())
    }

    /// Adds the mean step to both paths. Answers whether the step path is of ordinary length: the other one grows only then, so
    /// that a step that is much too short does not stretch the covariance.
    fn follow(&mut self, z: &[f64], step: &[f64]) -> bool {
        let Constants { n_effective, c_sigma, c_path, expected, .. } = self.constants;
        let blend = |path: &mut Vec<f64>, more: &[f64], rate: f64, is_added: bool| {
            let scale = if is_added { (rate * (2.0 - rate) * n_effective).sqrt() } else { 0.0 };
            path.iter_mut().zip(more).for_each(|(path, more)| *path = (1.0 - rate) * *path + scale * more);
        };
        blend(&mut self.step_path, z, c_sigma, true);
        let begun = (1.0 - (1.0 - c_sigma).powf(2.0 * f64::from(self.generation))).sqrt();
        let dims = self.mean.len() as f64;
        let is_calm = norm(&self.step_path) / begun < (1.4 + 2.0 / (dims + 1.0)) * expected;
        blend(&mut self.path, step, c_path, is_calm);
        is_calm
    }

    /// Moves the covariance towards the path and the best steps. One that rounding has made indefinite is dropped, and the last
    /// one serves for another generation.
    fn spread(&mut self, best: &[&Draw], is_calm: bool) {
        let Constants { c_path, c_one, c_mu, ref weights, .. } = self.constants;
        let lost = if is_calm { 0.0 } else { c_one * c_path * (2.0 - c_path) };
        let n = self.mean.len();
        let covariance = Mat::from_fn(n, n, |i, j| {
            let of_steps: f64 =
                best.iter().zip(weights).map(|(draw, weight)| weight * draw.step[i] * draw.step[j]).sum();
            let kept = (1.0 - c_one - c_mu + lost) * self.covariance[(i, j)];
            kept + c_one * self.path[i] * self.path[j] + c_mu * of_steps
        });
        if let Ok(factor) = Llt::new(covariance.as_ref(), Side::Lower) {
            self.factor = factor.L().to_owned();
            self.covariance = covariance;
        }
    }
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
    fn noise_hides_little_of_where_it_is() {
        let noise = std::cell::RefCell::new(ChaCha8Rng::seed_from_u64(5));
        let noisy = |x: &[f64]| {
            let sample: f64 = StandardNormal.sample(&mut *noise.borrow_mut());
            x.iter().map(|x| (x - 0.3).powi(2)).sum::<f64>() + 0.01 * sample
        };
        let mut search = CmaEs::new(&[1.0; 8], 0.3, 3).unwrap();
        for _ in 0..100 {
            let values: Vec<f64> = search.ask().iter().map(|point| noisy(point)).collect();
            search.tell(&values).unwrap();
        }
        // It began 8·0.7² = 3.9 away.
        assert!(search.mean().iter().map(|x| (x - 0.3).powi(2)).sum::<f64>() < 0.05, "{:?}", search.mean());
    }

    #[test]
    fn told_again_it_asks_for_the_same_points() {
        let value = |x: &[f64]| x.iter().map(|x| (x - 2.0).abs()).sum::<f64>();
        let run = || {
            let mut search = CmaEs::new(&[0.0; 4], 1.0, 7).unwrap();
            for _ in 0..30 {
                let values: Vec<f64> = search.ask().iter().map(|point| value(point)).collect();
                search.tell(&values).unwrap();
            }
            search.ask()
        };
        assert_eq!(run(), run());
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
