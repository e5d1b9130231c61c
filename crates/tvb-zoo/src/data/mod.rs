//! Images and labels: for a task's training, validation and test, and for the base's mixture.
//!
//! | what | from |
//! |---|---|
//! | a task's train, val, test | `digits.rs` (UCI images, three fixed parts) or `procedural/` (three random streams) |
//! | the base's mixture | `procedural/` drawn cleanly; digits only as printed strokes, never the UCI images |

pub mod digits;
pub mod procedural;

use crate::Result;
use crate::image::{Image, N_PIXELS};
use crate::random::Stream;
use crate::tasks::{Source, TASKS, TaskSpec};

/// Images per task in the validation and in the test set.
pub const N_EVAL: usize = 240;

/// The seed of every image that is evaluated; training has its own.
const EVAL_SEED: u64 = 2025;

/// Which part of a task's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is fine-tuned on.
    Train,
    /// What scales are chosen on.
    Val,
    /// What is reported.
    Test,
}

impl Split {
    /// "train", "val" or "test".
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// Images and their classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// `[n_images, 256]`, values 0 to 1.
    pub pixels: Vec<f32>,
    /// `[n_images]`, an index into the task's classes.
    pub labels: Vec<u32>,
}

impl Set {
    /// Number of images.
    pub fn n_images(&self) -> usize {
        self.labels.len()
    }

    /// The pixels of one image.
    pub fn image(&self, index: usize) -> &[f32] {
        &self.pixels[index * N_PIXELS..(index + 1) * N_PIXELS]
    }

    fn push(&mut self, image: &Image, label: usize) {
        self.pixels.extend_from_slice(&image.pixels);
        self.labels.push(label as u32);
    }
}

/// The whole validation or test set of a task: [`N_EVAL`] images, the same on every machine.
///
/// # Errors
/// Failed, where the packed digits are damaged.
pub fn eval_set(task: &TaskSpec, split: Split) -> Result<Set> {
    let mut random = Stream::named(EVAL_SEED, &[task.name, split.name()]);
    let mut set = Set::default();
    for index in 0..N_EVAL {
        let (image, label) = match task.source {
            Source::Digits(guise) => {
                let part = digits::part(split)?;
                let drawn = &part[index % part.len()];
                (guise.apply(drawn, &mut random), digit_label(task, drawn.digit))
            }
            // Classes in turn, so that every one is equally frequent.
            Source::Drawn(family) => {
                let label = index % task.classes.len();
                (family.draw(label, procedural::TASK, &mut random), label)
            }
        };
        set.push(&image, label);
    }
    Ok(set)
}

/// Images per drawn task in the control.
const N_CONTROL: usize = 24;
/// Wilder than the base's mixture, tamer than a task: nothing was trained on these images.
const CONTROL_WILD: f32 = 0.5;

/// The control: half-wild images of every task that is drawn (all but the digits).
pub fn control_sets(split: Split) -> Vec<(&'static TaskSpec, Set)> {
    let mut sets = Vec::new();
    for task in &TASKS {
        let Source::Drawn(family) = task.source else { continue };
        let mut random = Stream::named(EVAL_SEED, &["control", task.name, split.name()]);
        let mut set = Set::default();
        for index in 0..N_CONTROL {
            let label = index % task.classes.len();
            set.push(&family.draw(label, CONTROL_WILD, &mut random), label);
        }
        sets.push((task, set));
    }
    sets
}

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
                (guise.apply(drawn, random), digit_label(task, drawn.digit))
            }
            Source::Drawn(family) => {
                let label = random.pick(task.classes.len());
                (family.draw(label, procedural::TASK, random), label)
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
                (guise.sketch(digit, random), digit_label(task, digit))
            }
            Source::Drawn(family) => {
                let label = random.pick(task.classes.len());
                let wild = random.range(0.0, procedural::SKETCH);
                (family.draw(label, wild, random), label)
            }
        };
        set.push(&image, label);
        task_indices.push(task_index as u32);
    }
    (set, task_indices)
}

/// A digit's class: itself, or even and odd where the task has two classes.
fn digit_label(task: &TaskSpec, digit: usize) -> usize {
    if task.classes.len() == 2 { digit % 2 } else { digit }
}
