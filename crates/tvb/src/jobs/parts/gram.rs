//! A part of a Gram pass, and the Gram matrices that all parts come to.

use super::set::PartSet;
use crate::basis::part_file::{self, PartKind, PartRecord, Table};
use crate::checkpoint::{Existing, StagedOutput};
use crate::columns::plan::Plan;
use crate::columns::record::PlanRecord;
use crate::error::Result;
use crate::ops::Grams;
use crate::ops::gram::reads_rows;
use crate::ops::gram_part::{GramJoin, GramPart, GramShape, factored, gram_of_part};
use crate::pass::{Part, Runtime, check_memory};
use crate::progress::Progress;
use serde_json::Value;
use std::path::Path;
use tvb_kernels::triangle_len;

/// The tables of a part's file.
const SUMS: &str = "gram";
const DIGESTS: &str = "digests";

/// Reads one part of the inputs' rows and writes the file that [`join`](super::join) makes the Gram file of.
///
/// # Errors
/// Usage: a memory cap that is too low. Rejected: the output exists, or a non-finite delta. Failed: I/O, device. Interrupted.
pub fn gram_part(
    plan: &Plan,
    part: Part,
    output: &Path,
    existing: Existing,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<()> {
    if reads_rows(plan) {
        check_memory(plan, 0, runtime)?;
    }
    let staged = StagedOutput::file(output, existing, &plan.inputs())?;
    let factored = factored(plan).into_iter().enumerate().filter(|(_, factored)| *factored);
    let record = PartRecord {
        tool: crate::TOOL.into(),
        kind: PartKind::Gram,
        part,
        device: runtime.device_kind(),
        plan: PlanRecord::of(plan)?,
        factored: factored.map(|(tensor, _)| tensor).collect(),
        job: Value::Null,
        own: Value::Null,
    };
    let GramPart { sums, digests } = gram_of_part(plan, part, runtime, progress)?;
    let sums = Table::Sums(&sums, triangle_len(plan.tasks.len()));
    let digests = Table::Digests(&digests, plan.n_columns());
    staged.commit_bytes(&part_file::to_bytes(&record, &[(SUMS, sums), (DIGESTS, digests)])?)
}

/// The Gram matrices that the parts of a Gram pass come to, the bits of one run.
///
/// # Errors
/// Rejected: a damaged part, or a record that no plan comes to. Failed: I/O. Interrupted.
pub(super) fn join_grams(set: &PartSet, runtime: &Runtime, progress: &dyn Progress) -> Result<Grams> {
    let plan = set.plan(&runtime.budget)?;
    let factored = set.factored(&plan);
    let mut joined = GramJoin::new(&plan, &factored);
    progress.begin("join", set.parts.iter().map(|part| part.n_bytes).sum());
    for found in &set.parts {
        progress.check()?;
        let mut file = found.open(&runtime.budget)?;
        let (n_sums, n_digests) = GramShape::new(&plan, &factored, found.part).n_kept();
        let sums = file.sums(SUMS, n_sums, triangle_len(plan.tasks.len()))?;
        let digests = file.digests(DIGESTS, n_digests, plan.n_columns())?;
        file.finish()?;
        joined.add(found.part, GramPart { sums, digests })?;
        progress.advance(found.n_bytes);
    }
    progress.finish();
    joined.finish()
}
