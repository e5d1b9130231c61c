//! A basis of mixtures, of tasks as they are, or of adapters, extended: solved again in the span of its atoms and the newcomers, or with
//! the newcomers as atoms of their own where there is room for them.

use super::frozen::{FrozenDigests, frozen_digests};
use super::joined::{Joined, describe, dtype_of, known};
use super::newcomers::Newcomers;
use super::options::{ExtendOptions, Extended};
use super::remade::Remade;
use super::side_by_side::SideBySide;
use crate::basis::Basis;
use crate::basis::atoms::{AtomFiles, factors, plain};
use crate::basis::carry::Changing;
use crate::basis::manifest::AtomRecord;
use crate::checkpoint::{Dtype, Place};
use crate::columns::plan::{Plan, Task};
use crate::digest::of_unread;
use crate::error::{Error, Result};
use crate::jobs::compress::{CLIPPED, check_room, difference, first_without_factors, parts_of};
use crate::matrix::Matrix;
use crate::ops::Grams;
use crate::ops::project::{Projection, project_from};
use crate::pass::bookmark::NoBookmarks;
use crate::pass::{Reads, Runtime, check_memory};
use crate::progress::{Progress, unless_cancelled};
use crate::shown::{shown, shown_path};
use crate::solve::{self, Gram, JoinedAtoms, Joining, Method};
use std::collections::HashSet;
use tvb_kernels::MAX_TASKS;

