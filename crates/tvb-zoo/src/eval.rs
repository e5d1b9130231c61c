//! Evaluation: the share of a task's images that are put in the right class.

use candle_core::{Device, Tensor};

use crate::Result;
use crate::data::{Split, eval_set};
use crate::model::{Model, pixels_tensor};
use crate::tasks::TaskSpec;

/// A task and the model's accuracy on it, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracy {
    /// The task's name.
    pub task: &'static str,
    /// Share of images in the right class.
    pub value: f64,
}

/// Accuracy on each task.
///
/// # Errors
/// Failed, from the data or the tensor library.
pub fn accuracies(model: &Model, tasks: &[&'static TaskSpec], split: Split) -> Result<Vec<Accuracy>> {
    tasks.iter().map(|task| Ok(Accuracy { task: task.name, value: accuracy(model, task, split)? })).collect()
}

/// Accuracy on one task. Cosines that are not numbers count as wrong.
///
/// # Errors
/// Failed, from the data or the tensor library.
pub fn accuracy(model: &Model, task: &TaskSpec, split: Split) -> Result<f64> {
    let set = eval_set(task, split)?;
    let rows = task.word_rows();
    let n_classes = rows.len();
    let rows = Tensor::from_vec(rows, n_classes, &Device::Cpu)?;
    let logits = model.logits(&pixels_tensor(&set.pixels)?, &rows)?.to_vec2::<f32>()?;
    let is_right = |pair: &(&Vec<f32>, &u32)| {
        let (scores, label) = (pair.0, *pair.1);
        let own = scores[label as usize];
        scores.iter().enumerate().all(|(class, &score)| class == label as usize || own > score)
    };
    let n_right = logits.iter().zip(&set.labels).filter(is_right).count();
    Ok(n_right as f64 / set.n_images() as f64)
}

/// The mean of some accuracies; 0 for none.
pub fn mean(accuracies: &[Accuracy]) -> f64 {
    accuracies.iter().map(|accuracy| accuracy.value).sum::<f64>() / accuracies.len().max(1) as f64
}
