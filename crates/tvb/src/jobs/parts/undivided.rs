//! Parts of a job that is not divided: adapters that are kept as their factors are read whole when they are opened, and all of it
//! takes seconds. Part 1 makes the basis and holds its files under names of their own; the others are their records alone. So the
//! same script serves adapters and whole models.

use super::options::JoinOptions;
use super::set::PartSet;
use crate::basis::Basis;
use crate::basis::held::{self, Held};
use crate::basis::part_file::{self, PartKind, PartRecord};
use crate::checkpoint::{Existing, Leftover, StagedOutput, names};
use crate::columns::plan::Plan;
use crate::columns::record::PlanRecord;
use crate::error::{Error, Result};
use crate::jobs::compress::parts::RecordedOptions;
use crate::jobs::compress::{CompressOptions, compress};
use crate::pass::{Part, Runtime};
use crate::progress::Progress;
use crate::shown::{shown, shown_path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the basis is made, inside the part that is on its way.
const MADE: &str = "basis";
/// What a part says of itself.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    /// The files of the basis, in part 1.
    files: BTreeMap<String, Held>,
}

/// Makes a part at `options.output`: the first one has everything.
///
/// # Errors
/// As [`compress`].
pub(super) fn undivided_part(
    plan: &Plan,
    options: &CompressOptions,
    part: Part,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<()> {
    progress.note("adapters that are kept as their factors are not divided: part 1 has all of them");
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Clear, &options.inputs(plan))?;
    let mut own = Own::default();
    if part.number() == 1 {
        let made = staged.path().join(MADE);
        let inner = CompressOptions { output: made.clone(), existing: Existing::Refuse, ..options.clone() };
        compress(plan, &inner, runtime, progress)?;
        own.files = held::hold(&made, staged.path(), progress)?;
    }
    let to_json = |error: serde_json::Error| Error::failed(format!("a part's record: {error}"));
    let record = PartRecord {
        tool: crate::TOOL.into(),
        kind: PartKind::Undivided,
        part,
        device: runtime.device_kind(),
        plan: PlanRecord::of(plan)?,
        factored: Vec::new(),
        job: serde_json::to_value(RecordedOptions::of(options)).map_err(to_json)?,
        own: serde_json::to_value(&own).map_err(to_json)?,
    };
    staged.put_bytes(names::PART, &part_file::to_bytes(&record, &[])?)?;
    staged.commit()
}

/// The basis that the first of all parts has made.
///
/// # Errors
/// Rejected: a damaged part, an existing output. Failed: I/O. Interrupted.
pub(super) fn join_undivided(
    set: &PartSet,
    options: &JoinOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Basis> {
    let Some(first) = set.parts.first() else { return Err(Error::failed("a job of no parts")) };
    let wrong = |what: &dyn std::fmt::Display| {
        Error::rejected(format!("{}: {what}", shown_path(&first.path))).hint("run this part again")
    };
    let own: Own = serde_json::from_value(set.record.own.clone()).map_err(|error| wrong(&error))?;
    if let Some(name) = own.files.keys().find(|name| !names::is_of_basis(name)) {
        return Err(wrong(&format!("files of a basis expected, {} found", shown(name))));
    }
    let folder = first.folder();
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Clear, &set.inputs())?;
    progress.begin("join", own.files.values().fold(0, |sum: u64, held| sum.saturating_add(held.bytes)));
    for (name, expected) in &own.files {
        held::bring(&folder, name, expected, staged.path(), &runtime.budget, progress)?;
        progress.advance(expected.bytes);
    }
    progress.finish();
    progress.check()?;
    staged.commit()?;
    Basis::open_within(&options.output, &runtime.budget)
}