/// Extends a basis whose atoms are stored and not coded. Everything is read before anything is written, and then once more.
///
/// # Errors
/// As of every extension.
pub(super) fn extend_mixtures(
    basis: &Basis,
    plan: &Plan,
    newcomers: &Newcomers,
    options: &ExtendOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Extended> {
    let n_new = newcomers.tasks.len();
    check(basis, newcomers, options)?;
    let remade = Remade::of(basis, n_new, options.weight, options.n_atoms)?;
    let appends = appends(basis, &remade, n_new)?;
    let changing = Changing::new(basis, options.output.as_deref(), options.existing, &options.inputs(plan))?;

    let reads = Reads::new();
    let frozen = frozen(basis, newcomers, runtime, progress)?;
    let beside = SideBySide::read(basis, newcomers, &reads, runtime, progress)?;
    let mut notes = remade.notes.clone();
    let of_base = frozen.first().ok_or_else(|| Error::failed("a base that was not read"))?;
    let is_compared = beside.check(basis, (!options.force).then_some(&newcomers.base), of_base)?;
    if !is_compared && !options.force && basis.manifest.base.fingerprint.is_some() {
        notes.push("the base was not read, since adapters say by themselves what they change, and not compared".into());
    }
    let (joining, all) = known(basis, newcomers, &beside, &frozen, options)?;
    let atoms = match appends {
        true => joining.appended(&basis.solved()?),
        false => solved(&joining, &remade, beside.n_rows(), progress)?,
    };
    let job = Writing { basis, beside: &beside, changing: &changing, reads: &reads, runtime, progress };
    let (records, written_bytes) = match (appends, &basis.manifest.factors) {
        (true, Some(_)) => job.append_factors(n_new)?,
        (true, None) => job.append(n_new)?,
        (false, _) => job.make(&atoms.mix)?,
    };
    let joined =
        Joined { basis, newcomers, beside: &beside, frozen: &frozen, joining: &joining, remade: &remade, appends };
    let (manifest, notes) = describe(&joined, &atoms, all, records, notes, changing.path())?;
    manifest.write(changing.path())?;
    let target = changing.target();
    changing.commit()?;
    let read_bytes = reads.n_bytes().saturating_add(plan.factor_bytes());
    Ok(Extended { basis: Basis::open_within(&target, basis.budget())?, n_new, read_bytes, written_bytes, notes })
}

/// Whether this basis can be extended as asked.
fn check(basis: &Basis, newcomers: &Newcomers, options: &ExtendOptions) -> Result<()> {
    let refused = |what: &str, hint: &str| {
        Err(Error::rejected(format!("{}: {what} cannot be extended", shown_path(&basis.folder))).hint(hint))
    };
    let again = "make the basis again from the originals with `tvb compress`";
    if basis.manifest.shared().is_some() {
        return refused("adapters in shared spaces", again);
    }
    if basis.coefficients.grams.is_empty() || basis.coefficients.encode.n_columns() == 0 {
        return refused(
            "a basis that does not know its tasks' inner products, or of what its atoms are mixed,",
            "one that was imported does not, nor one of mixtures that a task has left: make it from the originals with `tvb compress`",
        );
    }
    if basis.manifest.method.options.get(CLIPPED).is_some() {
        return refused("a basis whose atoms were clipped", again);
    }
    if basis.manifest.factors.is_some()
        && let Some(task) = without_factors(newcomers, basis)?
    {
        return Err(Error::rejected(format!("task {}: an adapter expected, as the basis has them", shown(&task)))
            .hint("make a basis of its own of tasks that are whole checkpoints"));
    }
    if options.keep_bits.is_some() {
        return Err(
            Error::usage("bits of a sum that is kept, for a basis that is not coded").hint("leave out --keep-sum")
        );
    }
    Ok(())
}

/// Digests of the tensors that no task of the basis moved. Of a base that was not read then, those that all newcomers leave alone need
/// not be read now either.
fn frozen(basis: &Basis, newcomers: &Newcomers, runtime: &Runtime, progress: &dyn Progress) -> Result<FrozenDigests> {
    let is_unread = basis.manifest.base.fingerprint.is_none();
    let unmoved = |task: &Task, name: &str| {
        let tensor = task.checkpoint.get(name).filter(|tensor| tensor.place == Place::Unmoved)?;
        Some(factors::digest_of_unmoved(tensor.n_elements()))
    };
    let is_left = |name: &&String| is_unread && newcomers.tasks.iter().all(|task| unmoved(task, name).is_some());
    let (left, read): (Vec<&String>, Vec<&String>) = basis.manifest.frozen.iter().partition(is_left);
    let read: Vec<String> = read.into_iter().cloned().collect();
    let mut frozen = frozen_digests(&newcomers.base, &newcomers.tasks, &read, runtime, progress)?;
    if let Some((base, tasks)) = frozen.split_first_mut() {
        base.extend(left.iter().map(|name| ((*name).clone(), of_unread())));
        for (digests, task) in tasks.iter_mut().zip(&newcomers.tasks) {
            digests.extend(left.iter().filter_map(|name| Some(((*name).clone(), unmoved(task, name)?))));
        }
    }
    Ok(frozen)
}

/// The first newcomer that is no adapter.
fn without_factors(newcomers: &Newcomers, basis: &Basis) -> Result<Option<String>> {
    let plan = Plan::of_columns(newcomers.base.clone(), newcomers.tasks.clone(), basis.stored_tensors())?;
    Ok(first_without_factors(&plan).and_then(|column| Some(plan.tasks.get(column - 1)?.name.clone())))
}

/// Whether newcomers become atoms of their own, beside those that are there.
fn appends(basis: &Basis, remade: &Remade, n_new: usize) -> Result<bool> {
    let most = basis.n_atoms() + n_new;
    if most > MAX_TASKS {
        return Err(Error::rejected(format!("at most {MAX_TASKS} atoms and newcomers expected, {most} found")));
    }
    let n_atoms = remade.options.n_atoms;
    match remade.method {
        Method::Identity => Ok(true),
        // Its mean is another one with every task.
        Method::Pca if n_atoms < most => Ok(false),
        _ if n_atoms > most || n_atoms == 0 => Err(Error::usage(format!(
            "1 to {most} atoms expected, {n_atoms} found: more than the atoms that are there and the newcomers say nothing more"
        ))
        .hint(format!("-m {most} keeps the atoms as they are and adds the newcomers"))),
        _ => Ok(n_atoms == most),
    }
}

/// The basis' method on what is known of the tasks.
fn solved(joining: &Joining, remade: &Remade, n_rows: u64, progress: &dyn Progress) -> Result<JoinedAtoms> {
    let gram = Gram::new(joining.effective())?.over(n_rows);
    let (method, options) = (remade.method.clone(), remade.options);
    let found = unless_cancelled(progress, move |go_on| solve::solve(&gram, &method, &options, go_on))?;
    Ok(joining.solved(&found))
}

/// What atoms' files are made from.
struct Writing<'a> {
    basis: &'a Basis,
    beside: &'a SideBySide,
    changing: &'a Changing<'a>,
    reads: &'a Reads,
    runtime: &'a Runtime,
    progress: &'a dyn Progress,
}

