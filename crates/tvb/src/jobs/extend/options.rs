//! What is asked for of an extension, and what came of it.

use crate::basis::Basis;
use crate::checkpoint::{Existing, Inputs};
use crate::columns::plan::Plan;
use std::path::PathBuf;
use tvb_kernels::Rate;

/// How a basis is extended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtendOptions {
    /// Where the extended basis goes; `None` replaces the old one.
    pub output: Option<PathBuf>,
    /// What to do where there is something at `output`.
    pub existing: Existing,
    /// The newcomers' weight in a sum that is kept.
    pub weight: f64,
    /// Bits of the shared columns from now on; `None` for as many as before.
    pub keep_bits: Option<Rate>,
    /// M of a basis of mixtures from now on; `None` for as many as before.
    pub n_atoms: Option<usize>,
    /// A Gram file that has all tasks: no entry is estimated then.
    pub gram: Option<PathBuf>,
    /// Take a base that is not the basis's.
    pub force: bool,
    /// Files that must stay besides the inputs.
    pub protected: Inputs,
}

impl Default for ExtendOptions {
    fn default() -> ExtendOptions {
        ExtendOptions {
            output: None,
            existing: Existing::Refuse,
            weight: 1.0,
            keep_bits: None,
            n_atoms: None,
            gram: None,
            force: false,
            protected: Inputs::none(),
        }
    }
}

impl ExtendOptions {
    /// What an output must leave alone beside the basis.
    pub(super) fn inputs(&self, plan: &Plan) -> Inputs {
        let gram = self.gram.iter();
        gram.fold(plan.inputs().with(&self.protected), |inputs, path| inputs.and(path))
    }

    /// Writes the extended basis beside the old one.
    #[must_use]
    pub fn output(self, output: Option<PathBuf>) -> ExtendOptions {
        ExtendOptions { output, ..self }
    }

    /// What to do where there is something at the output.
    #[must_use]
    pub fn existing(self, existing: Existing) -> ExtendOptions {
        ExtendOptions { existing, ..self }
    }

    /// Sets the newcomers' weight in a sum that is kept.
    #[must_use]
    pub fn weight(self, weight: f64) -> ExtendOptions {
        ExtendOptions { weight, ..self }
    }

    /// Sets the bits of the shared columns.
    #[must_use]
    pub fn keep_bits(self, keep_bits: Option<Rate>) -> ExtendOptions {
        ExtendOptions { keep_bits, ..self }
    }

    /// Sets how many atoms a basis of mixtures has from now on.
    #[must_use]
    pub fn n_atoms(self, n_atoms: Option<usize>) -> ExtendOptions {
        ExtendOptions { n_atoms, ..self }
    }

    /// Takes the inner products from a Gram file.
    #[must_use]
    pub fn gram(self, gram: Option<PathBuf>) -> ExtendOptions {
        ExtendOptions { gram, ..self }
    }

    /// Takes a base that is not the basis's.
    #[must_use]
    pub fn force(self, force: bool) -> ExtendOptions {
        ExtendOptions { force, ..self }
    }

    /// Keeps these files from being replaced.
    #[must_use]
    pub fn protect(self, protected: Inputs) -> ExtendOptions {
        ExtendOptions { protected, ..self }
    }
}

/// A basis that was extended, and what that took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Extended {
    /// The basis as it is now.
    pub basis: Basis,
    /// How many tasks joined.
    pub n_new: usize,
    /// Bytes read of the base, the newcomers and the old codes.
    pub read_bytes: u64,
    /// Bytes of new files.
    pub written_bytes: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}
