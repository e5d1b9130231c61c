//! What plain task arithmetic does on the zoo: zero-shot, each fine-tune on its own task, addition at its best scale,
//! negation. This is written beside the checkpoints as `accuracies.json`, and is the yardstick for compressed bases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::eval::{Accuracy, CONTROL, Evaluator, mean};
use crate::model::{Elements, Model, Tensors};
use crate::tasks::{SCENARIOS, TASKS, TaskSpec};
use crate::{Error, Result};

/// Steps of the grid of scales from 0 to 1.
const N_SCALE_STEPS: usize = 20;
/// Negation may cost the control this share of its zero-shot accuracy.
const KEEP: f64 = 0.95;

/// Accuracies of the committed zoo on the test split, 0 to 1; scales were chosen on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The base on every task and on the control.
    pub zero_shot: BTreeMap<String, f64>,
    /// Each fine-tune on its own task.
    pub fine_tuned: BTreeMap<String, f64>,
    /// base + scale · Σ task vectors, one entry per scenario.
    pub addition: Vec<Addition>,
    /// base − scale · one task vector, one entry per task.
    pub negation: Vec<Negation>,
}

/// The sum of a scenario's task vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Addition {
    /// 8, 14 or 20.
    pub n_tasks: usize,
    /// The best of 0, 0.05, …, 1 on the validation split, by `normalised`.
    pub scale: f64,
    /// Mean accuracy over the scenario's tasks.
    pub mean: f64,
    /// Mean of accuracy over the task's own fine-tune's accuracy.
    pub normalised: f64,
    /// `normalised` of the base.
    pub zero_shot_normalised: f64,
}

/// One task vector subtracted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Negation {
    /// The task to forget.
    pub task: String,
    /// The scale with the lowest accuracy of the task that keeps 95 % of the control, on the validation split.
    pub scale: f64,
    /// The task's accuracy before.
    pub target_before: f64,
    /// The task's accuracy after.
    pub target_after: f64,
    /// The control's accuracy before.
    pub control_before: f64,
    /// The control's accuracy after.
    pub control_after: f64,
}

/// base + Σ weight · (fine-tune − base), for the float tensors.
///
/// # Errors
/// Failed, naming a tensor that a fine-tune lacks or has in another shape.
pub fn edited(base: &Tensors, weighted: &[(&Tensors, f64)]) -> Result<Tensors> {
    let mut result = base.clone();
    for (fine_tune, weight) in weighted {
        let weight = *weight as f32;
        for (name, sum) in &mut result {
            let before = &base[name];
            let (Elements::F32(sums), Some(befores)) = (&mut sum.elements, before.floats()) else { continue };
            let after = fine_tune.get(name).filter(|after| after.shape == before.shape);
            let afters = after.and_then(|after| after.floats());
            let afters =
                afters.ok_or_else(|| Error::failed(format!("tensor {name} is missing or has another shape")))?;
            for ((sum, before), after) in sums.iter_mut().zip(befores).zip(afters) {
                *sum += (after - before) * weight;
            }
        }
    }
    Ok(result)
}

