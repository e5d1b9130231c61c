//! What to make of the inputs and where to put it.

use super::coding::CodingOptions;
use super::sharing;
use super::size::{Size, atoms_for_ratio};
use crate::checkpoint::{Existing, Inputs};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::pass::kept::Keep;
use crate::solve::{self, AnchoredOptions, Coordinates, Method, SolveOptions};
use std::path::PathBuf;
use tvb_kernels::Engine;

/// What to make of the inputs and where to put it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompressOptions {
    /// How B and W are found.
    pub method: Method,
    /// How many atoms.
    pub size: Size,
    /// Solve with every task vector scaled to the same norm.
    pub balance: bool,
    /// Convex or orthogonal atoms of the same span.
    pub coordinates: Coordinates,
    /// How atoms are stored where they are not coded: f32, bf16 or f16.
    pub dtype: tvb_kernels::Dtype,
    /// How they are coded; `None` where they are stored as `dtype`.
    pub coding: Option<CodingOptions>,
    /// Whether tasks that are adapters are kept as their factors, not coded, where that is smaller.
    pub keep_factors: bool,
    /// Keep tasks that are adapters as cores of this rank in spaces that they share, stored as `dtype`.
    pub shared_rank: Option<usize>,
    /// Whether a budget chooses how mixtures are stored, too.
    pub any_storage: bool,
    /// Write the largest finite value of the type in place of one beyond it; otherwise that is an error.
    pub clip: bool,
    /// A Gram file of these inputs: one read instead of two.
    pub gram: Option<PathBuf>,
    /// Whether inputs that fit in the host's memory are read once.
    pub keep: Keep,
    /// The basis folder.
    pub output: PathBuf,
    /// What to do with an output that is there already.
    pub existing: Existing,
    /// What the output must leave alone beside the plan's files and the Gram file.
    pub protect: Inputs,
}

impl CompressOptions {
    /// The defaults: every task coded as it is at 2 bits an element, with the sum of all kept at 3, in a folder that is not
    /// there yet. Where all tasks are adapters, their factors as they are.
    pub fn new(output: impl Into<PathBuf>) -> CompressOptions {
        let options = CompressOptions::mixtures(output);
        let coding = Some(CodingOptions::default());
        CompressOptions { method: Method::Identity, size: Size::Ratio(1.0), coding, keep_factors: true, ..options }
    }

    /// Mixtures of the tasks as in the paper: by default `anchored`, half as many atoms as tasks, stored in f32, in a folder
    /// that is not there yet.
    pub fn mixtures(output: impl Into<PathBuf>) -> CompressOptions {
        CompressOptions {
            method: Method::Anchored(AnchoredOptions::default()),
            size: Size::Ratio(0.5),
            coding: None,
            balance: false,
            coordinates: Coordinates::Convex,
            dtype: tvb_kernels::Dtype::F32,
            keep_factors: false,
            shared_rank: None,
            any_storage: false,
            clip: false,
            gram: None,
            keep: Keep::Auto,
            output: output.into(),
            existing: Existing::Refuse,
            protect: Inputs::none(),
        }
    }

    /// Sets how B and W are found.
    #[must_use]
    pub fn method(self, method: Method) -> CompressOptions {
        CompressOptions { method, ..self }
    }

    /// Sets how many atoms.
    #[must_use]
    pub fn size(self, size: Size) -> CompressOptions {
        CompressOptions { size, ..self }
    }

    /// As many atoms as this.
    #[must_use]
    pub fn atoms(self, n_atoms: usize) -> CompressOptions {
        self.size(Size::Atoms(n_atoms))
    }

    /// Sets whether every task vector is scaled to the same norm for the solve.
    #[must_use]
    pub fn balance(self, balance: bool) -> CompressOptions {
        CompressOptions { balance, ..self }
    }

    /// Sets the coordinates of the atoms.
    #[must_use]
    pub fn coordinates(self, coordinates: Coordinates) -> CompressOptions {
        CompressOptions { coordinates, ..self }
    }

    /// Sets how atoms are stored: f32, bf16 or f16.
    #[must_use]
    pub fn dtype(self, dtype: tvb_kernels::Dtype) -> CompressOptions {
        CompressOptions { dtype, ..self }
    }

    /// Sets how atoms are coded; `None` stores them as floats.
    #[must_use]
    pub fn coding(self, coding: Option<CodingOptions>) -> CompressOptions {
        CompressOptions { coding, ..self }
    }

    /// Sets whether tasks that are adapters are kept as their factors where that is smaller than codes. A budget codes them.
    #[must_use]
    pub fn keep_factors(self, keep_factors: bool) -> CompressOptions {
        CompressOptions { keep_factors, ..self }
    }

    /// Sets the rank of the spaces that adapters share. It stands for a method, a size and a coding, and all tasks must be adapters.
    #[must_use]
    pub fn shared_rank(self, shared_rank: Option<usize>) -> CompressOptions {
        CompressOptions { shared_rank, ..self }
    }

