//! `ae`: the paper's autoencoder on the Gram matrix, trained by Adam.
//!
//! B = softmax(A/τ) down the columns, W free; loss Σ E∘(GE)/T² with E = BW − I. All in f64, with memory laid out once.
//!
//! The reference trains on G as it is, so its effective learning rate and weight decay depend on the length of the task
//! vectors; `AeOptions::paper` keeps that. The default trains on G·T²/tr G, where recovering nothing is a loss of 1: with
//! G/tr G alone gradients fall like T⁻⁴ and vanish beside Adam's eps from some hundred tasks on.

use super::adam::{Dense, Parameter};
use super::linear;
use super::method::{Activation, AeOptions};
use super::problem::{Found, Problem};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Up to this many tasks the default number of steps is the reference's 6000; past it, fewer: a step costs about T³.
pub const FULL_STEPS_TASKS: usize = 128;
const FULL_STEPS: usize = 6000;
const FEWEST_STEPS: usize = 600;
/// Annealing stops here.
const TAU_FLOOR: f64 = 0.1;
/// PyTorch's guard in `clip_grad_norm_`.
const CLIP_EPS: f64 = 1e-6;
/// Progress is reported every so many steps, or every step where one costs much.
const REPORT_EVERY: usize = 50;

/// A trained autoencoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// B after its activation, \[n_tasks, n_atoms\].
    pub encode: Matrix,
    /// W after its activation, \[n_atoms, n_tasks\], as trained.
    pub decode: Matrix,
    /// The temperature after the last step.
    pub tau: f64,
    /// The loss before each of the steps that were to be recorded, in the units of the Gram that was trained on; of the
    /// step's own columns where columns are drawn.
    pub losses: Vec<f64>,
}

/// Adam steps that `None` stands for at T tasks.
pub fn default_steps(n_tasks: usize) -> usize {
    let less = FULL_STEPS_TASKS as f64 / n_tasks.max(FULL_STEPS_TASKS) as f64;
    ((FULL_STEPS as f64 * less * less) as usize).max(FEWEST_STEPS)
}

pub(super) fn solve(problem: &Problem<'_>, options: &AeOptions) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    let trained = if options.paper {
        train_on(problem.paper_gram.view(), problem.n_atoms, options, &[], problem.progress)?
    } else {
        let scaled = faer::Scale((n_tasks as f64).powi(2)) * problem.gram.view();
        train_on(scaled.as_ref(), problem.n_atoms, options, &[], problem.progress)?
    };
    let own = options.paper || options.decoder == Activation::Softmax;
    let mut notes = Vec::new();
    let steps = options.steps.unwrap_or_else(|| default_steps(n_tasks));
    if options.steps.is_none() && steps < FULL_STEPS {
        notes.push(format!("trained for {steps} steps, not {FULL_STEPS}, as there are {n_tasks} tasks"));
    }
    let decode = own.then(|| trained.decode.view().to_owned());
    Ok(Found {
        decode,
        notes,
        convex: options.encoder == Activation::Softmax,
        ..Found::encoded(trained.encode.view().to_owned())
    })
}

/// Trains B and W for `gram` \[n_tasks, n_tasks\]. `record` lists steps, counted from 1 and ascending, whose loss is wanted.
/// `progress` is told the part done, 0 to 1, and stops the training by answering false.
///
/// # Errors
/// Usage: options that make no sense. Rejected: an `init` of another shape. Failed: the training diverged. Interrupted:
/// `progress` answered false.
pub fn train(
    gram: &Matrix,
    n_atoms: usize,
    options: &AeOptions,
    record: &[usize],
    progress: &dyn Fn(f64) -> bool,
) -> Result<Trained> {
    train_on(gram.view(), n_atoms, options, record, progress)
}

