//! One part of a basis, and the basis from all of them: what [`compress`](super::compress()) does, with its pass over the inputs
//! divided. Files of parts, and whether they belong together, are no matter of this one.

use super::forecast::kept_factors;
use super::joining::PartsOfJob;
use super::make::Make;
use super::options::CompressOptions;
use super::parted::MadePart;
use super::solving::chosen;
use crate::basis::{Basis, gram_file};
use crate::checkpoint::{Leftover, StagedOutput};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::bookmarks::{self, BookmarkFolder};
use crate::ops::Grams;
use crate::ops::same_inputs::check_same_inputs;
use crate::pass::{Part, Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::path::Path;

/// Whether a job is not divided: adapters that are kept as their factors are read whole when they are opened.
///
/// # Errors
/// Usage: options that do not fit. Rejected: sizes that overflow.
pub(crate) fn is_undivided(plan: &Plan, options: &CompressOptions) -> Result<bool> {
    options.check(plan)?;
    Ok(options.shared_rank.is_some() || kept_factors(plan, options)?.is_some())
}

/// What can be told of a job in parts before anything is read: the options with a budget replaced by what it comes to, and the
/// Gram matrices where a file of them is given.
///
/// # Errors
/// Usage: options that do not fit, a basis that needs a Gram file first, or a memory cap that is
/// too low. Rejected: a Gram file of other inputs.
pub(crate) fn check_part(
    plan: &Plan,
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<(CompressOptions, Option<Grams>)> {
    options.check(plan)?;
    if options.gram.is_none() && options.needs_gram_first(&runtime.engine) {
        return Err(Error::usage(
            "parts of this basis need the Gram matrix of all inputs first: --gram FILE expected, none found",
        )
        .hint(
            "make it in parts: tvb gram --part K/N --base … -o gram-K for each K; tvb join gram-* -o all.gram; then \
             tvb compress --part K/N --gram all.gram …",
        ));
    }
    check_memory(plan, options.most_outputs(plan.tasks.len()), runtime)?;
    let grams = options.gram.as_ref().map(|path| gram_file::read_within(path, &runtime.budget)).transpose()?;
    if let Some(grams) = &grams {
        check_same_inputs(plan, grams)?;
    }
    let options = chosen(plan, options, grams.as_ref(), &runtime.engine, progress)?;
    Ok((options, grams))
}

/// Makes one part of a basis in a folder that is on its way, from options and Gram matrices that [`check_part`] has answered. Its rows go to
/// `shared` where that is given.
///
/// # Errors
/// Rejected: inputs that do not fit, or that are not what they were when the Gram matrices were formed. Failed: I/O, device.
/// Interrupted.
#[expect(clippy::too_many_arguments, reason = "a job's usual company, and what is divided")]
pub(crate) fn make_part(
    plan: &Plan,
    options: &CompressOptions,
    part: Part,
    shared: Option<&Path>,
    grams: Option<&Grams>,
    staged: &StagedOutput,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<MadePart> {
    let reads = Reads::new();
    Make { plan, options, reads: &reads, runtime, progress, staged, parts: None }.make_part(part, shared, grams)
}

/// Makes a basis of all of its parts. Of the plan nothing is read; `options` are those that the parts have recorded.
///
/// # Errors
/// Usage: options that do not fit. Rejected: parts that do not fit each other or are damaged, an existing output. Failed: I/O. Interrupted.
/// Nothing is left behind in either case.
pub(crate) fn join_parts(
    plan: &Plan,
    options: &CompressOptions,
    grams: Option<Grams>,
    parts: &PartsOfJob,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Basis> {
    options.check(plan)?;
    if let Some(grams) = &grams {
        check_same_inputs(plan, grams)?;
    }
    let reads = Reads::new();
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Clear, &options.protect)?;
    let mut bookmarks = BookmarkFolder::new(staged.path().join(bookmarks::FOLDER), plan, runtime);
    let make = Make { plan, options, reads: &reads, runtime, progress, staged: &staged, parts: Some(parts) };
    match (&options.coding, grams) {
        (Some(_), grams) => make.make_coded(grams, &mut bookmarks)?,
        (None, Some(grams)) => make.make_plain(grams, &mut bookmarks)?,
        (None, None) => return Err(Error::failed("atoms without the Gram matrix that they are made from")),
    }
    progress.check()?;
    staged.commit()?;
    Basis::open_within(&options.output, &runtime.budget)
}