    /// Sets whether a budget chooses how mixtures are stored, too.
    #[must_use]
    pub fn any_storage(self, any_storage: bool) -> CompressOptions {
        CompressOptions { any_storage, ..self }
    }

    /// Sets whether values beyond the atoms' type are written as its largest finite one.
    #[must_use]
    pub fn clip(self, clip: bool) -> CompressOptions {
        CompressOptions { clip, ..self }
    }

    /// Sets a Gram file of the same inputs.
    #[must_use]
    pub fn gram(self, gram: Option<PathBuf>) -> CompressOptions {
        CompressOptions { gram, ..self }
    }

    /// Sets whether inputs that fit in the host's memory are read once.
    #[must_use]
    pub fn keep(self, keep: Keep) -> CompressOptions {
        CompressOptions { keep, ..self }
    }

    /// Sets what to do with an output that is there already.
    #[must_use]
    pub fn existing(self, existing: Existing) -> CompressOptions {
        CompressOptions { existing, ..self }
    }

    /// Sets what the output must leave alone beside the plan's files and the Gram file.
    #[must_use]
    pub fn protect(self, protect: Inputs) -> CompressOptions {
        CompressOptions { protect, ..self }
    }

    /// Everything that the output must leave alone.
    pub(crate) fn inputs(&self, plan: &Plan) -> Inputs {
        self.gram.iter().fold(plan.inputs().with(&self.protect), |inputs, path| inputs.and(path))
    }

    /// The same for the solver.
    pub(crate) fn solve_options(&self, n_atoms: usize) -> SolveOptions {
        SolveOptions { balance: self.balance, coordinates: self.coordinates, ..SolveOptions::atoms(n_atoms) }
    }

    /// How many outputs of each row the widest pass makes, at most: what its memory depends on.
    pub(crate) fn most_outputs(&self, n_tasks: usize) -> usize {
        let n_atoms = match self.size {
            _ if self.codes_tasks() => return n_tasks + self.coding.as_ref().map_or(0, CodingOptions::n_kept_most),
            _ if self.method.fixed_atoms(n_tasks).is_some() => n_tasks,
            Size::Atoms(n_atoms) => n_atoms,
            Size::Ratio(ratio) => atoms_for_ratio(ratio, n_tasks).unwrap_or(n_tasks),
            Size::MaxError(_) | Size::MaxBytes(_) => n_tasks,
        };
        match &self.method {
            // Its raw columns are multiplied with each other and with the tasks.
            Method::Random { .. } => n_atoms + n_tasks,
            // The mean is stored beside the components.
            Method::Pca => n_atoms + 1,
            _ => n_atoms,
        }
    }

    /// Whether the tasks themselves are coded.
    pub(super) fn codes_tasks(&self) -> bool {
        self.coding.is_some() && matches!(self.method, Method::Identity)
    }

    /// Whether the Gram matrices come before everything else: atoms that are not the tasks themselves and targets need them,
    /// and a GPU forms them apart from the codes, with the inputs in its own memory.
    pub(super) fn needs_gram_first(&self, engine: &Engine) -> bool {
        self.coding.is_none()
            || !matches!(self.method, Method::Identity)
            || matches!(self.size, Size::MaxError(_))
            || matches!(engine, Engine::Gpu(_))
    }

    /// What can be told before anything is read.
    ///
    /// # Errors
    /// Usage: options that do not fit each other, or the number of tasks.
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        solve::check_options(&self.method, self.balance, self.coordinates)?;
        if let Some(rank) = self.shared_rank {
            return sharing::check(plan, rank);
        }
        if let Some(coding) = &self.coding {
            coding.kept_edits(plan.tasks.len())?;
            if !self.method.stores_atoms() {
                return Err(Error::usage(
                    "bits with method 'random': its atoms are made from a seed and take no space",
                )
                .hint("leave out --bits, or choose another method"));
            }
        }
        let is_budget = matches!(self.size, Size::MaxError(_) | Size::MaxBytes(_));
        if is_budget && matches!(self.method, Method::Identity) && self.coding.is_none() {
            return Err(Error::usage("a budget for tasks that are stored as they are: their size is what it is")
                .hint("code them: leave out --dtype; or give --method a name that mixes them"));
        }
        match self.size {
            Size::MaxError(_) | Size::MaxBytes(_) if !self.method.stores_atoms() => Err(Error::usage(
                "a target with method 'random': its errors need the checkpoints, and its atoms take no space",
            )
            .hint("give the number of atoms: -m N or --ratio X")),
            Size::Atoms(n_atoms) if self.method.fixed_atoms(plan.tasks.len()).is_none() => {
                solve::check_atoms(n_atoms, plan.tasks.len())
            }
            _ => Ok(()),
        }
    }
}
