//! The images that are evaluated: a task's validation and test sets, and the control's. The same on every machine.

use crate::Result;
use crate::data::digits;
use crate::data::procedural::TASK;
use crate::data::{Set, Split};
use crate::random::Stream;
use crate::tasks::{Source, TASKS, TaskSpec};

/// Images per task in the validation and in the test set.
pub const N_EVAL: usize = 240;

/// The seed of every image that is evaluated; training has its own.
const EVAL_SEED: u64 = 2025;

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
                (guise.apply(drawn, &mut random), task.digit_label(drawn.digit))
            }
            // Classes in turn, so that every one is equally frequent.
            Source::Drawn(family) => {
                let label = index % task.classes.len();
                (family.draw(label, TASK, &mut random), label)
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
