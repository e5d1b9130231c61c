//! One part of a basis, and the basis from all of them: what [`compress`](super::compress()) does, with its pass over the inputs
//! divided. Files of parts, and whether they belong together, are no matter of this one.

use super::forecast::kept_factors;
use super::joining::PartsOfJob;
use super::make::Make;
use super::options::CompressOptions;
use super::parted::MadePart;
use crate::basis::{Basis, gram_file};
use crate::checkpoint::{Existing, Inputs, Leftover, StagedOutput};
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::bookmarks::{self, BookmarkFolder};
use crate::ops::Grams;
use crate::ops::same_inputs::check_same_inputs;
use crate::pass::{Part, Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::path::Path;

/// What can be told of a job in parts before anything is read; answers the Gram matrices, where a file of them is given.
///
/// # Errors
/// Usage: options that do not fit, a basis that is not made in parts, one that needs a Gram file first, or a memory cap that is
/// too low. Rejected: a Gram file of other inputs.
pub fn check_part(plan: &Plan, options: &CompressOptions, runtime: &Runtime) -> Result<Option<Grams>> {
    options.check(plan)?;
    let whole = |what: &str| {
        Err(Error::usage(format!("parts of {what}: adapters are read whole when they are opened"))
            .hint("leave out --part: this takes seconds; or code the adapters in parts, with --bits 2"))
    };
    if options.shared_rank.is_some() {
        return whole("a basis of adapters in shared spaces");
    }
    if kept_factors(plan, options)?.is_some() {
        return whole("a basis of adapters that are kept as their factors");
    }
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
    let Some(path) = &options.gram else { return Ok(None) };
    let grams = gram_file::read_within(path, &runtime.budget)?;
    check_same_inputs(plan, &grams)?;
    Ok(Some(grams))
}

/// Makes one part of a basis in a folder that is on its way, from Gram matrices that [`check_part`] has answered. Its rows go to
/// `shared` where that is given.
///
/// # Errors
/// Rejected: inputs that do not fit, or that are not what they were when the Gram matrices were formed. Failed: I/O, device.
/// Interrupted.
#[expect(clippy::too_many_arguments, reason = "a job's usual company, and what is divided")]
pub fn make_part(
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
pub fn join_parts(
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

#[cfg(test)]
mod tests {
    use super::super::joining::PartOfJob;
    use super::*;
    use crate::jobs::compress::{CodingOptions, Size, compress};
    use crate::jobs::gram::make_gram_file;
    use crate::progress::Silent;
    use crate::solve::Method;
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use tvb_kernels::Rate;

    fn zoo(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tvb-zoo/checkpoints").join(name)
    }

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
    }

    /// Makes and joins the parts of a basis, and compares it with one run's.
    fn check(plan: &Plan, options: impl Fn(&Path) -> CompressOptions, n_parts: usize, into: bool) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let runtime = Runtime::on_cpu(2, 1 << 30);
        let made = compress(plan, &options(&at("one")), &runtime, &Silent);
        let expected = made.map(|_| files(&at("one")));
        let shared = into.then(|| at("shared"));
        if let Some(shared) = &shared {
            std::fs::create_dir(shared).unwrap();
        }
        let mut parts = Vec::new();
        let mut all = None;
        for part in Part::all(n_parts).unwrap() {
            let runtime = Runtime::on_cpu(1 + part.number() % 3, (64 << 20) * part.number() as u64);
            let name = format!("part-{}", part.number());
            let options = options(&at(&name));
            let grams = check_part(plan, &options, &runtime).unwrap();
            let staged =
                StagedOutput::folder(&options.output, Existing::Refuse, Leftover::Clear, &Inputs::none()).unwrap();
            let made =
                make_part(plan, &options, part, shared.as_deref(), grams.as_ref(), &staged, &runtime, &Silent).unwrap();
            staged.commit().unwrap();
            parts.push(PartOfJob { part, name: name.clone(), folder: at(&name), result: made.result });
            let (recorded, _, recipe) = all.get_or_insert((made.options.clone(), grams, made.recipe));
            assert_eq!((&*recorded, &*recipe), (&made.options, &made.recipe));
        }
        let (recorded, grams, recipe) = all.unwrap();
        let parts = PartsOfJob { parts, shared, recipe };
        let options = recorded.options(at("joined")).unwrap();
        join_parts(plan, &options, grams, &parts, &runtime, &Silent).unwrap();
        let (joined, expected) = (files(&at("joined")), expected.unwrap());
        assert_eq!(joined.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, bytes) in &expected {
            assert!(joined.get(name) == Some(bytes), "{name} of {n_parts} parts, {:?}", options.method);
        }
    }

    #[test]
    fn parts_of_every_method_and_storage_joined_are_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["arrows", "blobs", "dice", "waves"];
        let tasks = names.map(|name| format!("{name}={}", zoo(&format!("{name}.safetensors")).display()));
        let plan = Plan::open(zoo("base.safetensors"), &tasks).unwrap();
        let gram = folder.path().join("all.gram");
        make_gram_file(&plan, &gram, Existing::Refuse, &Runtime::on_cpu(2, 1 << 30), &Silent).unwrap();
        let default = CodingOptions::default;
        for into in [false, true] {
            check(&plan, |output| CompressOptions::new(output), 3, into);
            for method in Method::all() {
                let options = |output: &Path| {
                    CompressOptions::mixtures(output).method(method.clone()).gram(Some(gram.clone())).size(Size::Atoms(2))
                };
                check(&plan, options, 2, into);
                if method.stores_atoms() {
                    check(&plan, |output| options(output).coding(Some(default().bits(Rate::Four))), 7, into);
                }
            }
        }
    }
}
