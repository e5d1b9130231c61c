//! Looks at a whole batch before it runs: headers, memory and disk of every job, all problems at once.

use super::expand::{Batch, Unit};
use super::inputs::Inputs;
use super::run::{current_basis, gram_path};
use crate::basis::gram_file;
use crate::checkpoint::{Existing, free_bytes};
use crate::columns::coded::column_bytes;
use crate::columns::plan::Plan;
use crate::error::{ErrorKind, Result};
use crate::jobs::compress::shared_bytes;
use crate::jobs::edit::Source;
use crate::ops::Grams;
use crate::pass::{Runtime, check_memory};
use crate::progress::{Progress, unless_cancelled};
use crate::units;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a batch would do, and what stands in its way.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// One line each, naming the job.
    pub problems: Vec<String>,
    /// Outputs that would be made.
    pub n_to_make: usize,
    /// Outputs that are there already.
    pub n_current: usize,
    /// Passes over the inputs for Gram matrices.
    pub n_gram_passes: usize,
    /// Bytes that would be read.
    pub read_bytes: u64,
    /// Bytes that would be written, at most.
    pub write_bytes: u64,
}

/// Bytes wanted on one disk.
struct Disk {
    id: u64,
    place: PathBuf,
    wanted_bytes: u64,
}

/// Opens the headers of every job's inputs and adds up what the batch needs.
///
/// # Errors
/// Interrupted.
pub fn check(batch: &Batch, runtime: &Runtime, progress: &dyn Progress) -> Result<Check> {
    let mut check = Check::default();
    let mut disks: Vec<Disk> = Vec::new();
    check.problems.extend(batch.unusable.iter().map(|(job, error)| format!("job {job:?}: {error}")));
    let mut seen: Vec<(Rc<Inputs>, Option<Plan>)> = Vec::new();
    for unit in &batch.units {
        progress.check()?;
        if !seen.iter().any(|(inputs, _)| *inputs == unit.inputs) {
            let plan = check.open(batch, unit, runtime, &mut disks, progress)?;
            seen.push((unit.inputs.clone(), plan));
        }
        if let Some((_, Some(plan))) = seen.iter().find(|(inputs, _)| *inputs == unit.inputs) {
            check.unit(batch, unit, plan, &mut disks);
        }
    }
    for disk in &disks {
        match free_bytes(&disk.place) {
            Some(free) if free < disk.wanted_bytes => check.problems.push(format!(
                "{}: at most {} needed on this disk, {} free",
                disk.place.display(),
                units::bytes(disk.wanted_bytes),
                units::bytes(free)
            )),
            _ => {}
        }
    }
    Ok(check)
}