/// Surveys a base and its fine-tunes, which are in the order of [`TASKS`]. `on_line` is told of each finished part.
///
/// # Errors
/// Failed, where a model lacks a tensor.
pub fn survey(base: &Tensors, fine_tunes: &[Tensors], on_line: &mut dyn FnMut(String)) -> Result<Survey> {
    let all: Vec<&'static TaskSpec> = TASKS.iter().collect();
    let zero_shot = Evaluator::new(&all, Split::Test)?.with_control(Split::Test).accuracies(&Model::new(base)?)?;
    let own = |split: Split| -> Result<Vec<f64>> {
        let of_task = |(task, tuned): (&&'static TaskSpec, &Tensors)| -> Result<f64> {
            Ok(mean(&Evaluator::new(&[*task], split)?.accuracies(&Model::new(tuned)?)?))
        };
        all.iter().zip(fine_tunes).map(of_task).collect()
    };
    let fine_tuned = own(Split::Test)?;
    for (task, (before, after)) in all.iter().zip(zero_shot.iter().zip(&fine_tuned)) {
        on_line(format!("{:<10} zero-shot {:.3}  fine-tuned {after:.3}", task.name, before.value));
    }

    let fine_tuned_val = own(Split::Val)?;
    let mut additions = Vec::new();
    for n_tasks in SCENARIOS {
        let add = |scale: f64| {
            let weighted: Vec<(&Tensors, f64)> = fine_tunes[..n_tasks].iter().map(|tuned| (tuned, scale)).collect();
            Model::new(&edited(base, &weighted)?)
        };
        let val = Evaluator::new(&all[..n_tasks], Split::Val)?;
        let score = |scale: f64| Ok(normalised(&val.accuracies(&add(scale)?)?, &fine_tuned_val));
        let scale = best(score)?;
        let reached = Evaluator::new(&all[..n_tasks], Split::Test)?.accuracies(&add(scale)?)?;
        let addition = Addition {
            n_tasks,
            scale,
            mean: round(mean(&reached)),
            normalised: round(normalised(&reached, &fine_tuned)),
            zero_shot_normalised: round(normalised(&zero_shot[..n_tasks], &fine_tuned)),
        };
        on_line(format!(
            "addition of {n_tasks} at {scale:.2}: {:.3} ({:.3} of fine-tuned; the base has {:.3})",
            addition.mean, addition.normalised, addition.zero_shot_normalised
        ));
        additions.push(addition);
    }

    let mut negations = Vec::new();
    for (index, task) in TASKS.iter().enumerate() {
        let negation = negate(base, &fine_tunes[index], task)?;
        on_line(format!(
            "negation of {} at {:.2}: target {:.3} to {:.3}, control {:.3} to {:.3}",
            task.name,
            negation.scale,
            negation.target_before,
            negation.target_after,
            negation.control_before,
            negation.control_after
        ));
        negations.push(negation);
    }

    Ok(Survey {
        zero_shot: zero_shot.iter().map(|one| (one.task.to_owned(), round(one.value))).collect(),
        fine_tuned: all.iter().zip(&fine_tuned).map(|(task, value)| (task.name.to_owned(), round(*value))).collect(),
        addition: additions,
        negation: negations,
    })
}

/// Finds the scale at which forgetting a task costs the control little.
fn negate(base: &Tensors, fine_tune: &Tensors, task: &'static TaskSpec) -> Result<Negation> {
    let ask = |evaluator: &Evaluator, scale: f64| -> Result<(f64, f64)> {
        let accuracies = evaluator.accuracies(&Model::new(&edited(base, &[(fine_tune, -scale)])?)?)?;
        let control = accuracies.iter().find(|one| one.task == CONTROL).map_or(0.0, |one| one.value);
        Ok((mean(&accuracies), control))
    };
    let val = Evaluator::new(&[task], Split::Val)?.with_control(Split::Val);
    let (_, control_before) = ask(&val, 0.0)?;
    let scale = best(|scale| {
        let (target, control) = ask(&val, scale)?;
        Ok(if control >= KEEP * control_before { -target } else { f64::NEG_INFINITY })
    })?;
    let test = Evaluator::new(&[task], Split::Test)?.with_control(Split::Test);
    let (before, after) = (ask(&test, 0.0)?, ask(&test, scale)?);
    Ok(Negation {
        task: task.name.to_owned(),
        scale,
        target_before: round(before.0),
        target_after: round(after.0),
        control_before: round(before.1),
        control_after: round(after.1),
    })
}

/// The scale of the grid with the highest score; the first of equals.
fn best(mut score: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let (mut best_scale, mut best_score) = (0.0, f64::NEG_INFINITY);
    for step in 0..=N_SCALE_STEPS {
        let scale = step as f64 / N_SCALE_STEPS as f64;
        let scored = score(scale)?;
        if scored > best_score {
            (best_scale, best_score) = (scale, scored);
        }
    }
    Ok(best_scale)
}

/// Mean of each accuracy over the fine-tune's, as the literature reports merging.
fn normalised(reached: &[Accuracy], fine_tuned: &[f64]) -> f64 {
    let shares = reached.iter().zip(fine_tuned).map(|(one, own)| one.value / own.max(1e-9));
    shares.sum::<f64>() / reached.len().max(1) as f64
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
