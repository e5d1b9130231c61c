//! What is asked for of a drop, and what came of it.

use crate::basis::Basis;
use crate::basis::manifest::Fidelity;
use crate::checkpoint::Existing;
use std::path::PathBuf;

/// How tasks leave a basis.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DropOptions {
    /// Where the basis without them goes; `None` replaces the old one.
    pub output: Option<PathBuf>,
    /// What to do where there is something at `output`.
    pub existing: Existing,
    /// Take a base that is not the basis's.
    pub force: bool,
}

impl Default for DropOptions {
    fn default() -> DropOptions {
        DropOptions { output: None, existing: Existing::Refuse, force: false }
    }
}

impl DropOptions {
    /// Writes the basis beside the old one.
    #[must_use]
    pub fn output(self, output: Option<PathBuf>) -> DropOptions {
        DropOptions { output, ..self }
    }

    /// What to do where there is something at the output.
    #[must_use]
    pub fn existing(self, existing: Existing) -> DropOptions {
        DropOptions { existing, ..self }
    }

    /// Takes a base that is not the basis's.
    #[must_use]
    pub fn force(self, force: bool) -> DropOptions {
        DropOptions { force, ..self }
    }
}

/// What a basis promises for an edit, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// The edit: `sum` of all tasks that stay, or another one that is kept.
    pub edit: String,
    /// How true it was to be expected to be in the old basis.
    pub before: Option<Fidelity>,
    /// The same in the new one.
    pub after: Option<Fidelity>,
}

/// A basis that tasks have left.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dropped {
    /// The basis as it is now.
    pub basis: Basis,
    /// What it promises.
    pub promises: Vec<Promise>,
    /// Whether the shared columns were made anew.
    pub remade: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}
