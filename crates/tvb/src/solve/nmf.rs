//! `nmf`: convex non-negative matrix factorisation, V ≈ (VB)·W with B ≥ 0 and W ≥ 0, on G alone.
//!
//! It starts from a clustering: its indicators, plus a little everywhere, as zeros would stay zeros. Multiplicative
//! updates (Ding, Li, Jordan 2010) with G split into its positive and negative parts come first: they never raise the
//! loss, but crawl towards zeros. Coordinate descent then takes over, entry by entry the best non-negative value with the
//! others fixed; it reaches losses that thousands of multiplicative rounds do not. W is part of the method here, so it is
//! not replaced by the unconstrained best one.

use super::problem::{Found, Problem};
use super::{NmfOptions, cluster, linear};
use crate::error::Result;
use faer::{Mat, MatRef};

/// Added to the indicators of the clustering at the start.
const START: f64 = 0.2;
/// Keeps quotients of two vanishing numbers at rest.
const TINY: f64 = 1e-300;
/// Rounds of multiplicative updates, of all rounds.
const MULTIPLICATIVE: usize = 40;
/// Loss is looked at, and progress reported, every so many rounds.
const LOOK_EVERY: usize = 10;
/// Sweeps over W for each one over B, which costs more.
const WEIGHT_SWEEPS: usize = 2;
/// Sweeps over W at the very end.
const LAST_SWEEPS: usize = 50;
/// Multiplications all rounds together may cost.
const WORK: f64 = 2e11;

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
    let mut factors = Factors::start(gram.view(), &labels, n_atoms);
    let round_cost = (2 * n_tasks * n_tasks * n_atoms + 4 * n_tasks * n_atoms * n_atoms) as f64;
    let max_steps = options.max_steps.min((WORK / round_cost) as usize).max(MULTIPLICATIVE + LOOK_EVERY);
    let mut loss = f64::INFINITY;
    let mut notes = Vec::new();
    for step in 1..=max_steps {
        if step <= MULTIPLICATIVE {
            factors.multiply()
        } else {
            factors.descend()
        }
        if step.is_multiple_of(LOOK_EVERY) {
            problem.report(step as f64 / max_steps as f64)?;
            let next = factors.loss(gram.trace());
            if step > MULTIPLICATIVE && loss - next <= options.tolerance * next.abs().max(1e-15) {
                break;
            }
            loss = next;
        }
        if step == max_steps {
            notes.push(format!("stopped after {max_steps} rounds, while the loss was still falling"));
        }
    }
    let (gram_encode, inner) = factors.products();
    for _sweep in 0..LAST_SWEEPS {
        factors.sweep_weights(&gram_encode, &inner);
    }
    notes.push("both B and W are non-negative: W is the method's own, not the best one for B".to_owned());
    Ok(Found { decode: Some(factors.decode()), notes, ..Found::encoded(factors.encode) })
}