fn train_on(
    gram: MatRef<'_, f64>,
    n_atoms: usize,
    options: &AeOptions,
    record: &[usize],
    progress: &dyn Fn(f64) -> bool,
) -> Result<Trained> {
    let n_tasks = gram.nrows();
    check(options, n_tasks, n_atoms)?;
    let n_steps = options.steps.unwrap_or_else(|| default_steps(n_tasks));
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut trainer = Trainer::new(gram, n_atoms, options, &mut rng);
    let mut losses = Vec::with_capacity(record.len());
    let is_large = n_tasks > FULL_STEPS_TASKS;
    for step in 1..=n_steps {
        if (step % REPORT_EVERY == 1 || is_large) && !progress((step - 1) as f64 / n_steps as f64) {
            return Err(Error::interrupted());
        }
        trainer.forward();
        trainer.draw_columns(&mut rng);
        trainer.backward();
        if record.contains(&step) {
            losses.push(trainer.loss());
        }
        trainer.update(step);
    }
    trainer.forward();
    if !(0..n_atoms).all(|m| trainer.encode.column(m).iter().chain(trainer.decode.row(m)).all(|x| x.is_finite())) {
        return Err(
            Error::failed("ae: the training diverged to values that are not finite").hint("lower the learning rate")
        );
    }
    Ok(Trained { encode: trainer.encode.to_matrix(), decode: trainer.decode.to_matrix(), tau: trainer.tau, losses })
}

fn check(options: &AeOptions, n_tasks: usize, n_atoms: usize) -> Result<()> {
    let positive = |name: &str, value: f64| {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(Error::usage(format!("ae: {name} is {value}: expected a positive number")))
    };
    positive("learning rate", options.learning_rate)?;
    positive("tau", options.tau)?;
    options.grad_clip.map_or(Ok(()), |clip| positive("gradient clip", clip))?;
    if !(options.weight_decay.is_finite() && options.weight_decay >= 0.0) {
        return Err(Error::usage(format!("ae: weight decay is {}: expected 0 or more", options.weight_decay)));
    }
    if let Some(anneal) = options.anneal {
        positive("annealing factor", anneal.factor)?;
        if anneal.every == 0 {
            return Err(Error::usage("ae: annealing every 0 steps: expected 1 or more"));
        }
    }
    if let Some(columns) = options.batch_columns.filter(|&b| b == 0 || b > n_tasks) {
        return Err(Error::usage(format!("ae: {columns} columns a step for {n_tasks} tasks: expected 1 to {n_tasks}")));
    }
    if let Some(init) = &options.init {
        if (init.n_rows(), init.n_columns()) != (n_tasks, n_atoms) {
            return Err(Error::rejected(format!(
                "ae: initial A is {} x {}: expected {n_tasks} x {n_atoms} (tasks x atoms)",
                init.n_rows(),
                init.n_columns()
            )));
        }
        if !init.is_finite() {
            return Err(Error::rejected("ae: initial A holds values that are not finite"));
        }
    }
    Ok(())
}

struct Trainer<'a> {
    options: &'a AeOptions,
    gram: Dense,
    tau: f64,
    a: Parameter,
    w: Parameter,
    /// B and W after their activations.
    encode: Dense,
    decode: Dense,
    /// G·B.
    gram_encode: Dense,
    /// The columns of this step, and W, G·E and dL/dW on them.
    columns: Vec<usize>,
    decode_drawn: Dense,
    gram_error: Dense,
    decode_slope: Dense,
    /// dL/dB.
    encode_slope: Dense,
}

