//! Tasks leave a basis of coded tasks. Own columns keep their bytes. So do the shared ones, where nothing but the basis is at hand: what
//! those that go lacked stays in them, and is said. With originals they are made anew.

use super::options::{DropOptions, Dropped, Promise};
use super::plain::triangles_of;
use super::stays::Stays;
use crate::arithmetic::expression;
use crate::basis::Basis;
use crate::basis::carry::Changing;
use crate::basis::history::Happened;
use crate::basis::manifest::{AtomRecord, Fidelity, TaskRecord};
use crate::basis::regrown::Regrown;
use crate::checkpoint::Inputs;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::extend::{Newcomers, Recoded, Recoding};
use crate::matrix::Matrix;
use crate::ops::code::Measured;
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::{shown, shown_path};
use crate::solve::{AtomSizes, Coding, Gram, Parts, Rule, Solved, as_they_are, assess, coded_edit_fidelity};
use tvb_kernels::Dtype;

pub(super) fn drop_coded(
    basis: &Basis,
    stays: &Stays,
    originals: Option<&Plan>,
    options: &DropOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Dropped> {
    basis.check_coded_tasks()?;
    let before = basis.coding().ok_or_else(|| Error::failed("coded atoms without their coding"))?;
    let parts = basis.parts().ok_or_else(|| {
        Error::rejected(format!("{}: a basis that knows its Gram matrix expected", shown_path(&basis.folder)))
            .hint("make it again from the originals with `tvb compress`")
    })?;
    let n_left = stays.left.len();
    if before.n_kept() > n_left {
        return Err(Error::rejected(format!(
            "{}: at least {} tasks that stay expected, as many as edits are kept, {n_left} found",
            shown_path(&basis.folder),
            before.n_kept()
        ))
        .hint("make the basis again from the originals with `tvb compress`"));
    }
    let old_sizes = parts.sizes(&as_they_are(basis.n_tasks()));
    let inputs = originals.map_or_else(Inputs::none, Plan::inputs);
    let changing = Changing::new(basis, options.output.as_deref(), options.existing, &inputs)?;
    let texts: Vec<String> = match &basis.manifest.coded {
        Some(record) if before.n_kept() > 0 => record.kept.iter().map(|text| stays.rest_of(basis, text)).collect(),
        _ => Vec::new(),
    };

    let mut atoms: Vec<AtomRecord> = Vec::new();
    for &task in &stays.left {
        let record = basis.manifest.atoms.get(task).ok_or_else(|| Error::failed("a task without a column"))?;
        changing.carry_atom(record, progress)?;
        atoms.push(record.clone());
    }
    let remade = match originals {
        Some(plan) if before.n_kept() > 0 => {
            Some(Remaking::new(basis, stays, &before, plan, options)?.run(&changing, &old_sizes, runtime, progress)?)
        }
        _ => None,
    };
    let is_remade = remade.is_some();
    let coding = match remade {
        Some((coding, records)) => {
            atoms.extend(records);
            coding
        }
        None => {
            for record in &basis.manifest.atoms[basis.n_atoms()..] {
                changing.carry_atom(record, progress)?;
                atoms.push(record.clone());
            }
            before.without(&old_sizes, &stays.left)
        }
    };

    let gram = Gram::new(basis.total_gram().unwrap_or_else(Matrix::empty))?;
    let now_gram = gram.subset(&stays.left)?;
    let now_parts = parts.subset(&stays.left)?;
    let coefficients = as_they_are(n_left);
    let sizes = now_parts.sizes(&coefficients);
    let assessment = assess(&now_gram, &coefficients)?.coded(&now_gram, &coefficients, &coding, &sizes)?;
    let promises = promises(basis, stays, (&gram, &before, &parts), (&now_gram, &coding, &now_parts))?;
    let mut notes = Vec::new();
    if before.n_kept() > 0 && !is_remade {
        notes.push(format!(
            "the shared columns keep their bytes: what {} lacked stays in them; with the originals (--base and NAME=CHECKPOINT) they are made anew",
            stays.names.join(", ")
        ));
    }
    if let Some(record) = basis.manifest.coded.as_ref().filter(|_| before.n_kept() > 0) {
        for (old, now) in record.kept.iter().zip(&texts).filter(|(old, now)| old != now) {
            notes.push(format!("the kept edit {old} named a task that goes: {now} is kept from now on"));
        }
    }
    if originals.is_some() && before.n_kept() == 0 {
        notes.push("nothing is shared in this basis: the originals were not needed".into());
    }
    let tasks = stays.left.iter().enumerate().map(|(now, &task)| {
        let record = &basis.manifest.tasks[task];
        match is_remade {
            // Nothing that it is made of has changed.
            false => record.clone(),
            true => TaskRecord {
                relative_error: Some(assessment.relative_errors[now]),
                gain: Some(assessment.gains[now]),
                noise: Some(assessment.noises[now]),
                error_bound: None,
                ..record.clone()
            },
        }
    });
    let errors = basis.coefficients.gram_errors.as_ref().map(|errors| errors.subset(&stays.left));
    let triangles = triangles_of(basis, &stays.left);
    let tasks = tasks.collect();
    let solved = Solved { gram: now_gram, coefficients, assessment };
    let regrown = Regrown {
        before: basis,
        solved: &solved,
        triangles: &triangles,
        errors: errors.as_ref(),
        unbiased: true,
        tasks,
        atoms,
        codes: Some((&coding, texts, vec![Measured::default(); n_left])),
        encode: &solved.coefficients.encode,
        recovered: None,
        dtype: Dtype::F32,
    };
    let now = regrown.describe(changing.path(), (Happened::Dropped, stays.names.clone()), notes.clone())?;
    now.write(changing.path())?;
    let target = changing.target();
    changing.commit()?;
    let basis = Basis::open_within(&target, basis.budget())?;
    Ok(Dropped { basis, promises, remade: is_remade, notes })
}

/// What the basis promised for the sum and for everything else that is kept, of the tasks that stay, and what it does now.
fn promises(
    basis: &Basis,
    stays: &Stays,
    before: (&Gram, &Coding, &Parts),
    after: (&Gram, &Coding, &Parts),
) -> Result<Vec<Promise>> {
    let names = basis.task_names();
    let kept = basis.manifest.coded.as_ref().map_or(&[][..], |record| &record.kept);
    let mut edits = vec![("sum of the tasks that stay".to_owned(), vec![1.0; names.len()])];
    let others = kept.iter().filter(|text| !["sum", "weighted sum"].contains(&text.as_str()));
    edits.extend(others.filter_map(|text| Some((stays.rest_of(basis, text), expression(&names, text).ok()?))));
    let mut promises = Vec::new();
    for (edit, mut alpha) in edits {
        stays.gone.iter().for_each(|&task| alpha[task] = 0.0);
        let now: Vec<f64> = stays.left.iter().map(|&task| alpha[task]).collect();
        let of = |(gram, coding, parts): (&Gram, &Coding, &Parts), alpha: &[f64]| -> Result<Option<Fidelity>> {
            let coefficients = as_they_are(gram.n_tasks());
            let sizes = parts.sizes(&coefficients);
            let found = coded_edit_fidelity(gram, &coefficients, coding, &sizes, alpha, Rule::Projected)?;
            Ok(Some(Fidelity { cosine: found.cosine, norm_ratio: found.norm_ratio }))
        };
        promises.push(Promise { edit, before: of(before, &alpha)?, after: of(after, &now)? });
    }
    Ok(promises)
}

/// The shared columns, made anew from originals: of those that go, or of all that stay.
struct Remaking<'a> {
    basis: &'a Basis,
    before: &'a Coding,
    originals: Newcomers,
    force: bool,
    /// Which task each of the originals is.
    own: Vec<usize>,
    /// How the columns are coded now, but for what they are off by.
    coding: Coding,
    /// R.
    carried: Matrix,
    /// The originals' rows of what goes into the shared columns.
    kept: Matrix,
    plan: &'a Plan,
}

