//! Training: the base on the mixture, then every task from the base. Everything follows from [`SEED`].
//!
//! The same machine gives the same bytes. Another processor may round sums differently and give a zoo that is as good
//! but not the same; that is why the checkpoints are committed.

use candle_core::{D, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::data::{Set, mixture_batch, train_batch};
use crate::model::{Tensors, WORD_TABLE, layout};
use crate::random::Stream;
use crate::tasks::{TASKS, TaskSpec, words};
use crate::train::graph::{Graph, Variables, pixels_tensor, tensors, variables};
use crate::train::untrained::untrained;
use crate::{Error, Result};

/// Where all training starts from.
pub const SEED: u64 = 7;

/// How long and how fast to train.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Optimiser steps.
    pub n_steps: usize,
    /// Images per step.
    pub batch: usize,
    /// Highest learning rate: reached after a tenth of the steps, then a cosine down to nothing.
    pub rate: f64,
    /// Weight decay, as a share of the learning rate.
    pub decay: f64,
    /// Images of the base's mixture that a fine-tune rehearses in turn; 0 for no rehearsal. The base has none.
    pub n_rehearsed: usize,
}

/// The base's schedule.
pub const BASE: Schedule = Schedule { n_steps: 2000, batch: 128, rate: 2e-3, decay: 0.05, n_rehearsed: 0 };
/// A fine-tune's schedule.
pub const FINE_TUNE: Schedule = Schedule { n_steps: 300, batch: 64, rate: 8e-4, decay: 0.0, n_rehearsed: 2048 };

impl Schedule {
    /// The learning rate of a step.
    fn rate_at(&self, step: usize) -> f64 {
        let warm_up = self.n_steps.div_ceil(10);
        if step < warm_up {
            return self.rate * (step + 1) as f64 / warm_up as f64;
        }
        let share = (step - warm_up) as f64 / (self.n_steps - warm_up).max(1) as f64;
        self.rate * 0.5 * (1.0 + libm::cos(share * core::f64::consts::PI))
    }
}

/// Told after each step: steps done and the loss (only now and then, since reading it costs time).
pub type OnStep<'a> = &'a mut dyn FnMut(usize, f32);

/// Trains the base, encoder and word table together.
///
/// # Errors
/// Failed, from the tensor library.
pub fn train_base(schedule: &Schedule, on_step: OnStep<'_>) -> Result<Tensors> {
    let mut variables = variables(&untrained(SEED))?;
    let names: Vec<String> = layout()
        .into_iter()
        .filter(|spec| spec.is_trained() || spec.name == WORD_TABLE)
        .map(|spec| spec.name)
        .collect();
    let all_words = Tensor::arange(0, words().len() as u32, &Device::Cpu)?;
    let masks = class_masks()?;
    let mut random = Stream::named(SEED, &["base"]);
    descend(&mut variables, &names, schedule, on_step, |model| {
        let (set, task_indices) = mixture_batch(schedule.batch, &mut random);
        let rows: Vec<u32> = set
            .labels
            .iter()
            .zip(&task_indices)
            .map(|(&label, &task)| TASKS[task as usize].word_rows()[label as usize])
            .collect();
        let n_images = set.n_images();
        let task_indices = Tensor::from_vec(task_indices, n_images, &Device::Cpu)?;
        let logits = model.logits(&pixels_tensor(&set.pixels)?, &all_words)?;
        // An image competes only among the words of its own task.
        cross_entropy(&(logits + masks.index_select(&task_indices, 0)?)?, rows)
    })?;
    tensors(&variables)
}

/// Images rehearsed in each step.
const REHEARSAL_BATCH: usize = 64;
/// Weight of the squared distance between a rehearsed image's embedding and the base's.
const REHEARSAL: f64 = 10.0;

/// Fine-tunes the encoder on one task; the word table stays.
///
/// Each step also rehearses: sketches of the base's mixture must stay where the base puts them. In a model this small,
/// fine-tunes without it overwrite each other and do not add up; with it they mostly keep to themselves, as those of
/// large models do by their size.
///
/// # Errors
/// Failed, from the tensor library.
pub fn fine_tune(base: &Tensors, task: &TaskSpec, schedule: &Schedule, on_step: OnStep<'_>) -> Result<Tensors> {
    let base = variables(base)?;
    let mut variables = base.clone();
    let names: Vec<String> = layout().into_iter().filter(|spec| spec.is_trained()).map(|spec| spec.name).collect();
    let rows = task.word_rows();
    let n_classes = rows.len();
    let rows = Tensor::from_vec(rows, n_classes, &Device::Cpu)?;
    let mut random = Stream::named(SEED, &["fine-tune", task.name]);
    let rehearsal = Rehearsal::new(&base, schedule.n_rehearsed)?;
    descend(&mut variables, &names, schedule, on_step, |model| {
        let Set { pixels, labels } = train_batch(task, schedule.batch, &mut random)?;
        let loss = cross_entropy(&model.logits(&pixels_tensor(&pixels)?, &rows)?, labels)?;
        match &rehearsal {
            Some(rehearsal) => Ok((loss + rehearsal.penalty(model, &mut random)?)?),
            None => Ok(loss),
        }
    })?;
    tensors(&variables)
}