impl Check {
    /// The plan of a unit's inputs; problems are noted once, for the first job that has them.
    fn open(
        &mut self,
        batch: &Batch,
        unit: &Unit,
        runtime: &Runtime,
        disks: &mut Vec<Disk>,
        progress: &dyn Progress,
    ) -> Result<Option<Plan>> {
        let (inputs, budget) = (Inputs::clone(&unit.inputs), runtime.budget.clone());
        let plan = match unless_cancelled(progress, move |_| inputs.plan(&budget)) {
            Ok(plan) => plan,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.problems.push(format!("job {:?}: {error}", unit.job));
                return Ok(None);
            }
        };
        plan.tell(progress);
        let n_outputs = unit.options(None, Existing::Refuse).most_outputs(plan.tasks.len());
        if let Err(error) = check_memory(&plan, n_outputs, runtime) {
            self.problems.push(format!("job {:?}: {error}", unit.job));
        }
        if gram_file::read_within(&gram_path(&batch.work, &plan), &runtime.budget).is_err() {
            self.n_gram_passes += 1;
            self.read_bytes += plan.read_bytes();
            let n_tasks = plan.tasks.len() as u64;
            want(disks, &batch.work, plan.tensors.len() as u64 * n_tasks * n_tasks * 8);
        }
        Ok(Some(plan))
    }

    fn unit(&mut self, batch: &Batch, unit: &Unit, plan: &Plan, disks: &mut Vec<Disk>) {
        let grams = gram_file::read_within(&gram_path(&batch.work, plan), plan.base.budget()).ok();
        let is_current = grams.as_ref().is_some_and(|grams| current_basis(unit, grams, plan.base.budget()).is_some());
        if is_current {
            self.n_current += 1;
        } else {
            if unit.output.exists() && !unit.overwrite && grams.is_some() {
                self.problems.push(format!(
                    "job {:?}: {} is there and is not what the job says, and overwrite is not set",
                    unit.job,
                    unit.output.display()
                ));
            }
            let bytes = atom_bytes(unit, plan, grams.as_ref());
            self.n_to_make += 1;
            self.read_bytes += plan.read_bytes();
            self.write_bytes += bytes;
            want(disks, &unit.output, bytes);
        }
        let base_bytes: u64 = plan.base.tensors().iter().map(|tensor| tensor.n_bytes()).sum();
        for (after, output) in &unit.after {
            // The basis will have these tensors, or those of them that move.
            if let Err(error) = Source::Checkpoints(plan).tensor_weights(&after.weights) {
                let step = after.step.name();
                self.problems.push(format!("job {:?}: {step}: {error}", unit.job));
            }
            if is_current && output.exists() {
                self.n_current += 1;
                continue;
            }
            let bytes = match after.dtype {
                Some(dtype) => {
                    plan.base.tensors().iter().map(|tensor| (tensor.n_elements() * dtype.size()) as u64).sum()
                }
                None => base_bytes,
            };
            self.n_to_make += 1;
            self.read_bytes += bytes.saturating_add(atom_bytes(unit, plan, grams.as_ref()));
            self.write_bytes += bytes;
            want(disks, output, bytes);
        }
    }
}

/// Bytes that a unit's atoms take, at most where it is not known which tensors move.
fn atom_bytes(unit: &Unit, plan: &Plan, grams: Option<&Grams>) -> u64 {
    if let Some(rank) = unit.shared_rank {
        // What cannot be counted fails when it is made.
        return shared_bytes(plan, rank, unit.dtype).unwrap_or(0);
    }
    let n_atoms = unit.size.n_atoms as u64;
    let Some(coding) = &unit.coding else {
        let rows = grams.map_or(plan.n_rows(), Grams::n_moved_rows);
        return rows.saturating_mul(n_atoms).saturating_mul(unit.dtype.size() as u64);
    };
    let moves = |index: usize| grams.and_then(|grams| grams.tensors.get(index)).is_none_or(|tensor| !tensor.frozen);
    let moved = plan.tensors.iter().enumerate().filter(|(index, _)| moves(*index));
    let shapes: Vec<&[usize]> = moved.map(|(_, tensor)| tensor.shape.as_slice()).collect();
    let n_kept = coding.kept_edits(plan.tasks.len()).map_or(0, |kept| kept.len());
    let kept = coding.rung.kept_rate.map_or(0, |rate| column_bytes(&shapes, rate, false));
    let own = column_bytes(&shapes, coding.rung.rate, true);
    own.saturating_mul(n_atoms).saturating_add(kept.saturating_mul(n_kept as u64))
}

/// Adds to what is wanted on the disk of `path`.
fn want(disks: &mut Vec<Disk>, path: &Path, bytes: u64) {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    #[cfg(unix)]
    let id = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(existing).map_or(0, |found| found.dev())
    };
    #[cfg(not(unix))]
    let id = existing
        .components()
        .next()
        .map_or(0, |drive| drive.as_os_str().as_encoded_bytes().iter().map(|&b| u64::from(b)).sum());
    match disks.iter_mut().find(|disk| disk.id == id) {
        Some(disk) => disk.wanted_bytes = disk.wanted_bytes.saturating_add(bytes),
        None => disks.push(Disk { id, place: existing.to_owned(), wanted_bytes: bytes }),
    }
}