impl Writing<'_> {
    /// New atoms U·`mix` in place of the old ones.
    fn make(&self, mix: &Matrix) -> Result<(Vec<AtomRecord>, u64)> {
        let n_atoms = mix.n_columns();
        let stems: Vec<String> = (0..n_atoms).map(|atom| plain::stem(atom, n_atoms)).collect();
        let records = self.project(&self.beside.plan, &self.beside.grams, mix, &stems)?;
        let written = bytes(&records);
        Ok((records, written))
    }

    /// The newcomers beside the old atoms.
    fn append(&self, n_new: usize) -> Result<(Vec<AtomRecord>, u64)> {
        self.carry()?;
        let stems: Vec<String> = self.changing.free_stems().take(n_new).collect();
        let (plan, grams) = self.beside.newcomers()?;
        let records = self.project(&plan, &grams, &Matrix::identity(n_new), &stems)?;
        Ok(self.with_old(records))
    }

    /// The newcomers' factors beside the old ones'.
    fn append_factors(&self, n_new: usize) -> Result<(Vec<AtomRecord>, u64)> {
        self.carry()?;
        let used = self.used();
        let (plan, _) = self.beside.newcomers()?;
        let n_all = self.basis.n_atoms() + n_new;
        let name = |number: usize| format!("{}.safetensors", plain::stem(number, n_all));
        let mut free = (0_usize..).filter(|number| !used.contains(&name(*number)));
        let mut records = Vec::with_capacity(n_new);
        for new in 0..n_new {
            self.progress.check()?;
            let parts = parts_of(&plan, &plan.tensors, new + 1);
            let dense = |place: usize, first: usize, out: &mut [f32]| match plan.tensors.get(place) {
                Some(planned) => difference(&plan, planned, new + 1, first, out),
                None => Err(Error::failed("a tensor that is not stored was asked for")),
            };
            let number = free.next().unwrap_or_default();
            records.push(factors::write(self.changing.path(), (number, n_all), &parts, dense)?);
        }
        (0..plan.n_columns()).try_for_each(|column| plan.column_checkpoint(column).check_unchanged())?;
        Ok(self.with_old(records))
    }

    fn project(&self, plan: &Plan, grams: &Grams, mix: &Matrix, stems: &[String]) -> Result<Vec<AtomRecord>> {
        let dtype = dtype_of(self.basis);
        check_memory(plan, stems.len(), self.runtime)?;
        let n_bytes = self.beside.n_rows().saturating_mul(dtype.size() as u64).saturating_mul(stems.len() as u64);
        check_room(&self.changing.target(), n_bytes)?;
        let tensors = self.beside.tensors();
        let sink = AtomFiles::create_named(self.changing.path(), stems, &tensors, Dtype::from(dtype))?;
        let projection = Projection { plan, grams, encode: mix, dtype, clip: false };
        let none = &mut NoBookmarks;
        let projected = project_from(&projection, self.reads, &sink, None, self.runtime, self.progress, none)?;
        sink.finish(&projected.digests, self.progress)
    }

    /// Brings the old atoms.
    fn carry(&self) -> Result<()> {
        self.basis.manifest.atoms.iter().try_for_each(|atom| self.changing.carry_atom(atom, self.progress))
    }

    /// Names that are taken.
    fn used(&self) -> HashSet<String> {
        let atoms = self.basis.manifest.atoms.iter();
        atoms.flat_map(|atom| std::iter::once(&atom.file).chain(&atom.shards)).cloned().collect()
    }

    fn with_old(&self, new: Vec<AtomRecord>) -> (Vec<AtomRecord>, u64) {
        let written = bytes(&new);
        (self.basis.manifest.atoms.iter().cloned().chain(new).collect(), written)
    }
}

fn bytes(records: &[AtomRecord]) -> u64 {
    records.iter().map(|record| record.bytes).fold(0, u64::saturating_add)
}
