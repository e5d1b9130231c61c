//! What a merge asks of an engine, from headers alone: for the choice of a device.

use super::job::{MergeJob, Prepared};
use super::method::{Family, Method};
use super::settings::RowWise;
use crate::cost::{Step, Work};
use crate::jobs::edit::{Source, edit_work};

/// The passes of a merge: surveys that write nothing, and the one that writes.
pub fn merge_work(job: &MergeJob<'_>, prepared: &Prepared) -> Work {
    match (job.source, job.method.family(), job.method) {
        (Source::Basis(_), _, _) => return Work::only_on_cpu("tasks of a basis are formed on the way"),
        (_, Family::Matrices, _) => return Work::only_on_cpu("matrices are decomposed by the host"),
        (_, _, Method::Della | Method::DellaLinear) => return Work::only_on_cpu("values are ranked row by row"),
        _ => {}
    }
    if prepared.tensors.iter().any(|tensor| tensor.settings.rows != RowWise::Whole) {
        return Work::only_on_cpu("rows have answers of their own");
    }
    let written = edit_work(job.source, Some(job.base), job.tasks.len(), 1, job.output.dtype);
    let n_surveys = job.n_passes(&prepared.tensors).saturating_sub(1);
    if n_surveys == 0 || written.only_on_cpu.is_some() {
        return written;
    }
    let survey = |step: &Step| Step { out_bytes: 0, n_times: step.n_times.saturating_mul(n_surveys), ..step.clone() };
    let surveys = written.steps.iter().map(survey).collect();
    let again = written.steps.iter().map(|step| Step { again: true, ..step.clone() }).collect();
    let before = Work { steps: surveys, ..written.clone() };
    before.and(Work { steps: again, ..written })
}
