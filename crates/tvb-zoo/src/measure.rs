//! What a set of recovered tasks is worth: each alone, all added, some added, one taken away.
//!
//! Scales are chosen on the validation split, the test split is reported. However the tasks were stored, the questions
//! are the same, down to which subsets are added.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::eval::Evaluator;
use crate::model::{Model, Tensors};
use crate::random::Stream;
use crate::survey::edited;
use crate::tasks::TaskSpec;
use crate::{Result, checkpoint, parallel};

/// Scales that additions try.
const ADDITION_SCALES: &[f64] = &[0.4, 0.6, 0.75, 0.9, 1.1, 1.4, 1.8];
/// Scales that negation tries.
const NEGATION_SCALES: &[f64] = &[0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4];
const NEGATION_SCALES_QUICK: &[f64] = &[0.4, 0.6, 0.8, 1.0, 1.3];
/// The share of its accuracy that the control must keep.
const KEEP: f64 = 0.95;
/// Tasks that are taken away, one at a time: the first, so that they are the same for any number of tasks.
const N_TARGETS: usize = 8;
const N_TARGETS_QUICK: usize = 4;
/// How many pairs and how many halves are added.
const N_SUBSETS: [usize; 2] = [8, 4];
const N_SUBSETS_QUICK: [usize; 2] = [2, 1];
const SUBSET_SEED: u64 = 2025;

/// Accuracies on the test split, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Each task's own, by the task's recovered model.
    pub individual: Vec<f64>,
    /// All tasks added.
    pub addition: Added,
    /// Pairs of tasks added, then halves of all.
    pub subsets: Vec<Added>,
    /// The task that was taken away, meaned over the targets.
    pub negated: f64,
    /// The control's then.
    pub control: f64,
}

/// What sums of so many tasks reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Tasks in a sum.
    pub n_tasks: usize,
    /// The scale, the same for every sum of this size.
    pub scale: f64,
    /// Mean over the sums and their tasks.
    pub mean: f64,
    /// The same, with each accuracy as a part of the fine-tune's own.
    pub normalised: f64,
}

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Each task alone, and all added.
    Brief,
    /// Few subsets, scales and targets too.
    Quick,
    /// Everything.
    Full,
}

/// Asks about one task.
struct Question {
    val: Evaluator,
    test: Evaluator,
    own_val: f64,
    own_test: f64,
}

impl Question {
    fn ask(&self, model: &Model, split: Split) -> Result<f64> {
        let evaluator = if split == Split::Test { &self.test } else { &self.val };
        let accuracies = evaluator.accuracies(model)?;
        Ok(accuracies.first().map_or(f64::NAN, |one| one.value))
    }

    fn own(&self, split: Split) -> f64 {
        if split == Split::Test { self.own_test } else { self.own_val }
    }
}

/// Holds the images and the yardstick.
pub struct Examiner {
    base: Tensors,
    tasks: Vec<&'static TaskSpec>,
    questions: Vec<Question>,
    control: Question,
    /// Sizes, and the sets of that size.
    subsets: Vec<Vec<Vec<usize>>>,
    n_targets: usize,
    negation_scales: &'static [f64],
}

