//! The images that are trained on: batches of a task, and of the base's mixture.

use crate::Result;
use crate::data::digits;
use crate::data::procedural::{SKETCH, TASK};
use crate::data::{Set, Split};
use crate::random::Stream;
use crate::tasks::{Source, TASKS, TaskSpec};

/// One training batch of a task.
///
/// # Errors
/// Failed, where the packed digits are damaged.
pub fn train_batch(task: &TaskSpec, n_images: usize, random: &mut Stream) -> Result<Set> {
    let mut set = Set::default();
    for _ in 0..n_images {
        let (image, label) = match task.source {
            Source::Digits(guise) => {
                let part = digits::part(Split::Train)?;
                let drawn = &part[random.pick(part.len())];
                (guise.apply(drawn, random), task.digit_label(drawn.digit))
            }
            Source::Drawn(family) => {
                let label = random.pick(task.classes.len());
                (family.draw(label, TASK, random), label)
            }
        };
        set.push(&image, label);
    }
    Ok(set)
}

/// One batch of the base's mixture, with the index of the task each image belongs to.
///
/// The images are sketches of the tasks' classes: drawn cleanly, and for the digits printed instead of handwritten.
/// What the tasks add (handwriting, clutter, turns, noise) is left to fine-tuning.
pub fn mixture_batch(n_images: usize, random: &mut Stream) -> (Set, Vec<u32>) {
    let mut set = Set::default();
    let mut task_indices = Vec::with_capacity(n_images);
    for _ in 0..n_images {
        let task_index = random.pick(TASKS.len());
        let task = &TASKS[task_index];
        let (image, label) = match task.source {
            Source::Digits(guise) => {
                let digit = random.pick(10);
                (guise.sketch(digit, random), task.digit_label(digit))
            }
            Source::Drawn(family) => {
                let label = random.pick(task.classes.len());
                let wild = random.range(0.0, SKETCH);
                (family.draw(label, wild, random), label)
            }
        };
        set.push(&image, label);
        task_indices.push(task_index as u32);
    }
    (set, task_indices)
}
