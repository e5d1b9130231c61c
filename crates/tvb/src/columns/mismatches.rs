//! Every disagreement between the base and the fine-tunes, counted and listed together.

use super::selection::Selection;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::shown::shown_path;
use std::collections::HashSet;
use std::fmt;

/// Mismatches listed in full before the rest become a count.
const MISMATCHES_LISTED: usize = 20;

/// One disagreement between a fine-tune and the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) task: String,
    pub(super) tensor: String,
    pub(super) n_elements: usize,
    pub(super) what: String,
}

/// Every disagreement is counted, and no more of them are kept than anybody will hear of: many checkpoints of many tensors
/// can disagree in each.
pub(super) struct Mismatches {
    pub(super) n: usize,
    pub(super) kept: Vec<Mismatch>,
    /// Tensors to be left out, where mismatches are skipped.
    tensors: Option<HashSet<String>>,
    /// Whether some differ in the number of their rows alone.
    pub(super) of_vocabulary: bool,
}

impl Mismatches {
    pub(super) fn new(selection: &Selection) -> Mismatches {
        Mismatches {
            n: 0,
            kept: Vec::new(),
            tensors: selection.skip_mismatched.then(HashSet::new),
            of_vocabulary: false,
        }
    }

    /// `n_elements` is 0 where the tensor is nowhere.
    pub(super) fn add(&mut self, task: &str, tensor: (&str, usize), what: impl FnOnce() -> String) {
        let (tensor, n_elements) = tensor;
        self.n += 1;
        let is_kept = match &mut self.tensors {
            Some(tensors) => tensors.insert(tensor.to_owned()),
            None => self.kept.len() < MISMATCHES_LISTED,
        };
        if is_kept {
            self.kept.push(Mismatch { task: task.to_owned(), tensor: tensor.to_owned(), n_elements, what: what() });
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}, tensor {}: {}", self.task, self.tensor, self.what)
    }
}

pub(super) fn mismatch_error(base: &Checkpoint, mismatches: &Mismatches) -> Error {
    let n_more = mismatches.n - mismatches.kept.len();
    let listed = mismatches.kept.iter().map(Mismatch::to_string);
    Error::rejected(format!(
        "{}: {} {} between the base and the fine-tunes",
        shown_path(base.path()),
        mismatches.n,
        if mismatches.n == 1 { "mismatch" } else { "mismatches" }
    ))
    .below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more"))))
    .hint(format!(
        "{}--skip-mismatched leaves these tensors out; --exclude REGEX chooses by name; --rename 's/…/…/' changes the tasks' names",
        if mismatches.of_vocabulary { "--vocab common takes the first rows that all have; " } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mismatches are counted, not kept.
    #[test]
    fn no_more_mismatches_are_kept_than_will_be_told() {
        let mut all = Mismatches::new(&Selection::all());
        let mut skipped = Mismatches::new(&Selection::all().skip_mismatched(true));
        for n in 0..1000 {
            for mismatches in [&mut all, &mut skipped] {
                mismatches.add(&format!("t{n}"), (&format!("w{}", n % 50), 1), || "missing".into());
            }
        }
        assert_eq!((all.n, all.kept.len()), (1000, MISMATCHES_LISTED));
        assert_eq!((skipped.n, skipped.kept.len()), (1000, 50));
        assert_eq!(skipped.kept[49].task, "t49");
    }
}
