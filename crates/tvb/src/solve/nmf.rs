//! `nmf`: convex non-negative matrix factorisation, V ≈ (VB)·W with B ≥ 0 and W ≥ 0, on G alone.
//!
//! Multiplicative updates (Ding, Li, Jordan 2010) with G split into its positive and negative parts never raise the loss
//! and never leave the non-negative side. The start is a clustering: its indicators, plus a little everywhere, as zeros
//! stay zeros. At the end W is brought to its own best for the B that was found, by non-negative coordinate descent.
//! W is part of the method here, so it is not replaced by the unconstrained best one.

use super::{Found, NmfOptions, Problem, cluster, linear};
use crate::error::{Error, Result};
use faer::{Mat, MatRef};

/// Added to the indicators of the clustering at the start.
const START: f64 = 0.2;
/// Keeps quotients of two vanishing numbers at rest.
const TINY: f64 = 1e-300;
/// Loss is looked at, and progress reported, every so many rounds.
const LOOK_EVERY: usize = 10;
/// Multiplications all rounds together may cost.
const WORK: f64 = 2.5e12;
/// Rounds of coordinate descent on W.
const POLISH: usize = 200;

pub(super) fn solve(problem: &Problem<'_>, options: &NmfOptions) -> Result<Found> {
    let (gram, n_atoms) = (problem.gram, problem.n_atoms);
    let n_tasks = gram.n_tasks();
    if n_atoms == n_tasks {
        let eye = Mat::identity(n_tasks, n_tasks);
        return Ok(Found { decode: Some(eye.clone()), ..Found::encoded(eye) });
    }
    if gram.trace() <= 0.0 {
        let encode = Mat::from_fn(n_tasks, n_atoms, |_, _| 1.0 / n_tasks as f64);
        return Ok(Found { decode: Some(Mat::zeros(n_atoms, n_tasks)), ..Found::encoded(encode) });
    }
    let labels = cluster::assign(problem, options.seed)?;
    let mut factors = Factors::start(gram.matrix(), &labels, n_atoms);
    let round_cost = (4 * n_tasks * n_tasks * n_atoms + 5 * n_tasks * n_atoms * n_atoms) as f64;
    let max_steps = options.max_steps.min((WORK / round_cost) as usize).max(LOOK_EVERY);
    let mut loss = f64::INFINITY;
    let mut notes = Vec::new();
    for step in 0..max_steps {
        factors.update();
        if step % LOOK_EVERY == LOOK_EVERY - 1 {
            if !(problem.progress)(step as f64 / max_steps as f64) {
                return Err(Error::interrupted());
            }
            let next = factors.loss(gram.trace());
            if loss - next <= options.tolerance * next.abs().max(1e-15) {
                break;
            }
            loss = next;
        }
        if step + 1 == max_steps {
            notes.push(format!("stopped after {max_steps} rounds, while the loss was still falling"));
        }
    }
    factors.polish();
    notes.push("both B and W are non-negative: W is the method's own, not the best one for B".to_owned());
    Ok(Found { decode: Some(factors.decode()), notes, ..Found::encoded(factors.encode) })
}

struct Factors {
    /// max(G, 0) and max(−G, 0), the latter only where there is anything in it.
    positive: Mat<f64>,
    negative: Option<Mat<f64>>,
    /// B and Wᵀ, both [n_tasks, n_atoms].
    encode: Mat<f64>,
    weights: Mat<f64>,
}

impl Factors {
    fn start(gram: MatRef<'_, f64>, labels: &[usize], n_atoms: usize) -> Factors {
        let n_tasks = gram.nrows();
        let part = |sign: f64| Mat::from_fn(n_tasks, n_tasks, |i, j| (sign * gram[(i, j)]).max(0.0));
        let any_negative = (0..n_tasks).any(|j| (0..n_tasks).any(|i| gram[(i, j)] < 0.0));
        let mut sizes = vec![0.0; n_atoms];
        labels.iter().for_each(|&label| sizes[label] += 1.0);
        let weights = Mat::from_fn(n_tasks, n_atoms, |t, m| f64::from(u8::from(labels[t] == m)) + START);
        let encode = Mat::from_fn(n_tasks, n_atoms, |t, m| weights[(t, m)] / f64::max(sizes[m], 1.0));
        Factors { positive: part(1.0), negative: any_negative.then(|| part(-1.0)), encode, weights }
    }