impl<'a> Remaking<'a> {
    fn new(
        basis: &'a Basis,
        stays: &Stays,
        before: &'a Coding,
        plan: &'a Plan,
        options: &DropOptions,
    ) -> Result<Remaking<'a>> {
        let names = basis.task_names();
        let own: Vec<usize> =
            plan.tasks.iter().map(|task| crate::arithmetic::find_task(&names, &task.name)).collect::<Result<_>>()?;
        let has = |wanted: &[usize]| wanted.len() == own.len() && wanted.iter().all(|task| own.contains(task));
        let of_gone = has(&stays.gone);
        if !of_gone && !has(&stays.left) {
            return Err(Error::usage(format!(
                "originals of all tasks that go ({}) or of all that stay expected, others found",
                stays.names.join(", ")
            ))
            .hint("give --base and NAME=CHECKPOINT for each of either"));
        }
        let (n_left, n_kept) = (stays.left.len(), before.n_kept());
        // The same directions over those that stay, orthonormal again.
        let rows = Matrix::from_fn(n_left, n_kept, |t, k| before.kept[(stays.left[t], k)]);
        let edits: Vec<Vec<f64>> = (0..n_kept).map(|k| rows.column(k).to_vec()).collect();
        let coding = Coding::new(before.rate, before.kept_rate, n_left, &edits, before.seed);
        let of_left = Coding { kept: rows, ..before.clone() };
        let lost = || {
            Error::rejected(format!("{}: what is kept cannot be told any more", shown_path(&basis.folder)))
                .hint("make the basis again from the originals with `tvb compress`")
        };
        let (carried, kept) = if of_gone {
            let carried = of_left.carried_into(&coding).ok_or_else(lost)?;
            // What they lacked goes out again.
            let kept = Matrix::from_fn(own.len(), coding.n_kept(), |i, k| {
                -(0..n_kept).map(|j| before.kept[(own[i], j)] * carried[(j, k)]).sum::<f64>()
            });
            (carried, kept)
        } else {
            let place = |task: usize| stays.left.iter().position(|left| *left == task).unwrap_or_default();
            let kept = Matrix::from_fn(own.len(), coding.n_kept(), |i, k| coding.kept[(place(own[i]), k)]);
            (Matrix::zeros(n_kept, coding.n_kept()), kept)
        };
        let originals = Newcomers::matched(basis, plan)?;
        Ok(Remaking { basis, before, originals, force: options.force, own, coding, carried, kept, plan })
    }

    /// Writes them, and answers how they are coded now and their files.
    fn run(
        self,
        changing: &Changing<'_>,
        sizes: &AtomSizes,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<(Coding, Vec<AtomRecord>)> {
        let recoding = Recoding {
            basis: self.basis,
            columns: &self.originals,
            coding: &self.coding,
            carried: &self.carried,
            kept: &self.kept,
            own: Some(&self.own),
            force: self.force,
        };
        let n_bytes = self.plan.read_bytes().saturating_add(self.basis.manifest.stored_bytes());
        let Recoded { fingerprints, records, lost, .. } =
            recoding.run(changing, ("drop", n_bytes), runtime, progress)?;
        self.check_originals(&fingerprints)?;
        let kept_errors = self.before.carried_errors(sizes, &self.carried, &lost);
        Ok((Coding { kept_errors, ..self.coding }, records))
    }

    /// Whether the originals are those that the basis was made from.
    fn check_originals(&self, fingerprints: &[Digest]) -> Result<()> {
        for ((task, found), &own) in self.originals.tasks.iter().zip(fingerprints).zip(&self.own) {
            let record = &self.basis.manifest.tasks[own];
            if let Some(expected) = record.fingerprint.filter(|expected| expected != found) {
                return Err(Error::rejected(format!(
                    "{}: the original of task {} expected, another checkpoint found: fingerprint {expected} expected, {found} found",
                    shown_path(task.checkpoint.path()),
                    shown(&task.name)
                ))
                .hint(format!("it was made from {}", record.source.as_deref().unwrap_or("a checkpoint that is not known"))));
            }
        }
        Ok(())
    }
}
