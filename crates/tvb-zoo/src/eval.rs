//! Evaluation: the share of a task's images that are put in the right class.
//!
//! Beside the tasks there is a control, for negation: tamer images of everything but digits, most of which the base
//! gets right. An edit that keeps it has not broken the model.

use crate::Result;
use crate::data::{Set, Split, control_sets, eval_set, few_shots};
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
    /// Mean cross-entropy of the right class, in nats: finer than a share where images are few.
    pub loss: f64,
}

/// What is told of an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metrics {
    /// Accuracies alone.
    #[default]
    Accuracies,
    /// Losses too.
    Losses,
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

    /// Images in the right class, and the sum of the losses. A cosine that is not a number is never right.
    fn ask(&self, model: &Model) -> Result<(usize, f64)> {
        let logits = model.logits(&self.set.pixels, &self.word_rows)?;
        let is_right = |scores: &[f32], label: usize| {
            scores.iter().enumerate().all(|(class, &score)| class == label || scores[label] > score)
        };
        let answers = || logits.iter().zip(&self.set.labels).map(|(scores, label)| (scores, *label as usize));
        let n_right = answers().filter(|(scores, label)| is_right(scores, *label)).count();
        Ok((n_right, answers().map(|(scores, label)| loss(scores, label)).sum()))
    }
}

/// −log of the share that a softmax gives the right class.
fn loss(scores: &[f32], label: usize) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|score| libm::exp(f64::from(score - most))).sum();
    libm::log(sum) - f64::from(scores[label] - most)
}

impl Evaluator {
    /// A few training images of these tasks, drawn by a number.
    ///
    /// # Errors
    /// As [`few_shots`].
    pub fn of_few(tasks: &[&'static TaskSpec], n_shots: usize, draw: u64) -> Result<Self> {
        let tasks =
            parallel::map(tasks, |task| Ok((task.name, vec![Question::new(task, few_shots(task, n_shots, draw)?)])))?;
        Ok(Self { tasks })
    }

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
            let (mut n_right, mut n_images, mut losses) = (0, 0, 0.0);
            for question in questions {
                let (right, loss) = question.ask(model)?;
                n_right += right;
                losses += loss;
                n_images += question.set.n_images();
            }
            let share = |sum: f64| sum / n_images.max(1) as f64;
            Ok(Accuracy { task, n_right, value: share(n_right as f64), loss: share(losses) })
        })
    }
}

/// The mean over the tasks, without the control; 0 for none.
pub fn mean(accuracies: &[Accuracy]) -> f64 {
    let values: Vec<f64> = accuracies.iter().filter(|one| one.task != CONTROL).map(|one| one.value).collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// One flat JSON object: `mean`, then one number per task, rounded to four places; with losses also `loss`, their mean, and
/// `loss.TASK`, not rounded.
pub fn to_json(accuracies: &[Accuracy], wanted: Metrics) -> serde_json::Map<String, serde_json::Value> {
    let rounded = |value: f64| serde_json::Value::from((value * 1e4).round() / 1e4);
    let mut object = serde_json::Map::new();
    object.insert(MEAN.to_owned(), rounded(mean(accuracies)));
    for one in accuracies {
        object.insert(one.task.to_owned(), rounded(one.value));
    }
    if wanted == Metrics::Losses {
        let of_tasks = || accuracies.iter().filter(|one| one.task != CONTROL).map(|one| one.loss);
        // A model that is no number anywhere is as bad as can be said.
        let finite = |loss: f64| serde_json::Value::from(if loss.is_finite() { loss } else { f64::MAX });
        object.insert("loss".to_owned(), finite(of_tasks().sum::<f64>() / of_tasks().count().max(1) as f64));
        for one in accuracies {
            object.insert(format!("loss.{}", one.task), finite(one.loss));
        }
    }
    object
}