impl<'a> Trainer<'a> {
    fn new(gram: MatRef<'_, f64>, n_atoms: usize, options: &'a AeOptions, rng: &mut ChaCha8Rng) -> Trainer<'a> {
        let n_tasks = gram.nrows();
        let mut a = Dense::zeros(n_tasks, n_atoms);
        match &options.init {
            Some(init) => a.view_mut().copy_from(init.view()),
            None => a.values.iter_mut().for_each(|x| *x = StandardNormal.sample(rng)),
        }
        let mut held = Dense::zeros(n_tasks, n_tasks);
        held.view_mut().copy_from(gram);
        let n_drawn = options.batch_columns.unwrap_or(n_tasks);
        Trainer {
            options,
            gram: held,
            tau: options.tau,
            a: Parameter::new(a),
            w: Parameter::new(Dense::zeros(n_atoms, n_tasks)),
            encode: Dense::zeros(n_tasks, n_atoms),
            decode: Dense::zeros(n_atoms, n_tasks),
            gram_encode: Dense::zeros(n_tasks, n_atoms),
            columns: (0..n_tasks).collect(),
            decode_drawn: Dense::zeros(n_atoms, n_drawn),
            gram_error: Dense::zeros(n_tasks, n_drawn),
            decode_slope: Dense::zeros(n_atoms, n_drawn),
            encode_slope: Dense::zeros(n_tasks, n_atoms),
        }
    }

    fn n_drawn(&self) -> usize {
        self.gram_error.n_columns()
    }

    fn forward(&mut self) {
        activate(self.options.encoder, &self.a.values, self.tau, &mut self.encode);
        activate(self.options.decoder, &self.w.values, 1.0, &mut self.decode);
    }

    /// Chooses this step's columns: all of them, or the first `batch_columns` of a partial shuffle.
    fn draw_columns(&mut self, rng: &mut ChaCha8Rng) {
        if self.options.batch_columns.is_some() {
            for i in 0..self.n_drawn() {
                let j = rng.random_range(i as u64..self.columns.len() as u64) as usize;
                self.columns.swap(i, j);
            }
        }
        let n_atoms = self.decode.n_rows;
        for (to, &from) in self.decode_drawn.values.chunks_exact_mut(n_atoms).zip(&self.columns) {
            to.copy_from_slice(self.decode.column(from));
        }
    }

    /// Gradients of the loss in A and W.
    fn backward(&mut self) {
        let n_tasks = self.gram.n_rows;
        // G·E = (G·B)·W − G on the drawn columns.
        linear::product_into(self.gram_encode.view_mut(), self.gram.view(), self.encode.view());
        linear::product_into(self.gram_error.view_mut(), self.gram_encode.view(), self.decode_drawn.view());
        for (error, &task) in self.gram_error.values.chunks_exact_mut(n_tasks).zip(&self.columns) {
            error.iter_mut().zip(self.gram.column(task)).for_each(|(e, g)| *e -= g);
        }
        let twice = 2.0 / (n_tasks * self.n_drawn()) as f64;
        let slope = |to: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>| {
            matmul(to, Accum::Replace, a, b, twice, Par::Seq);
        };
        slope(self.decode_slope.view_mut(), self.encode.view().transpose(), self.gram_error.view());
        slope(self.encode_slope.view_mut(), self.gram_error.view(), self.decode_drawn.view().transpose());
        if self.options.batch_columns.is_some() {
            self.w.gradient.values.fill(0.0);
        }
        let n_atoms = self.decode.n_rows;
        for (from, &task) in self.decode_slope.values.chunks_exact(n_atoms).zip(&self.columns) {
            self.w.gradient.values[task * n_atoms..(task + 1) * n_atoms].copy_from_slice(from);
        }
        chain(self.options.decoder, &self.decode, 1.0, &mut self.w.gradient);
        self.a.gradient.values.copy_from_slice(&self.encode_slope.values);
        chain(self.options.encoder, &self.encode, self.tau, &mut self.a.gradient);
    }

    /// Σ E∘(GE) over the drawn columns, divided by T times their number.
    fn loss(&self) -> f64 {
        let n_tasks = self.gram.n_rows;
        let mut error = Dense::zeros(n_tasks, self.n_drawn());
        linear::product_into(error.view_mut(), self.encode.view(), self.decode_drawn.view());
        for (column, &task) in error.values.chunks_exact_mut(n_tasks).zip(&self.columns) {
            column[task] -= 1.0;
        }
        linear::dot(&error.values, &self.gram_error.values) / (n_tasks * self.n_drawn()) as f64
    }

    fn update(&mut self, step: usize) {
        let mut shrink = 1.0;
        if let Some(most) = self.options.grad_clip {
            let squares = |p: &Parameter| linear::dot(&p.gradient.values, &p.gradient.values);
            let total = (squares(&self.a) + squares(&self.w)).sqrt();
            shrink = (most / (total + CLIP_EPS)).min(1.0);
        }
        self.a.update(step, shrink, self.options);
        self.w.update(step, shrink, self.options);
        if let Some(anneal) = self.options.anneal
            && step.is_multiple_of(anneal.every)
        {
            self.tau = (self.tau * anneal.factor).max(TAU_FLOOR);
        }
    }
}

