//! The Gram file from end to end, and the Gram pass that resumes.

use super::bookmarks::BookmarkFolder;
use crate::basis::gram_file;
use crate::checkpoint::{Existing, StagedOutput};
use crate::columns::plan::Plan;
use crate::cost::{Stage, Work};
use crate::error::{ErrorKind, Result};
use crate::ops::Grams;
use crate::ops::extend_gram::extend_gram;
use crate::ops::gram::{gram_from, reads_rows};
use crate::ops::same_inputs::check_extends;
use crate::pass::{Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::path::Path;
use std::time::Instant;

/// Reads the inputs of a plan once and writes their Gram file; resumes where an interrupted run stopped.
///
/// # Errors
/// Usage: a memory cap that is too low. Rejected: the output exists, or a non-finite delta. Failed: I/O, device. Interrupted.
pub fn make_gram_file(
    plan: &Plan,
    output: &Path,
    existing: Existing,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Grams> {
    write_gram_file(plan, None, output, existing, runtime, progress)
}

/// The same, with the entries of the plan's first tasks taken from `known`, which may have been read from `output` itself.
///
/// # Errors
/// As [`make_gram_file`] and [`extend_gram`].
pub fn extend_gram_file(
    plan: &Plan,
    known: &Grams,
    output: &Path,
    existing: Existing,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Grams> {
    check_extends(plan, known)?;
    write_gram_file(plan, Some(known), output, existing, runtime, progress)
}

fn write_gram_file(
    plan: &Plan,
    known: Option<&Grams>,
    output: &Path,
    existing: Existing,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Grams> {
    if reads_rows(plan) {
        check_memory(plan, 0, runtime)?;
    }
    let staged = StagedOutput::file(output, existing, &plan.inputs())?;
    let mut folder = staged.path().as_os_str().to_owned();
    folder.push(".bookmarks");
    let mut bookmarks = BookmarkFolder::new(folder.into(), plan, runtime);
    let found = match known {
        Some(known) => extend_gram(plan, known, runtime, progress, &mut bookmarks),
        None => resumed_gram(plan, &Reads::new(), &mut bookmarks, runtime, progress),
    };
    let grams = match found {
        Ok(grams) => grams,
        Err(error) if error.kind() == ErrorKind::Interrupted && bookmarks.holds_any() => {
            staged.keep();
            return Err(error.hint("the same command resumes where it stopped"));
        }
        Err(error) => {
            bookmarks.remove()?;
            return Err(error);
        }
    };
    bookmarks.remove()?;
    staged.commit_bytes(&gram_file::to_bytes(&grams)?)?;
    Ok(grams)
}

/// The one pass that [`make_gram_file`] makes, for the choice of a device.
pub fn gram_work(plan: &Plan) -> Work {
    Work::over(plan, Stage::Gram, plan.tasks.len(), 0).looked_at_columns(plan)
}

/// The Gram matrices of the plan: as an interrupted run finished them, or from where it stopped, or from the start.
///
/// # Errors
/// As [`gram_from`].
pub fn resumed_gram(
    plan: &Plan,
    reads: &Reads,
    bookmarks: &mut BookmarkFolder,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Grams> {
    if let Some(grams) = bookmarks.find_grams() {
        return Ok(grams);
    }
    let started = Instant::now();
    let grams = gram_from(plan, reads, runtime, progress, bookmarks)?;
    bookmarks.put_grams(&grams, started.elapsed())?;
    Ok(grams)
}
