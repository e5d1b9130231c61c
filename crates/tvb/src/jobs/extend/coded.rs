//! A basis of coded tasks, extended: the old own columns keep their bytes, newcomers get columns of their own, the shared ones are made
//! anew from what they decode to.

use super::estimates::{AllGrams, is_raw_slot};
use super::kept::{Kept, coarser};
use super::newcomers::Newcomers;
use super::options::{ExtendOptions, Extended};
use super::recode::{Recoded, Recoding};
use crate::basis::Basis;
use crate::basis::carry::Changing;
use crate::basis::history::Happened;
use crate::basis::manifest::{AtomRecord, Manifest, TaskRecord};
use crate::basis::regrown::Regrown;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ops::code::{GrownSums, Measured};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::{Assessment, AtomSizes, Coding, Gram, Parts, Solved, as_they_are, assess};
use std::path::Path;
use tvb_kernels::Dtype;

/// A kept sum with this many times the noise that the same sum would have in a fresh basis is worth saying.
const MUCH_NOISE: f64 = 2.0;

pub(super) fn extend_coded(
    basis: &Basis,
    plan: &Plan,
    newcomers: &Newcomers,
    options: &ExtendOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Extended> {
    basis.check_coded_tasks()?;
    let before = basis.coding().ok_or_else(|| Error::failed("coded atoms without their coding"))?;
    let n_new = newcomers.tasks.len();
    let kept = Kept::of(basis, &before, n_new, options.weight, options.keep_bits)?;
    let changing = Changing::new(basis, options.output.as_deref(), options.existing, &options.inputs(plan))?;
    let recoding = Recoding {
        basis,
        columns: newcomers,
        coding: &kept.coding,
        carried: &kept.carried,
        kept: &kept.of_newcomers(n_new),
        own: None,
        force: options.force,
    };
    let read_bytes = plan.read_bytes().saturating_add(basis.manifest.stored_bytes());
    let mut recoded = recoding.run(&changing, ("extend", read_bytes), runtime, progress)?;
    let written_bytes = recoded.records.iter().map(|record| record.bytes).sum();
    let own = &basis.manifest.atoms[..basis.n_atoms()];
    own.iter().try_for_each(|record| changing.carry_atom(record, progress))?;
    let shared = recoded.records.split_off(n_new);
    let records = own.iter().cloned().chain(std::mem::take(&mut recoded.records)).chain(shared).collect();

    let described = Describing { basis, newcomers, recoded: &recoded, before: &before, kept: &kept };
    let (manifest, notes) = described.describe(records, options, changing.path())?;
    manifest.write(changing.path())?;
    let target = changing.target();
    changing.commit()?;
    Ok(Extended { basis: Basis::open_within(&target, basis.budget())?, n_new, read_bytes, written_bytes, notes })
}

/// Everything that the new manifest follows from.
struct Describing<'a> {
    basis: &'a Basis,
    newcomers: &'a Newcomers,
    recoded: &'a Recoded,
    before: &'a Coding,
    kept: &'a Kept,
}

