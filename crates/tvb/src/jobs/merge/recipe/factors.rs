//! Factors that differ from tensor to tensor: LiNeS and rules by name, on λ where they are every task's, on the weight where one's.

use super::definition::Recipe;
use crate::error::Result;
use crate::jobs::edit::{Source, TensorWeights, WeightWords};
use crate::jobs::merge::parameters::{Parameter, Wrong, parameters_of};
use crate::jobs::merge::settings::TensorSettings;

/// The factors of a recipe in every tensor.
#[derive(Clone, Debug, Default)]
pub struct Factors {
    /// Of the whole edit.
    of_all: Option<TensorWeights>,
    /// Of single tasks.
    of_tasks: Option<TensorWeights>,
    /// Where the tasks stand in the source.
    tasks: Vec<usize>,
}

impl Recipe {
    /// The factors for the tensors of `source`, of which the recipe's tasks are those at `tasks`.
    ///
    /// A factor of every task multiplies λ: as a weight it would cancel out where the edit is divided by the weights.
    ///
    /// # Errors
    /// Usage or rejected: a method without a λ or without weights, and as [`TensorWeights::new`].
    pub fn factors(&self, source: Source<'_>, tasks: &[usize]) -> Result<Factors> {
        let names = source.task_names();
        let is_of_task = |rule: &&String| {
            let task = rule.split_once(':').map(|(task, _)| task);
            task.is_some_and(|task| names.iter().any(|name| name == task))
        };
        let (own, all): (Vec<&String>, Vec<&String>) = self.own.weight_for.iter().partition(is_of_task);
        let words = |rules: Vec<&String>, lines| WeightWords { rules: rules.into_iter().cloned().collect(), lines };
        let (of_all, of_tasks) = (words(all, self.own.lines), words(own, None));
        for (words, parameter, what) in [
            (&of_all, Parameter::Lambda, "factors of tensors"),
            (&of_tasks, Parameter::Weight, "a task's factors of tensors"),
        ] {
            if !words.is_empty() && !parameters_of(self.method).contains(&parameter) {
                let wrong = Wrong::new(format!(
                    "{}: {what} expected nowhere, some found: it takes no {parameter}",
                    self.method
                ));
                return Err(self.error(wrong));
            }
        }
        let at = |error: crate::Error| error.context("weights by tensor");
        Ok(Factors {
            of_all: source.tensor_weights(&of_all).map_err(at)?,
            of_tasks: source.tensor_weights(&of_tasks).map_err(at)?,
            tasks: tasks.to_vec(),
        })
    }
}

impl Factors {
    /// Puts the factors of one tensor into its settings.
    pub fn apply(&self, tensor: &str, settings: &mut TensorSettings) {
        if let (Some(factors), Some(first)) = (&self.of_all, self.tasks.first()) {
            settings.lambda *= factors.factor(tensor, *first);
        }
        if let Some(factors) = &self.of_tasks {
            let weights = settings.weight.iter_mut().zip(&self.tasks);
            weights.for_each(|(weight, task)| *weight *= factors.factor(tensor, *task));
        }
    }
}