    /// (G⁺X, G⁻X).
    fn parts(&self, x: &Mat<f64>) -> (Mat<f64>, Mat<f64>) {
        let negative = match &self.negative {
            Some(negative) => linear::product(negative.as_ref(), x.as_ref()),
            None => Mat::zeros(x.nrows(), x.ncols()),
        };
        (linear::product(self.positive.as_ref(), x.as_ref()), negative)
    }

    /// One round: W, then B.
    fn update(&mut self) {
        let (plus, minus) = self.parts(&self.encode);
        let inner = |a: &Mat<f64>, b: &Mat<f64>| linear::product(a.transpose(), b.as_ref());
        let up = linear::product(self.weights.as_ref(), inner(&self.encode, &minus).as_ref());
        let down = linear::product(self.weights.as_ref(), inner(&self.encode, &plus).as_ref());
        multiply(&mut self.weights, (&plus, &up), (&minus, &down));
        let (weights_plus, weights_minus) = self.parts(&self.weights);
        let square = inner(&self.weights, &self.weights);
        let up = linear::product(minus.as_ref(), square.as_ref());
        let down = linear::product(plus.as_ref(), square.as_ref());
        multiply(&mut self.encode, (&weights_plus, &up), (&weights_minus, &down));
    }

    /// tr((I − BW)ᵀ G (I − BW)).
    fn loss(&self, trace: f64) -> f64 {
        let (plus, minus) = self.parts(&self.encode);
        let gram_encode = &plus - &minus;
        let inner = linear::product(self.encode.transpose(), gram_encode.as_ref());
        let square = linear::product(self.weights.transpose(), self.weights.as_ref());
        let paired = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
            (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
        };
        trace - 2.0 * paired(&self.weights, &gram_encode) + paired(&inner, &square)
    }

    /// Coordinate descent on W for the B at hand: row by row of W the non-negative best, the others fixed.
    fn polish(&mut self) {
        let (plus, minus) = self.parts(&self.encode);
        let gram_encode = &plus - &minus;
        let inner = linear::product(self.encode.transpose(), gram_encode.as_ref());
        let (n_tasks, n_atoms) = (self.encode.nrows(), self.encode.ncols());
        let rounds = POLISH.min((WORK / 10.0 / (n_tasks * n_atoms * n_atoms) as f64) as usize);
        for _round in 0..rounds {
            let mut moved = 0.0_f64;
            for m in 0..n_atoms {
                if inner[(m, m)] <= 0.0 {
                    continue;
                }
                let along = linear::times(self.weights.as_ref(), &linear::column(inner.as_ref(), m));
                for t in 0..n_tasks {
                    let old = self.weights[(t, m)];
                    let new = (old + (gram_encode[(t, m)] - along[t]) / inner[(m, m)]).max(0.0);
                    moved = moved.max((new - old).abs() / (1.0 + new));
                    self.weights[(t, m)] = new;
                }
            }
            if moved < 1e-10 {
                break;
            }
        }
    }

    fn decode(&self) -> Mat<f64> {
        self.weights.transpose().to_owned()
    }
}

/// x ← x·√((up0 + up1)/(down0 + down1)), entry by entry.
fn multiply(x: &mut Mat<f64>, up: (&Mat<f64>, &Mat<f64>), down: (&Mat<f64>, &Mat<f64>)) {
    for j in 0..x.ncols() {
        for i in 0..x.nrows() {
            let numerator = up.0[(i, j)] + up.1[(i, j)];
            let denominator = down.0[(i, j)] + down.1[(i, j)];
            x[(i, j)] *= (numerator / (denominator + TINY)).sqrt().min(1e6);
        }
    }
}
