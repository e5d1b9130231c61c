//! A model's body against the same body with a head, on either side: the head of a task has no place in the base, and the
//! base's head is not moved by a task that has none.

use super::fit::Twin;
use super::left_out::{Share, Skipped};
use super::tasks::Task;
use crate::checkpoint::{Checkpoint, Dtype, Place, Tensor};
use crate::error::Result;
use crate::shown::shown;
use std::collections::HashSet;

/// Tensors that a note names.
const TENSORS_TOLD: usize = 3;
/// Tasks that a note names.
const TASKS_TOLD: usize = 3;

/// Tensors beside the body, under the base's names, where one of the two models is that body alone.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    /// By the task's position: float tensors that the base lacks, with their elements.
    of_tasks: Vec<(usize, Vec<(String, usize)>)>,
    /// By the task's position: float tensors of the base that the task lacks.
    of_base: Vec<(usize, Vec<String>)>,
}

/// What becomes of the base's head.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// The tasks, with the tensors that only they lack, unmoved.
    pub(super) tasks: Vec<Task>,
    /// Tensors of the base that no task has.
    pub(super) in_none: HashSet<String>,
    /// What was done, a line each, and whether it is much of the base.
    pub(super) told: Vec<(String, bool)>,
}

impl Heads {
    /// What names alone say of one task, `names` being its own in the base's manner; heads are positions in either checkpoint.
    pub(super) fn add(
        &mut self,
        task: usize,
        (checkpoint, names, head): (&Checkpoint, &[Option<String>], &[usize]),
        (base, base_head): (&Checkpoint, &[usize]),
    ) {
        let is_float = |tensor: &Tensor| tensor.dtype.float().is_some();
        let own = head.iter().filter_map(|&index| {
            let tensor = checkpoint.tensors().get(index).filter(|tensor| is_float(tensor))?;
            Some((names.get(index)?.clone()?, tensor.n_elements()))
        });
        let own: Vec<_> = own.collect();
        let lacking = base_head.iter().filter_map(|&index| base.tensors().get(index));
        let lacking: Vec<String> =
            lacking.filter(|tensor| is_float(tensor)).map(|tensor| tensor.name.clone()).collect();
        if !own.is_empty() {
            self.of_tasks.push((task, own));
        }
        if !lacking.is_empty() {
            self.of_base.push((task, lacking));
        }
    }

    /// Without what is known by another name: a head that is the embedding.
    pub(super) fn without(&mut self, twins: &[Twin]) {
        let is_twin = |name: &str| twins.iter().any(|twin| twin.name == name);
        self.of_tasks.iter_mut().for_each(|(_, own)| own.retain(|(name, _)| !is_twin(name)));
        self.of_base.iter_mut().for_each(|(_, names)| names.retain(|name| !is_twin(name)));
        self.of_tasks.retain(|(_, own)| !own.is_empty());
        self.of_base.retain(|(_, names)| !names.is_empty());
    }

    /// Whether a tensor is part of that task's head.
    pub(super) fn has(&self, task: usize, name: &str) -> bool {
        self.of_tasks.iter().filter(|(of, _)| *of == task).any(|(_, own)| own.iter().any(|(own, _)| own == name))
    }

    /// The tasks' heads among the tensors that are chosen: what is left out of them, and a line on how to have it.
    pub(super) fn of_tasks(&self, tasks: &[Task], takes: &dyn Fn(&str) -> bool) -> (Vec<Skipped>, Option<String>) {
        let mut skipped: Vec<Skipped> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut of = Vec::new();
        for (task, own) in &self.of_tasks {
            let mut taken = own.iter().filter(|(name, _)| takes(name)).peekable();
            if taken.peek().is_some() {
                of.extend(tasks.get(*task));
            }
            for (name, n_elements) in taken.filter(|(name, _)| seen.insert(name)) {
                let reason = "a head, which the base lacks".to_owned();
                skipped.push(Skipped { name: name.clone(), reason, n_elements: *n_elements as u64 });
            }
        }
        let note = of.first().map(|first| {
            let (has, its) = if of.len() == 1 { ("has", "it") } else { ("have", "one") };
            format!(
                "{} {has} a head and the base has none: left out; --head-from {} REGEX carries {its} into an edited model",
                tasks_in_words(&of),
                first.name
            )
        });
        (skipped, note)
    }

    /// The base's head in the columns of tasks that have none. `takes` says which tensors are chosen.
    ///
    /// # Errors
    /// Rejected: too little memory.
    pub(super) fn of_base(
        &self,
        base: &Checkpoint,
        mut tasks: Vec<Task>,
        takes: &dyn Fn(&str) -> bool,
        of: u64,
    ) -> Result<Settled> {
        let lacks = |task: &Task, name: &str| task.checkpoint.get(name).is_none();
        let mut in_none: HashSet<String> = HashSet::new();
        if self.of_base.len() == tasks.len()
            && let Some(((_, first), rest)) = self.of_base.split_first()
        {
            let rest: Vec<HashSet<&String>> = rest.iter().map(|(_, names)| names.iter().collect()).collect();
            in_none.extend(first.iter().filter(|name| rest.iter().all(|names| names.contains(name))).cloned());
        }
        let mut groups: Vec<(Vec<&str>, Vec<usize>)> = Vec::new();
        for (index, names) in &self.of_base {
            let Some(task) = tasks.get_mut(*index) else { continue };
            let chosen = names.iter().map(String::as_str).filter(|name| takes(name) && !in_none.contains(*name));
            let names: Vec<&str> = chosen.filter(|name| lacks(task, name)).collect();
            if names.is_empty() {
                continue;
            }
            let unmoved = names.iter().filter_map(|name| base.get(name));
            let unmoved = unmoved.map(|own| Tensor { dtype: Dtype::F32, place: Place::Unmoved, ..own.clone() });
            let own = task.checkpoint.in_key_order().cloned();
            task.checkpoint = task.checkpoint.with_views(own.chain(unmoved).collect())?;
            match groups.iter_mut().find(|(known, _)| *known == names) {
                Some((_, of)) => of.push(*index),
                None => groups.push((names, vec![*index])),
            }
        }
        let told = groups.iter().map(|(names, indices)| {
            let n_elements = names.iter().filter_map(|name| base.get(name)).map(|tensor| tensor.n_elements() as u64);
            let share = Share { n_tensors: names.len() as u64, n_parameters: n_elements.sum(), of };
            let of: Vec<&Task> = indices.iter().filter_map(|index| tasks.get(*index)).collect();
            let (has, it) = if of.len() == 1 { ("has", "it") } else { ("have", "them") };
            let line = format!(
                "{} {has} no head: {} of the base's parameters not moved by {it} ({})",
                tasks_in_words(&of),
                share.in_words(),
                names_in_words(names)
            );
            (line, share.is_much())
        });
        let told = told.collect();
        Ok(Settled { tasks, in_none, told })
    }
}

fn names_in_words(names: &[&str]) -> String {
    let told: Vec<String> = names.iter().take(TENSORS_TOLD).map(|name| shown(name).to_string()).collect();
    format!("{}{}", told.join(", "), if names.len() > told.len() { ", …" } else { "" })
}

/// `task cars`, or `tasks a, b, c and 5 more`.
fn tasks_in_words(tasks: &[&Task]) -> String {
    let told: Vec<&str> = tasks.iter().take(TASKS_TOLD).map(|task| task.name.as_str()).collect();
    let more = match tasks.len().saturating_sub(told.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("task{} {}{more}", if tasks.len() == 1 { "" } else { "s" }, told.join(", "))
}
