//! The main job, from end to end: base and fine-tunes → Gram → coefficients → atoms → a basis folder.

use super::forecast::kept_factors;
use super::keeping;
use super::make::Make;
use super::options::CompressOptions;
use crate::basis::Basis;
use crate::checkpoint::{Leftover, StagedOutput};
use crate::columns::plan::Plan;
use crate::error::{ErrorKind, Result};
use crate::jobs::bookmarks::{self, BookmarkFolder};
use crate::ops::gram::reads_rows;
use crate::pass::{Runtime, check_memory};
use crate::progress::Progress;

/// A basis that was made, and what that took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Compressed {
    /// The basis.
    pub basis: Basis,
    /// Bytes read out of the inputs' files.
    pub read_bytes: u64,
}

/// Compresses the task vectors of `plan` into a basis folder.
///
/// # Errors
/// Usage: options that do not fit, or a memory cap that is too low. Rejected: inputs that do not fit, a Gram file of other inputs, an existing output. Failed: I/O, device. Interrupted.
/// Nothing is left behind in either case, but an interrupted run that has left bookmarks keeps its partial output, and the
/// same call resumes there with the same result.
pub fn compress(
    plan: &Plan,
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Compressed> {
    options.check(plan)?;
    let keeps_factors = options.shared_rank.is_some() || kept_factors(plan, options)?.is_some();
    if !keeps_factors {
        check_memory(plan, options.most_outputs(plan.tasks.len()), runtime)?;
    } else if reads_rows(plan) {
        check_memory(plan, 0, runtime)?;
    }
    let reads = keeping::reads(plan, options, runtime)?;
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Keep, &options.inputs(plan))?;
    let mut bookmarks = BookmarkFolder::new(staged.path().join(bookmarks::FOLDER), plan, runtime);
    let job = Make { plan, options, reads: &reads, runtime, progress, staged: &staged, parts: None };
    match job.make(&mut bookmarks) {
        Ok(()) => {
            bookmarks.remove()?;
            staged.commit()?;
            // Adapters were read when they were opened.
            let read_bytes = reads.n_bytes().saturating_add(plan.factor_bytes());
            Ok(Compressed { basis: Basis::open_within(&options.output, &runtime.budget)?, read_bytes })
        }
        Err(error) if error.kind() == ErrorKind::Interrupted && bookmarks.holds_any() => {
            staged.keep();
            Err(error.hint("the same command resumes where it stopped"))
        }
        Err(error) => Err(error),
    }
}