impl Examiner {
    /// For these tasks, whose fine-tunes are in the folder `zoo` beside the base.
    ///
    /// # Errors
    /// Where a checkpoint cannot be read or is not of this model.
    pub fn new(zoo: &Path, tasks: &[&'static TaskSpec], extent: Extent) -> Result<Self> {
        let base = checkpoint::read(&file_of(zoo, "base"))?;
        let questions = parallel::map(tasks, |task| {
            let (val, test) = (Evaluator::new(&[task], Split::Val)?, Evaluator::new(&[task], Split::Test)?);
            let mut question = Question { val, test, own_val: 1.0, own_test: 1.0 };
            let own = Model::new(&checkpoint::read(&file_of(zoo, task.name))?)?;
            question.own_val = question.ask(&own, Split::Val)?;
            question.own_test = question.ask(&own, Split::Test)?;
            Ok(question)
        })?;
        let of_control = |split| -> Result<Evaluator> { Ok(Evaluator::new(&[], split)?.with_control(split)) };
        let mut control =
            Question { val: of_control(Split::Val)?, test: of_control(Split::Test)?, own_val: 1.0, own_test: 1.0 };
        let untouched = Model::new(&base)?;
        control.own_val = control.ask(&untouched, Split::Val)?;
        control.own_test = control.ask(&untouched, Split::Test)?;
        let n_subsets = match extent {
            Extent::Brief => [0, 0],
            Extent::Quick => N_SUBSETS_QUICK,
            Extent::Full => N_SUBSETS,
        };
        let sizes = [2, tasks.len() / 2];
        let sizes = sizes.iter().zip(n_subsets).filter(|(_, n)| *n > 0);
        let subsets = sizes.map(|(size, n)| drawn(tasks.len(), *size, n)).collect();
        let n_targets = match extent {
            Extent::Brief => 0,
            Extent::Quick => N_TARGETS_QUICK,
            Extent::Full => N_TARGETS,
        };
        let n_targets = n_targets.min(tasks.len());
        let negation_scales = if extent == Extent::Full { NEGATION_SCALES } else { NEGATION_SCALES_QUICK };
        Ok(Self { base, tasks: tasks.to_vec(), questions, control, subsets, n_targets, negation_scales })
    }

    /// Measures folders of recovered tasks, each a checkpoint `TASK.safetensors`, several at once.
    ///
    /// # Errors
    /// Where a checkpoint cannot be read or is not of this model.
    pub fn folders(&self, folders: &[PathBuf]) -> Result<Vec<Measured>> {
        parallel::map(folders, |folder| {
            let read = |task: &&TaskSpec| checkpoint::read(&file_of(folder, task.name));
            self.measure(&self.tasks.iter().map(read).collect::<Result<Vec<_>>>()?)
        })
    }

    /// Measures recovered tasks, in the order of the tasks.
    fn measure(&self, recovered: &[Tensors]) -> Result<Measured> {
        let mut individual = Vec::new();
        for (question, tensors) in self.questions.iter().zip(recovered) {
            individual.push(question.ask(&Model::new(tensors)?, Split::Test)?);
        }
        let all = vec![(0..recovered.len()).collect()];
        let addition = self.add(recovered, &all)?;
        let subsets = self.subsets.iter().map(|subsets| self.add(recovered, subsets)).collect::<Result<_>>()?;
        let (mut negated, mut control) = (0.0, 0.0);
        for (question, tensors) in self.questions.iter().zip(recovered).take(self.n_targets) {
            let (of_target, of_control) = self.negate(question, tensors)?;
            negated += of_target / self.n_targets as f64;
            control += of_control / self.n_targets as f64;
        }
        Ok(Measured { individual, addition, subsets, negated, control })
    }

    /// What sums of these subsets reach at the scale that is best for all of them together.
    fn add(&self, recovered: &[Tensors], subsets: &[Vec<usize>]) -> Result<Added> {
        let mut sums = Vec::new();
        for subset in subsets {
            let weighted: Vec<(&Tensors, f64)> =
                subset.iter().filter_map(|&task| recovered.get(task)).map(|tensors| (tensors, 1.0)).collect();
            sums.push((edited(&self.base, &weighted)?, subset));
        }
        let reached = |scale: f64, split: Split| -> Result<(f64, f64)> {
            let (mut mean, mut normalised, mut n) = (0.0, 0.0, 0);
            for (sum, subset) in &sums {
                let model = Model::new(&edited(&self.base, &[(sum, scale)])?)?;
                for question in subset.iter().filter_map(|&task| self.questions.get(task)) {
                    let value = question.ask(&model, split)?;
                    mean += value;
                    normalised += value / question.own(split);
                    n += 1;
                }
            }
            Ok((mean / f64::from(n), normalised / f64::from(n)))
        };
        let (mut scale, mut best) = (f64::NAN, f64::NEG_INFINITY);
        for &candidate in ADDITION_SCALES {
            let (_, normalised) = reached(candidate, Split::Val)?;
            if normalised > best {
                (scale, best) = (candidate, normalised);
            }
        }
        let (mean, normalised) = reached(scale, Split::Test)?;
        Ok(Added { n_tasks: subsets.first().map_or(0, Vec::len), scale, mean, normalised })
    }

    /// A task taken away as far as the control allows: its accuracy, and the control's.
    fn negate(&self, question: &Question, tensors: &Tensors) -> Result<(f64, f64)> {
        let without = |scale: f64| Model::new(&edited(&self.base, &[(tensors, -scale)])?);
        // The base itself keeps the control.
        let (mut scale, mut lowest) = (0.0, question.ask(&without(0.0)?, Split::Val)?);
        for &candidate in self.negation_scales {
            let model = without(candidate)?;
            if self.control.ask(&model, Split::Val)? < KEEP * self.control.own_val {
                continue;
            }
            let target = question.ask(&model, Split::Val)?;
            if target < lowest {
                (scale, lowest) = (candidate, target);
            }
        }
        let model = without(scale)?;
        Ok((question.ask(&model, Split::Test)?, self.control.ask(&model, Split::Test)?))
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.safetensors"))
}

/// Different sets of `size` of `n_tasks` tasks, at most `n_sets`; the same whenever it is asked.
fn drawn(n_tasks: usize, size: usize, n_sets: usize) -> Vec<Vec<usize>> {
    let mut random = Stream::named(SUBSET_SEED, &["subsets", &n_tasks.to_string(), &size.to_string()]);
    let mut sets: Vec<Vec<usize>> = Vec::new();
    // A set that was drawn before is drawn again; a few tasks have few sets.
    for _ in 0..100 * n_sets {
        let mut left: Vec<usize> = (0..n_tasks).collect();
        let mut set: Vec<usize> = (0..size.min(n_tasks)).map(|_| left.swap_remove(random.pick(left.len()))).collect();
        set.sort_unstable();
        if sets.len() < n_sets && !sets.contains(&set) {
            sets.push(set);
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::scenario;

    #[test]
    fn subsets_are_different_and_the_same_every_time() {
        for (n_tasks, size, n_sets) in [(8, 2, 8), (8, 4, 4), (20, 10, 4), (2, 2, 8), (3, 2, 8)] {
            let sets = drawn(n_tasks, size, n_sets);
            assert_eq!(sets, drawn(n_tasks, size, n_sets));
            assert_eq!(sets.len(), n_sets.min(if n_tasks < 4 { 2 * n_tasks - 3 } else { n_sets }));
            for (index, set) in sets.iter().enumerate() {
                assert!(set.len() == size && set.iter().all(|&task| task < n_tasks) && !sets[..index].contains(set));
            }
        }
    }

    #[test]
    fn the_fine_tunes_themselves_are_what_everything_is_measured_by() {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints");
        let tasks: Vec<_> = scenario(8).unwrap().iter().collect();
        let examiner = Examiner::new(&zoo, &tasks, Extent::Quick).unwrap();
        let folders = vec![zoo.clone()];
        let measured = examiner.folders(&folders).unwrap().remove(0);
        let own: Vec<f64> = examiner.questions.iter().map(|question| question.own_test).collect();
        assert_eq!(measured.individual, own);
        assert!(measured.addition.normalised > 0.9 && measured.addition.n_tasks == 8);
        // A sum of fewer tasks has less in it to get in the way.
        assert!(measured.subsets[0].normalised > measured.addition.normalised);
        assert!(measured.negated < 0.5 && measured.control > 0.85);
        // Nothing recovered: nothing added, nothing forgotten.
        let nothing = examiner.measure(&vec![examiner.base.clone(); 8]).unwrap();
        assert!(nothing.addition.mean < 0.6 && nothing.control == examiner.control.own_test);
        assert!(nothing.negated > measured.negated);
    }
}
