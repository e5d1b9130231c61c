//! The main job, from end to end: base and fine-tunes → Gram → coefficients → atoms → a basis folder.

use crate::basis::manifest::{self, AdditionRecord, BaseRecord, Fidelity, GroupRecord, Manifest, MethodRecord, TaskRecord};
use crate::basis::{Basis, atom::AtomSink, coefficients, gram_file};
use crate::checkpoint::{Dtype, StagedDir};
use crate::error::{Error, Result};
use crate::gram::{Grams, gram};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::project::project;
use crate::solve::{self, Assessment, Coefficients, Gram, MaxError, Method, SolveOptions};
use crate::stream::Runtime;
use std::path::PathBuf;

/// How many atoms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// This many.
    Atoms(usize),
    /// This share of the number of tasks, rounded up: 0.5 of 9 tasks is 5.
    Ratio(f64),
    /// The fewest whose error stays under this.
    MaxError(MaxError),
    /// The most whose files stay under this many bytes together.
    MaxBytes(u64),
}

/// What to make of the inputs and where to put it.
#[derive(Clone, Debug)]
pub struct CompressOptions {
    /// How B and W are found.
    pub method: Method,
    /// How many atoms.
    pub size: Size,
    /// Solve with every task vector scaled to the same norm.
    pub balance: bool,
    /// Convex or orthogonal atoms of the same span.
    pub coordinates: solve::Coordinates,
    /// How atoms are stored; `None` is f32.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// A Gram file of these inputs: one read instead of two.
    pub gram: Option<PathBuf>,
    /// The basis folder.
    pub output: PathBuf,
    /// Replace an existing output.
    pub overwrite: bool,
}

/// Compresses the task vectors of `plan` into a basis folder.
///
/// # Errors
/// Rejected: inputs that do not fit, a Gram file of other inputs, an existing output. Failed: I/O, device. Interrupted.
/// Nothing is left behind in either case.
pub fn compress(plan: &Plan, options: &CompressOptions, runtime: &Runtime, progress: &dyn Progress) -> Result<Basis> {
    let staged = StagedDir::create(&options.output, options.overwrite)?;
    let grams = match &options.gram {
        Some(path) => gram_file::read(path)?,
        None => gram(plan, runtime, progress)?,
    };
    let dtype = options.dtype.unwrap_or(tvb_kernels::Dtype::F32);
    let solved = solve_for(&grams, options, progress)?;
    let tensors: Vec<_> = grams
        .tensors
        .iter()
        .filter(|tensor| !tensor.frozen)
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    let sink = AtomSink::create(staged.path(), solved.coefficients.encode.ncols(), &tensors, dtype.into())?;
    let atoms = project(plan, &grams, &solved.coefficients.encode, dtype, sink, runtime, progress)?;
    let coefficients = coefficients::write(&staged, &grams, &solved.coefficients, solved.gram.spectrum())?;
    let manifest = describe(&grams, options, &solved, atoms, coefficients);
    staged.write_file(manifest::FILE_NAME, &manifest.to_bytes()?)?;
    staged.commit()?;
    Basis::open(&options.output)
}