struct Factors {
    /// G.
    gram: Mat<f64>,
    /// max(G, 0) and max(−G, 0), the latter only where there is anything in it.
    positive: Mat<f64>,
    negative: Option<Mat<f64>>,
    /// B and Wᵀ, both \[n_tasks, n_atoms\].
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
        Factors {
            gram: gram.to_owned(),
            positive: part(1.0),
            negative: any_negative.then(|| part(-1.0)),
            encode,
            weights,
        }
    }

    /// (G⁺X, G⁻X).
    fn parts(&self, x: &Mat<f64>) -> (Mat<f64>, Mat<f64>) {
        let negative = match &self.negative {
            Some(negative) => linear::product(negative.as_ref(), x.as_ref()),
            None => Mat::zeros(x.nrows(), x.ncols()),
        };
        (linear::product(self.positive.as_ref(), x.as_ref()), negative)
    }

    /// One round of multiplicative updates: W, then B.
    fn multiply(&mut self) {
        let (plus, minus) = self.parts(&self.encode);
        let inner = |a: &Mat<f64>, b: &Mat<f64>| linear::product(a.transpose(), b.as_ref());
        let up = linear::product(self.weights.as_ref(), inner(&self.encode, &minus).as_ref());
        let down = linear::product(self.weights.as_ref(), inner(&self.encode, &plus).as_ref());
        scale_by_root(&mut self.weights, (&plus, &up), (&minus, &down));
        let (weights_plus, weights_minus) = self.parts(&self.weights);
        let square = inner(&self.weights, &self.weights);
        let up = linear::product(minus.as_ref(), square.as_ref());
        let down = linear::product(plus.as_ref(), square.as_ref());
        scale_by_root(&mut self.encode, (&weights_plus, &up), (&weights_minus, &down));
    }

    /// (GB, BᵀGB).
    fn products(&self) -> (Mat<f64>, Mat<f64>) {
        let gram_encode = linear::product(self.gram.as_ref(), self.encode.as_ref());
        let inner = linear::product(self.encode.transpose(), gram_encode.as_ref());
        (gram_encode, inner)
    }

    /// tr((I − BW)ᵀ G (I − BW)).
    fn loss(&self, trace: f64) -> f64 {
        let (gram_encode, inner) = self.products();
        let square = linear::product(self.weights.transpose(), self.weights.as_ref());
        let paired = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
            (0..a.ncols()).map(|j| a.col(j).iter().zip(b.col(j).iter()).map(|(x, y)| x * y).sum::<f64>()).sum()
        };
        trace - 2.0 * paired(&self.weights, &gram_encode) + paired(&inner, &square)
    }

    /// One round of coordinate descent: W a few times, then B.
    fn descend(&mut self) {
        let (gram_encode, inner) = self.products();
        for _sweep in 0..WEIGHT_SWEEPS {
            self.sweep_weights(&gram_encode, &inner);
        }
        self.sweep_encode(gram_encode);
    }

    /// Every row of W in turn: its non-negative best, B and the other rows fixed. The entries of a row do not meet.
    fn sweep_weights(&mut self, gram_encode: &Mat<f64>, inner: &Mat<f64>) {
        for m in 0..self.encode.ncols() {
            if inner[(m, m)] <= 0.0 {
                continue;
            }
            let along = linear::times(self.weights.as_ref(), &linear::column(inner.as_ref(), m));
            for (t, along) in along.iter().enumerate() {
                let best = self.weights[(t, m)] + (gram_encode[(t, m)] - along) / inner[(m, m)];
                self.weights[(t, m)] = best.max(0.0);
            }
        }
    }

    /// Every entry of B in turn: its non-negative best, W and the other entries fixed. `gram_encode` is GB at the start.
    fn sweep_encode(&mut self, mut gram_encode: Mat<f64>) {
        let n_tasks = self.encode.nrows();
        let square = linear::product(self.weights.transpose(), self.weights.as_ref());
        let target = linear::product(self.gram.as_ref(), self.weights.as_ref());
        for m in 0..self.encode.ncols() {
            let own = square[(m, m)];
            if own <= 0.0 {
                continue;
            }
            // Half the slope of the loss in column m of B, kept up to date as its entries move.
            let mut slope = linear::times(gram_encode.as_ref(), &linear::column(square.as_ref(), m));
            slope.iter_mut().enumerate().for_each(|(t, slope)| *slope -= target[(t, m)]);
            let before = slope.clone();
            for t in 0..n_tasks {
                let (old, curvature) = (self.encode[(t, m)], own * self.gram[(t, t)]);
                if curvature <= 0.0 {
                    continue;
                }
                let new = (old - slope[t] / curvature).max(0.0);
                if new != old {
                    self.encode[(t, m)] = new;
                    linear::add_column(&mut slope, self.gram.as_ref(), t, own * (new - old));
                }
            }
            for (t, (after, before)) in slope.iter().zip(&before).enumerate() {
                gram_encode[(t, m)] += (after - before) / own;
            }
        }
    }

    fn decode(&self) -> Mat<f64> {
        self.weights.transpose().to_owned()
    }
}

/// x ← x·√((up0 + up1)/(down0 + down1)), entry by entry.
fn scale_by_root(x: &mut Mat<f64>, up: (&Mat<f64>, &Mat<f64>), down: (&Mat<f64>, &Mat<f64>)) {
    for j in 0..x.ncols() {
        for i in 0..x.nrows() {
            let numerator = up.0[(i, j)] + up.1[(i, j)];
            let denominator = down.0[(i, j)] + down.1[(i, j)];
            x[(i, j)] *= (numerator / (denominator + TINY)).sqrt().min(1e6);
        }
    }
}
