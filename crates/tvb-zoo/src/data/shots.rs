//! A few training images of each class, for fits from few examples: drawn by a number, and never any that are evaluated.

use crate::Result;
use crate::data::digits;
use crate::data::procedural::TASK;
use crate::data::{Set, Split};
use crate::random::Stream;
use crate::tasks::{Source, TaskSpec};

/// Its own seed: neither training's nor evaluation's.
const SHOTS_SEED: u64 = 4202;

/// `n_shots` images of every class of a task, class by class in turn.
///
/// # Errors
/// Failed, where the packed digits are damaged or have too few of a class. Usage: no images.
pub fn few_shots(task: &TaskSpec, n_shots: usize, draw: u64) -> Result<Set> {
    let mut random = Stream::named(SHOTS_SEED, &[task.name, &draw.to_string()]);
    let mut set = Set::default();
    if n_shots == 0 {
        return Err(crate::Error::usage("at least one image of each class expected, 0 found"));
    }
    match task.source {
        Source::Drawn(family) => {
            for label in (0..n_shots).flat_map(|_| 0..task.classes.len()) {
                set.push(&family.draw(label, TASK, &mut random), label);
            }
        }
        Source::Digits(guise) => {
            let part = digits::part(Split::Train)?;
            let mut left: Vec<usize> = (0..part.len()).collect();
            let mut n_left = vec![n_shots; task.classes.len()];
            while n_left.iter().any(|n| *n > 0) {
                if left.is_empty() {
                    return Err(crate::Error::failed(format!("{}: fewer than {n_shots} images of a class", task.name)));
                }
                let drawn = &part[left.swap_remove(random.pick(left.len()))];
                let label = task.digit_label(drawn.digit);
                if let Some(n) = n_left.get_mut(label).filter(|n| **n > 0) {
                    *n -= 1;
                    set.push(&guise.apply(drawn, &mut random), label);
                }
            }
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::eval_set;
    use crate::tasks::TASKS;

    #[test]
    fn every_class_has_as_many_and_no_image_is_evaluated() {
        for task in &TASKS {
            let shots = few_shots(task, 4, 1).unwrap();
            for class in 0..task.classes.len() {
                assert_eq!(shots.labels.iter().filter(|label| **label as usize == class).count(), 4, "{}", task.name);
            }
            assert_eq!(shots, few_shots(task, 4, 1).unwrap());
            assert_ne!(shots, few_shots(task, 4, 2).unwrap());
            for split in [Split::Val, Split::Test] {
                let evaluated = eval_set(task, split).unwrap();
                for shot in 0..shots.n_images() {
                    assert!((0..evaluated.n_images()).all(|at| evaluated.image(at) != shots.image(shot)));
                }
            }
        }
        assert!(few_shots(&TASKS[0], 0, 1).is_err());
        assert!(few_shots(&TASKS[0], 10_000, 1).is_err());
    }
}