impl Describing<'_> {
    /// Writes the coefficients into `folder` and answers the manifest, and what the user should know.
    fn describe(
        &self,
        atoms: Vec<AtomRecord>,
        options: &ExtendOptions,
        folder: &Path,
    ) -> Result<(Manifest, Vec<String>)> {
        let Describing { basis, recoded: Recoded { grown, lost, .. }, before, kept, .. } = *self;
        let n_new = self.newcomers.tasks.len();
        let n_old = basis.n_tasks();
        let old_parts = basis.parts().ok_or_else(|| Error::rejected("a basis that knows its Gram matrix expected"))?;
        let old_sizes = old_parts.sizes(&as_they_are(n_old));
        let old_errors = before.kept_errors(&old_sizes);
        let fingerprints = &self.recoded.fingerprints;
        let names = self.newcomers.tasks.iter().map(|task| task.name.clone());
        let names: Vec<(String, Digest)> = names.zip(fingerprints.iter().copied()).collect();
        let all = match &options.gram {
            Some(path) => AllGrams::of_file(basis, path, &names)?,
            None => AllGrams::estimated(basis, (before, &old_errors), grown, n_new)?,
        };
        let coding =
            Coding { kept_errors: before.carried_errors(&old_sizes, &kept.carried, lost), ..kept.coding.clone() };
        let n_tasks = n_old + n_new;
        let n_slots = all.triangles.len() / tvb_kernels::triangle_len(n_tasks);
        let is_raw = is_raw_slot(basis, n_slots);
        let parts = Parts { coded: all.sum_of(|slot| !is_raw(slot)), raw: all.sum_of(&is_raw) };
        let gram = Gram::new(all.sum_of(|_| true))?;
        let coefficients = as_they_are(n_tasks);
        let sizes = parts.sizes(&coefficients);
        let assessment = assess(&gram, &coefficients)?.coded(&gram, &coefficients, &coding, &sizes)?;
        let mut notes = [kept.notes.clone(), all.notes.clone()].concat();
        notes.extend(much_noise(&coding, &sizes));
        let measured: Vec<Measured> =
            (0..n_old).map(|_| Measured::default()).chain(grown.measured.iter().copied()).collect();
        let solved = Solved { gram, coefficients, assessment };
        let joined = self.newcomers.tasks.iter().map(|task| task.name.clone()).collect();
        let regrown = Regrown {
            before: basis,
            solved: &solved,
            triangles: &all.triangles,
            errors: all.errors.as_ref(),
            unbiased: true,
            tasks: self.tasks(&solved.assessment, &names),
            atoms,
            codes: Some((&coding, kept.texts.clone(), measured)),
            encode: &solved.coefficients.encode,
            recovered: None,
            dtype: Dtype::F32,
        };
        let manifest = regrown.describe(folder, (Happened::Extended, joined), notes.clone())?;
        Ok((manifest, notes))
    }

    /// The records of all tasks: old ones as they are to be expected now, new ones as measured.
    fn tasks(&self, assessment: &Assessment, names: &[(String, Digest)]) -> Vec<TaskRecord> {
        let shifts = self.shifts();
        let old = self.basis.manifest.tasks.iter().enumerate().map(|(t, record)| {
            let norm = record.norm.unwrap_or(0.0);
            let bound = record.error_length().map(|length| (length + shifts[t]) / norm);
            TaskRecord {
                relative_error: Some(assessment.relative_errors[t]),
                gain: Some(assessment.gains[t]),
                noise: Some(assessment.noises[t]),
                error_bound: bound.filter(|bound| bound.is_finite()),
                ..record.clone()
            }
        });
        let n_old = self.basis.n_tasks();
        let new = self.newcomers.tasks.iter().zip(names).enumerate().map(|(new, (task, (name, fingerprint)))| {
            let t = n_old + new;
            let found = self.recoded.grown.measured[new].gain_and_noise();
            let (gain, noise) = found.unwrap_or((assessment.gains[t], assessment.noises[t]));
            let measured = TaskRecord {
                name: name.clone(),
                source: Some(task.checkpoint.source()),
                fingerprint: Some(*fingerprint),
                norm: Some(assessment.norms[t]),
                relative_error: Some((1.0 - gain).powi(2) + noise),
                gain: Some(gain),
                noise: Some(noise),
                error_bound: None,
            };
            let norm = assessment.norms[t];
            let bound = found.and_then(|_| Some(measured.error_length()? / norm));
            TaskRecord { error_bound: bound, ..measured }
        });
        old.chain(new).collect()
    }

    /// \[T\]: the most that what an old task comes back as has moved: by R and Q' in place of Q in what the shared columns decode to, by
    /// what newcomers put into them, and by what their new codes lose.
    fn shifts(&self) -> Vec<f64> {
        let Describing { basis, recoded: Recoded { grown, .. }, before, kept, .. } = *self;
        let (n_old, n_new) = (basis.n_tasks(), self.newcomers.tasks.len());
        let total = |of: &dyn Fn(&GrownSums) -> f64| grown.sums.values().map(of).sum::<f64>();
        let lengths: Vec<f64> = (0..before.n_kept()).map(|k| total(&|sums| sums.decoded(n_old + k)).sqrt()).collect();
        let now = &kept.coding.kept;
        let put_in: Vec<f64> = (0..now.n_columns())
            .map(|k| {
                let lacks = (0..n_new).map(|new| now[(n_old + new, k)].abs() * total(&|sums| sums.lost(new)).sqrt());
                lacks.sum::<f64>() + total(&|sums| sums.lost(n_new + k)).sqrt()
            })
            .collect();
        let shift = |t: usize| {
            let turned = lengths.iter().enumerate().map(|(k, length)| {
                let along: f64 = (0..now.n_columns()).map(|new| now[(t, new)] * kept.carried[(k, new)]).sum();
                (along - before.kept[(t, k)]).abs() * length
            });
            turned.sum::<f64>() + put_in.iter().enumerate().map(|(k, put)| now[(t, k)].abs() * put).sum::<f64>()
        };
        (0..n_old).map(shift).collect()
    }
}

/// Says so where the kept edits have much more noise than they would have in a basis made in one go.
fn much_noise(coding: &Coding, sizes: &AtomSizes) -> Option<String> {
    // As coarsely as it is likely to have been made: growth begins with a finer rate.
    let fresh = Coding { kept_errors: Vec::new(), kept_rate: coarser(coding.kept_rate), ..coding.clone() };
    let (found, fresh): (f64, f64) = (coding.kept_errors.iter().sum(), fresh.kept_errors(sizes).iter().sum());
    (fresh > 0.0 && found > MUCH_NOISE * fresh).then(|| {
        format!(
            "what is kept has {:.1} times the noise that it would have in a basis made in one go: more --keep-sum bits add less each time, and `tvb compress` with the originals none",
            found / fresh
        )
    })
}
