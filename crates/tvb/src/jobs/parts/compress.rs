//! A part of a basis: a folder of its rows and their record; and the basis that all parts come to.
//!
//! ```text
//! part.safetensors   the record: of what job, sums, digests
//! gram.safetensors   the Gram file that the job was given, in part 1
//! atom-00.rows …     what each column has of the part's rows; not where all parts write to one folder
//! ```

use super::options::JoinOptions;
use super::set::{FoundPart, PartSet};
use super::undivided::undivided_part;
use crate::basis::atoms::shared_rows;
use crate::basis::part_file::{self, PartKind, PartRecord, Table};
use crate::basis::{Basis, gram_file};
use crate::checkpoint::{Leftover, StagedOutput, names, true_place};
use crate::columns::plan::Plan;
use crate::columns::record::PlanRecord;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::compress::CompressOptions;
use crate::jobs::compress::parts::{
    MadePart, PartOfJob, PartResult, PartsOfJob, READ, RecordedOptions, SUMS, WRITTEN, check_part, is_undivided,
    join_parts, make_part,
};
use crate::ops::range::ClippedTensor;
use crate::pass::{Part, Runtime};
use crate::progress::Progress;
use crate::shown::shown_path;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What decides a basis beside its inputs; the same in all parts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    options: RecordedOptions,
    /// Of the Gram file that it was given.
    gram: Option<Digest>,
    /// Whether all parts write their rows to one folder.
    shared: bool,
}

/// What a part says of itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    /// Of everything beside the inputs that decided its rows.
    recipe: Digest,
    /// The folder that all parts write to, as this one has seen it.
    folder: Option<String>,
    clipped: Vec<ClippedTensor>,
}

/// Makes one part of a basis: a folder at `options.output` that [`join`](super::join) makes the basis of. With `into` its rows go to
/// where they belong in that folder, which is the same for all parts, and nothing is copied when they are joined.
///
/// # Errors
/// Usage: options that do not fit, a basis that needs a Gram file first, or a memory cap that is too low. Rejected: inputs that do not fit, a Gram file of other inputs, an existing output, rows of another job in `into`.
/// Failed: I/O, device. Interrupted.
pub fn compress_part(
    plan: &Plan,
    options: &CompressOptions,
    part: Part,
    into: Option<&Path>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<()> {
    if is_undivided(plan, options)? {
        return undivided_part(plan, options, part, runtime, progress);
    }
    let (options, grams) = check_part(plan, options, runtime, progress)?;
    let inputs = options.inputs(plan);
    let shared = into.filter(|_| options.method.stores_atoms()).map(true_place).transpose()?;
    if let Some(shared) = &shared {
        let output = true_place(&options.output)?;
        if output.starts_with(shared) || shared.starts_with(&output) {
            return Err(Error::usage(format!(
                "{}: a part expected beside the folder that all parts write to, {} found",
                shown_path(&options.output),
                shown_path(shared)
            ))
            .hint("give each part its own -o, and all parts the same --into"));
        }
        inputs.check(shared)?;
    }
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Clear, &inputs)?;
    let gram = grams.as_ref().map(gram_file::to_bytes).transpose()?;
    let job =
        Job { options: RecordedOptions::of(&options), gram: gram.as_deref().map(Digest::of), shared: shared.is_some() };
    let job = serde_json::to_value(&job).map_err(|error| Error::failed(format!("a part's record: {error}")))?;
    let inputs = PlanRecord::of(plan)?;
    if let Some(shared) = &shared {
        let words = format!("{} {} {job} {}", crate::TOOL, part.n_parts(), inputs.contents_key());
        shared_rows::open(shared, Digest::of(words.as_bytes()))?;
    }
    let MadePart { recipe, result } =
        make_part(plan, &options, part, shared.as_deref(), grams.as_ref(), &staged, runtime, progress)?;
    let own = Own {
        recipe,
        folder: shared.map(|shared| shared.display().to_string()),
        clipped: match &result {
            PartResult::Atoms(found) => found.clipped.clone(),
            _ => Vec::new(),
        },
    };
    let record = PartRecord {
        tool: crate::TOOL.into(),
        kind: match &result {
            PartResult::Codes(_) => PartKind::Codes,
            PartResult::Atoms(_) => PartKind::Atoms,
            PartResult::Products(_) => PartKind::Products,
        },
        part,
        device: runtime.device_kind(),
        plan: inputs,
        factored: Vec::new(),
        job,
        own: serde_json::to_value(&own).map_err(|error| Error::failed(format!("a part's record: {error}")))?,
    };
    progress.check()?;
    if let Some(gram) = gram.filter(|_| part.number() == 1) {
        staged.put_bytes(names::PART_GRAM, &gram)?;
    }
    staged.put_bytes(names::PART, &part_file::to_bytes(&record, &tables(plan, &result))?)?;
    staged.commit()
}