/// to = activation(from/τ), column by column.
fn activate(activation: Activation, from: &Dense, tau: f64, to: &mut Dense) {
    if activation == Activation::Linear {
        to.values.copy_from_slice(&from.values);
        return;
    }
    let n_rows = from.n_rows;
    for (x, y) in from.values.chunks_exact(n_rows).zip(to.values.chunks_exact_mut(n_rows)) {
        let most = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
        let mut sum = 0.0;
        for (x, y) in x.iter().zip(y.iter_mut()) {
            *y = ((x - most) / tau).exp();
            sum += *y;
        }
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

/// Turns dL/dy, y = activation(x/τ), into dL/dx in place.
fn chain(activation: Activation, y: &Dense, tau: f64, slope: &mut Dense) {
    if activation == Activation::Linear {
        return;
    }
    let n_rows = y.n_rows;
    for (y, slope) in y.values.chunks_exact(n_rows).zip(slope.values.chunks_exact_mut(n_rows)) {
        let mean = linear::dot(y, slope);
        slope.iter_mut().zip(y).for_each(|(s, y)| *s = y * (*s - mean) / tau);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    /// Names one of the trained matrices.
    type Pick = for<'a, 'b> fn(&'a mut Trainer<'b>) -> &'a mut Vec<f64>;

    /// Both gradients are those of the loss, by central differences, whatever the activations and columns.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let v = Mat::from_fn(9, 5, |i, j| ((3 * i + 7 * j) as f64 * 0.37).sin());
        let gram = linear::product(v.transpose(), v.as_ref());
        for encoder in [Activation::Softmax, Activation::Linear] {
            for decoder in [Activation::Softmax, Activation::Linear] {
                for batch_columns in [None, Some(2)] {
                    let options = AeOptions { encoder, decoder, batch_columns, tau: 0.7, ..AeOptions::default() };
                    let mut rng = ChaCha8Rng::seed_from_u64(4);
                    let mut trainer = Trainer::new(gram.as_ref(), 3, &options, &mut rng);
                    trainer.w.values.values.iter_mut().for_each(|w| *w = StandardNormal.sample(&mut rng));
                    check_gradients(&mut trainer);
                }
            }
        }
    }

    fn check_gradients(trainer: &mut Trainer<'_>) {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        trainer.forward();
        trainer.draw_columns(&mut rng);
        trainer.backward();
        let (of_a, of_w) = (trainer.a.gradient.values.clone(), trainer.w.gradient.values.clone());
        let columns = trainer.columns.clone();
        let mut loss = |pick: Pick, i: usize, by: f64| {
            pick(trainer)[i] += by;
            trainer.columns.clone_from(&columns);
            trainer.forward();
            let n_atoms = trainer.decode.n_rows;
            for (to, &from) in trainer.decode_drawn.values.chunks_exact_mut(n_atoms).zip(&columns) {
                to.copy_from_slice(&trainer.decode.values[from * n_atoms..(from + 1) * n_atoms]);
            }
            trainer.backward();
            pick(trainer)[i] -= by;
            trainer.loss()
        };
        let a: Pick = |trainer| &mut trainer.a.values.values;
        let w: Pick = |trainer| &mut trainer.w.values.values;
        for (pick, gradient) in [(a, &of_a), (w, &of_w)] {
            for (i, found) in gradient.iter().enumerate() {
                let slope = (loss(pick, i, 1e-5) - loss(pick, i, -1e-5)) / 2e-5;
                assert!((found - slope).abs() < 1e-8, "entry {i}: {found}, by differences {slope}");
            }
        }
    }
}
