//! The atoms of a basis and the newcomers as columns of one plan, with the inner products of all of them.

use super::newcomers::Newcomers;
use crate::basis::{Basis, check_read};
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TableOfDigests, of_unread};
use crate::error::{Error, Result};
use crate::ops::gram::{gram_from, reads_rows};
use crate::ops::reconstruct::Read;
use crate::ops::{Grams, Origin};
use crate::pass::bookmark::NoBookmarks;
use crate::pass::{Reads, Runtime, check_memory};
use crate::progress::Progress;
use std::collections::HashMap;

/// Columns: the base, the atoms, the newcomers; over the stored tensors in the basis' order.
pub(super) struct SideBySide {
    pub(super) plan: Plan,
    /// Of the plan. No tensor counts as frozen: what is stored stays stored.
    pub(super) grams: Grams,
    /// The atoms as they were opened.
    atoms: Vec<Task>,
}

impl SideBySide {
    /// Opens the atoms and reads everything once.
    ///
    /// # Errors
    /// Usage: a memory cap that is too low. Rejected: damaged atoms, tensors that do not fit, a delta that is not finite. Failed: I/O, device. Interrupted.
    pub(super) fn read(
        basis: &Basis,
        newcomers: &Newcomers,
        reads: &Reads,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<SideBySide> {
        let n_atoms = basis.manifest.atoms.len();
        let open = |index| {
            let name = crate::basis::atoms::plain::stem(index, n_atoms);
            Ok(Task { name, checkpoint: basis.open_atom(index)? })
        };
        let atoms = (0..n_atoms).map(open).collect::<Result<Vec<Task>>>()?;
        let beside = |atom: &Task| Ok(Task { checkpoint: atom.checkpoint.as_differences()?, ..atom.clone() });
        let columns = atoms.iter().map(beside).chain(newcomers.tasks.iter().cloned().map(Ok));
        let plan = in_order(newcomers.base.clone(), columns.collect::<Result<_>>()?, basis.stored_tensors())?;
        if reads_rows(&plan) {
            check_memory(&plan, 0, runtime)?;
        }
        let mut grams = gram_from(&plan, reads, runtime, progress, &mut NoBookmarks)?;
        grams.tensors.iter_mut().for_each(|tensor| tensor.frozen = false);
        Ok(SideBySide { plan, grams, atoms })
    }

    /// Names and shapes of the stored tensors.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.plan.tensors.iter().map(|planned| (planned.name.clone(), planned.shape.clone())).collect()
    }

    /// Elements of all of them.
    pub(super) fn n_rows(&self) -> u64 {
        self.plan.n_rows()
    }

    /// Whether the atoms are what the basis says, and the base too where `base` is given, whose frozen tensors have these digests.
    /// Answers whether the base could be compared.
    ///
    /// # Errors
    /// Rejected: a damaged atom, another base.
    pub(super) fn check(
        &self,
        basis: &Basis,
        base: Option<&Checkpoint>,
        frozen: &HashMap<String, Digest>,
    ) -> Result<bool> {
        let names = || self.plan.tensors.iter().map(|planned| planned.name.clone());
        let of_column =
            |column: usize| -> HashMap<String, Digest> { names().zip(self.grams.digests.column(column)).collect() };
        let columns = self.atoms.iter().enumerate().map(|(index, atom)| {
            let digests = of_column(index + 1);
            let own = atom.checkpoint.tensors().iter().map(|tensor| digests.get(&tensor.name).copied());
            (atom.clone(), own.collect())
        });
        let mut read = Read { base: of_column(0), columns: columns.collect(), ..Read::default() };
        read.base.extend(frozen.iter().map(|(name, digest)| (name.clone(), *digest)));
        let unread = of_unread();
        let is_known = read.base.values().all(|digest| *digest != unread);
        check_read(&read, basis, base.filter(|_| is_known))?;
        Ok(is_known)
    }

    /// Digests of the stored tensors of a newcomer, by name.
    pub(super) fn of_newcomer(&self, new: usize) -> impl Iterator<Item = (&str, Digest)> {
        let names = self.plan.tensors.iter().map(|planned| planned.name.as_str());
        names.zip(self.grams.digests.column(1 + self.atoms.len() + new))
    }

    /// The base and the newcomers alone, with what a projection must know of them.
    ///
    /// # Errors
    /// Rejected: tensors that do not fit.
    pub(super) fn newcomers(&self) -> Result<(Plan, Grams)> {
        let first = self.atoms.len();
        let keep = |column: usize| column == 0 || column > first;
        let tasks = self.plan.tasks.iter().skip(first).cloned().collect();
        let names: Vec<String> = self.plan.tensors.iter().map(|planned| planned.name.clone()).collect();
        let plan = in_order(self.plan.base.clone(), tasks, &names)?;
        let digests = &self.grams.digests;
        let kept = digests.digests.iter().enumerate();
        let kept = kept.filter(|(at, _)| keep(at % digests.n_columns.max(1))).map(|(_, digest)| *digest);
        let digests = TableOfDigests { n_columns: plan.n_columns(), digests: kept.collect() };
        let tasks: Vec<Origin> = self.grams.tasks.iter().skip(first).cloned().collect();
        if tasks.len() != plan.tasks.len() {
            return Err(Error::failed("newcomers that were not read"));
        }
        // A projection asks for no inner product.
        let triangles = Vec::new();
        Ok((plan, Grams { digests, tasks, triangles, ..self.grams.clone() }))
    }
}

/// A plan over these tensors in this order, which the base's files need not have.
fn in_order(base: Checkpoint, columns: Vec<Task>, names: &[String]) -> Result<Plan> {
    let mut plan = Plan::of_columns(base, columns, names)?;
    let order: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    plan.tensors.sort_by_key(|planned| order.get(planned.name.as_str()).copied());
    Ok(plan)
}