/// The tables of a part's file.
fn tables<'a>(plan: &Plan, result: &'a PartResult) -> Vec<(&'static str, Table<'a>)> {
    let read = |read: &'a [Digest]| (READ, Table::Digests(read, plan.n_columns()));
    match result {
        PartResult::Codes(found) => vec![
            (SUMS, Table::Sums(&found.sums, found.n_values)),
            read(&found.read),
            (WRITTEN, Table::Digests(&found.written, found.n_columns)),
        ],
        PartResult::Atoms(found) => {
            vec![read(&found.read), (WRITTEN, Table::Digests(&found.written, found.n_atoms))]
        }
        PartResult::Products(found) => {
            vec![(SUMS, Table::Sums(&found.sums, found.n_values)), read(&found.read)]
        }
    }
}

/// The basis that all parts come to, the bytes of one run.
///
/// # Errors
/// Rejected: a damaged part, parts made with other coefficients, an existing output. Failed: I/O. Interrupted.
pub(super) fn join_basis(
    set: &PartSet,
    options: &JoinOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Basis> {
    let first = set.parts.first().map_or(Path::new(""), |part| &part.path);
    let wrong = |path: &Path, what: &dyn std::fmt::Display| {
        Error::rejected(format!("{}: its record: {what}", shown_path(path))).hint("run this part again")
    };
    let job: Job = serde_json::from_value(set.record.job.clone()).map_err(|error| wrong(first, &error))?;
    let plan = set.plan(&runtime.budget)?;
    let mut parts = Vec::with_capacity(set.parts.len());
    let mut all: Option<(Digest, Option<String>)> = None;
    for found in &set.parts {
        progress.check()?;
        let record = found.open(&runtime.budget)?.finish()?;
        let own: Own = serde_json::from_value(record.own).map_err(|error| wrong(&found.path, &error))?;
        let (recipe, _) = all.get_or_insert((own.recipe, own.folder.clone()));
        if own.recipe != *recipe {
            return Err(Error::rejected(format!(
                "{}: made with other coefficients (on {}) than {} (on {})",
                shown_path(&found.path),
                found.device,
                shown_path(first),
                set.record.device
            ))
            .hint("make all parts on machines of one kind: the same Gram file is solved to the same bits there"));
        }
        parts.push(PartOfJob {
            part: found.part,
            folder: found.folder(),
            checksum: found.checksum,
            clipped: own.clipped,
        });
    }
    let (recipe, folder) = all.ok_or_else(|| Error::failed("a job of no parts"))?;
    let shared = match (job.shared, &options.into, folder) {
        (false, ..) => None,
        (true, Some(into), _) => Some(into.clone()),
        (true, None, Some(folder)) => Some(PathBuf::from(folder)),
        (true, None, None) => return Err(wrong(first, &"a folder of rows expected, none found")),
    };
    if let Some(shared) = shared.as_ref().filter(|shared| !shared.is_dir()) {
        return Err(Error::rejected(format!(
            "{}: the folder that the parts wrote to is not there",
            shown_path(shared)
        ))
        .hint("--into DIR says where it is here"));
    }
    let grams = job.gram.map(|digest| {
        let path = set.parts.first().map(FoundPart::folder).unwrap_or_default().join(names::PART_GRAM);
        let grams = gram_file::read_within(&path, &runtime.budget)?;
        match Digest::of(&gram_file::to_bytes(&grams)?) == digest {
            true => Ok(grams),
            false => Err(Error::rejected(format!("{}: not the Gram file of this job", shown_path(&path)))
                .hint("run part 1 again")),
        }
    });
    let wanted = job.options.options(&options.output)?.existing(options.existing).protect(set.inputs());
    let parts = PartsOfJob { kind: set.record.kind, parts, shared, recipe, budget: runtime.budget.clone() };
    let basis = join_parts(&plan, &wanted, grams.transpose()?, &parts, runtime, progress)?;
    if let Some(shared) = &parts.shared {
        shared_rows::remove(shared);
    }
    Ok(basis)
}