/// Images of the base's mixture, and where the base puts them.
struct Rehearsal {
    /// `[n_rehearsed, 256]`
    pixels: Tensor,
    /// `[n_rehearsed, EMBED]`
    remembered: Tensor,
}

impl Rehearsal {
    fn new(base: &Variables, n_images: usize) -> Result<Option<Self>> {
        if n_images == 0 {
            return Ok(None);
        }
        let (mixture, _) = mixture_batch(n_images, &mut Stream::named(SEED, &["rehearsal"]));
        let pixels = pixels_tensor(&mixture.pixels)?;
        let remembered = Graph::new(base)?.encode(&pixels)?;
        Ok(Some(Self { pixels, remembered }))
    }

    /// How far some of the images have drifted.
    fn penalty(&self, model: &Graph, random: &mut Stream) -> Result<Tensor> {
        let n_images = self.pixels.dim(0)?;
        let chosen: Vec<u32> = (0..REHEARSAL_BATCH).map(|_| random.pick(n_images) as u32).collect();
        let chosen = Tensor::from_vec(chosen, REHEARSAL_BATCH, &Device::Cpu)?;
        let now = model.encode(&self.pixels.index_select(&chosen, 0)?)?;
        let drift = (now - self.remembered.index_select(&chosen, 0)?)?;
        Ok((drift.sqr()?.sum_all()? * (REHEARSAL / REHEARSAL_BATCH as f64))?)
    }
}

/// AdamW on the named tensors; the others are constants.
fn descend(
    variables: &mut Variables,
    names: &[String],
    schedule: &Schedule,
    on_step: OnStep<'_>,
    mut loss_of: impl FnMut(&Graph) -> Result<Tensor>,
) -> Result<()> {
    let mut moved = Vec::with_capacity(names.len());
    for name in names {
        let tensor = variables.get_mut(name).ok_or_else(|| Error::failed(format!("tensor {name} is missing")))?;
        // A copy: a variable is changed in place, and the base's storage is shared.
        let variable = Var::from_tensor(&tensor.copy()?)?;
        *tensor = variable.as_tensor().clone();
        moved.push(variable);
    }
    let params = ParamsAdamW { lr: schedule.rate, weight_decay: schedule.decay, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(moved, params)?;
    for step in 0..schedule.n_steps {
        optimiser.set_learning_rate(schedule.rate_at(step));
        // Reshapes of variables are part of the graph, so that each step needs a model of its own.
        let loss = loss_of(&Graph::new(variables)?)?;
        optimiser.backward_step(&loss)?;
        let is_reported = (step + 1) % 50 == 0 || step + 1 == schedule.n_steps;
        if is_reported {
            on_step(step + 1, loss.to_scalar::<f32>()?);
        }
    }
    for name in names {
        if let Some(tensor) = variables.get_mut(name) {
            *tensor = tensor.detach().copy()?;
        }
    }
    Ok(())
}

/// Mean of −log softmax(logits)[target].
fn cross_entropy(logits: &Tensor, targets: Vec<u32>) -> Result<Tensor> {
    let n_images = targets.len();
    let targets = Tensor::from_vec(targets, (n_images, 1), &Device::Cpu)?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let log_sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok((log_sums - shifted.gather(&targets, 1)?)?.mean_all()?)
}

/// `[n_tasks, n_words]`: 0 for a task's own words, far below 0 for the others.
fn class_masks() -> Result<Tensor> {
    let n_words = words().len();
    let mut masks = vec![-1e4_f32; TASKS.len() * n_words];
    for (index, task) in TASKS.iter().enumerate() {
        for row in task.word_rows() {
            masks[index * n_words + row as usize] = 0.0;
        }
    }
    Ok(Tensor::from_vec(masks, (TASKS.len(), n_words), &Device::Cpu)?)
}
