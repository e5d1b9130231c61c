//! Evaluation: the share of a task's images that are put in the right class.
//!
//! Beside the tasks there is a control, for negation: tamer images of everything but digits, most of which the base
//! gets right. An edit that keeps it has not broken the model.

use crate::Result;
use crate::data::{Set, Split, control_sets, eval_set};
use crate::model::Model;
use crate::parallel;
use crate::tasks::TaskSpec;

/// The name of the control among the tasks' names.
pub const CONTROL: &str = "control";
/// The name of the mean over the tasks (the control left out).
pub const MEAN: &str = "mean";

/// A task and the model's accuracy on it, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracy {
    /// The task's name, or [`CONTROL`].
    pub task: &'static str,
    /// Images in the right class.
    pub n_right: usize,
    /// Share of images in the right class.
    pub value: f64,
}

/// Tasks with their images at hand, to evaluate many models.
pub struct Evaluator {
    tasks: Vec<(&'static str, Vec<Question>)>,
}

/// Images that compete among the same words.
struct Question {
    set: Set,
    word_rows: Vec<u32>,
}

impl Question {
    fn new(task: &TaskSpec, set: Set) -> Self {
        Self { set, word_rows: task.word_rows() }
    }

    /// Images in the right class. A cosine that is not a number is never right.
    fn n_right(&self, model: &Model) -> Result<usize> {
        let logits = model.logits(&self.set.pixels, &self.word_rows)?;
        let is_right = |scores: &[f32], label: usize| {
            scores.iter().enumerate().all(|(class, &score)| class == label || scores[label] > score)
        };
        Ok(logits.iter().zip(&self.set.labels).filter(|(scores, label)| is_right(scores, **label as usize)).count())
    }
}

impl Evaluator {
    /// The images of these tasks, without the control.
    ///
    /// # Errors
    /// Failed, where the packed digits are damaged.
    pub fn new(tasks: &[&'static TaskSpec], split: Split) -> Result<Self> {
        let tasks = parallel::map(tasks, |task| Ok((task.name, vec![Question::new(task, eval_set(task, split)?)])))?;
        Ok(Self { tasks })
    }

    /// Adds the control behind the tasks.
    #[must_use]
    pub fn with_control(mut self, split: Split) -> Self {
        let questions = control_sets(split).into_iter().map(|(task, set)| Question::new(task, set)).collect();
        self.tasks.push((CONTROL, questions));
        self
    }

    /// Accuracy on each task, in order.
    ///
    /// # Errors
    /// Failed, where a thread stopped.
    pub fn accuracies(&self, model: &Model) -> Result<Vec<Accuracy>> {
        parallel::map(&self.tasks, |(task, questions)| {
            let (mut n_right, mut n_images) = (0, 0);
            for question in questions {
                n_right += question.n_right(model)?;
                n_images += question.set.n_images();
            }
            Ok(Accuracy { task, n_right, value: n_right as f64 / n_images.max(1) as f64 })
        })
    }
}

/// The mean over the tasks, without the control; 0 for none.
pub fn mean(accuracies: &[Accuracy]) -> f64 {
    let values: Vec<f64> = accuracies.iter().filter(|one| one.task != CONTROL).map(|one| one.value).collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// One flat JSON object: `mean`, then one number per task, rounded to four places.
pub fn to_json(accuracies: &[Accuracy]) -> serde_json::Map<String, serde_json::Value> {
    let rounded = |value: f64| serde_json::Value::from((value * 1e4).round() / 1e4);
    let mut object = serde_json::Map::new();
    object.insert(MEAN.to_owned(), rounded(mean(accuracies)));
    for one in accuracies {
        object.insert(one.task.to_owned(), rounded(one.value));
    }
    object
}
