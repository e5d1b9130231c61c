//! The twenty tasks, in the order of the three scenarios: the first 8, the first 14, and all 20.
//!
//! A class is a word, and tasks that mean the same thing use the same word ("three" is three in every guise of the
//! digits), as class names do for CLIP. One frozen table of word embeddings is therefore the head of every task.

use crate::data::digits::Guise;
use crate::data::procedural::Family;
use crate::{Error, Result};

/// Number of tasks.
pub const N_TASKS: usize = 20;

/// The sizes of the scenarios: that many tasks from the front of [`TASKS`].
pub const SCENARIOS: [usize; 3] = [8, 14, 20];

/// Where a task's images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The UCI handwritten digits, changed in some way.
    Digits(Guise),
    /// Drawn from random numbers.
    Drawn(Family),
}

/// One classification task.
#[derive(Clone, Copy, Debug)]
pub struct TaskSpec {
    /// Short lower-case name, also the stem of its checkpoint.
    pub name: &'static str,
    /// What is asked of an image, in one phrase.
    pub about: &'static str,
    /// The word of each class.
    pub classes: &'static [&'static str],
    /// Where the images come from.
    pub source: Source,
}

const DIGITS: &[&str] = &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const PARITY: &[&str] = &["even", "odd"];
const LETTERS: &[&str] = &["A", "C", "E", "H", "K", "L", "S", "T", "V", "X"];
const COMPASS: &[&str] = &["east", "southeast", "south", "southwest", "west", "northwest", "north", "northeast"];

const fn task(name: &'static str, about: &'static str, classes: &'static [&'static str], source: Source) -> TaskSpec {
    TaskSpec { name, about, classes, source }
}

/// Every task, in scenario order.
pub const TASKS: [TaskSpec; N_TASKS] = [
    task("digits", "which handwritten digit", DIGITS, Source::Digits(Guise::Plain)),
    task(
        "shapes",
        "which solid shape, in clutter",
        &["disc", "square", "triangle", "cross", "ring", "diamond"],
        Source::Drawn(Family::Shapes),
    ),
    task(
        "stripes",
        "at what angle the stripes run",
        &["level", "rising", "steep", "upright", "plunging", "falling"],
        Source::Drawn(Family::Stripes),
    ),
    task("letters", "which letter, slanted and turned", LETTERS, Source::Drawn(Family::Letters)),
    task(
        "blobs",
        "how many soft blobs",
        &["one dot", "two dots", "three dots", "four dots", "five dots"],
        Source::Drawn(Family::Blobs),
    ),
    task("mazes", "how a maze runs", &["rows", "columns", "branches", "halls", "spiral"], Source::Drawn(Family::Mazes)),
    task(
        "symmetry",
        "which mirror the pattern has",
        &["left mirrors right", "top mirrors bottom", "turned half", "no mirror"],
        Source::Drawn(Family::Symmetry),
    ),
    task(
        "textures",
        "which surface",
        &["checks", "spots", "bricks", "grain", "ripples", "hatching"],
        Source::Drawn(Family::Textures),
    ),
    task("tilted", "which handwritten digit, turned by 30 to 60 degrees", DIGITS, Source::Digits(Guise::Tilted)),
    task("gradients", "which way the light falls", COMPASS, Source::Drawn(Family::Gradients)),
    task("negatives", "which handwritten digit, dark on light", DIGITS, Source::Digits(Guise::Negative)),
    task("corners", "an even or odd number of bright corners", PARITY, Source::Drawn(Family::Corners)),
    task("arrows", "where the arrow points", COMPASS, Source::Drawn(Family::Arrows)),
    task(
        "faces",
        "the mood of a face",
        &["happy", "sad", "surprised", "calm", "winking"],
        Source::Drawn(Family::Faces),
    ),
    task("parity", "an even or odd handwritten digit", PARITY, Source::Digits(Guise::Plain)),
    task("noisy", "which handwritten digit, under noise", DIGITS, Source::Digits(Guise::Noisy)),
    task(
        "waves",
        "the form of a plotted wave",
        &["sine", "square wave", "zigzag", "sawtooth"],
        Source::Drawn(Family::Waves),
    ),
    task(
        "dice",
        "what a die shows",
        &["one dot", "two dots", "three dots", "four dots", "five dots", "six dots"],
        Source::Drawn(Family::Dice),
    ),
    task("stencils", "which letter, cut out of a bright plate", LETTERS, Source::Drawn(Family::Stencils)),
    task("occluded", "which handwritten digit, partly covered", DIGITS, Source::Digits(Guise::Occluded)),
];

/// Every class word once, in order of first appearance: the rows of the embedding table.
pub fn words() -> Vec<&'static str> {
    let mut words = Vec::new();
    for task in &TASKS {
        for word in task.classes {
            if !words.contains(word) {
                words.push(*word);
            }
        }
    }
    words
}

impl TaskSpec {
    /// The rows of the embedding table that are this task's classes.
    pub fn word_rows(&self) -> Vec<u32> {
        let words = words();
        let row = |class: &&str| words.iter().position(|word| word == class).map(|index| index as u32);
        self.classes.iter().filter_map(row).collect()
    }

    /// A digit's class: itself, or even and odd where the task has two classes.
    pub(crate) fn digit_label(&self, digit: usize) -> usize {
        if self.classes.len() == 2 { digit % 2 } else { digit }
    }
}

/// The task of this name.
///
/// # Errors
/// Usage, naming every task there is.
pub fn find(name: &str) -> Result<&'static TaskSpec> {
    TASKS.iter().find(|task| task.name == name).ok_or_else(|| {
        let known: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        Error::usage(format!("no task is called {name:?}; the tasks are {}", known.join(", ")))
    })
}

/// The first `n_tasks` tasks.
///
/// # Errors
/// Usage, unless `n_tasks` is one of [`SCENARIOS`].
pub fn scenario(n_tasks: usize) -> Result<&'static [TaskSpec]> {
    const ALL: &[TaskSpec] = &TASKS;
    match ALL.get(..n_tasks) {
        Some(tasks) if SCENARIOS.contains(&n_tasks) => Ok(tasks),
        _ => Err(Error::usage(format!("no scenario has {n_tasks} tasks; there are 8, 14 and 20"))),
    }
}
