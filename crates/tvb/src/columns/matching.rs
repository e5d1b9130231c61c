//! Tasks under the base's names: what the user renames, then what wrappers and heads have added, each change announced.

use super::heads::Heads;
use super::names::{Matched, Named, change, names_in_base};
use super::rename::Rename;
use super::tasks::Task;
use crate::checkpoint::{Checkpoint, Layout, Tensor};
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use std::collections::{HashMap, HashSet};

/// Bytes that matching takes for each tensor, while it goes on.
const MATCHING_BYTES: u64 = 512;
/// Changes of names that are told one by one.
const CHANGES_TOLD: usize = 4;
/// Tasks that are named where many have the same changes.
const TASKS_TOLD: usize = 3;

/// Tasks whose tensors go by the base's names.
#[derive(Clone, Debug)]
pub struct UnderBaseNames {
    /// The tasks, in order.
    pub tasks: Vec<Task>,
    /// Float tensors that found no name of their own, since two names are one in the base's manner: the task's position, their name
    /// in its file, and their elements.
    pub nameless: Vec<(usize, String, usize)>,
    /// Tensors beside a body that the other side is.
    pub heads: Heads,
    /// What was done, a line each.
    pub notes: Vec<String>,
}

/// Matches the names of every task's tensors with the base's. Tensors that the base lacks keep a name of their own.
///
/// # Errors
/// Usage: a rule for a task that there is none of. Rejected: a rule that makes two names one, names that match in two ways, too
/// little memory.
pub fn under_base_names(base: &Checkpoint, tasks: Vec<Task>, renames: &[Rename]) -> Result<UnderBaseNames> {
    for rename in renames {
        if rename.task().is_some_and(|name| !tasks.iter().any(|task| task.name == name)) {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            let error = Error::usage(format!("--rename {:?}: no task of this name", rename.text()));
            return Err(match crate::nearest::nearest(rename.task().unwrap_or_default(), names.iter().copied()) {
                Some(near) => error.hint(format!("did you mean {}?", shown(near))),
                None => error,
            });
        }
    }
    let base_names = named(base, None);
    let mut found = UnderBaseNames {
        tasks: Vec::with_capacity(tasks.len()),
        nameless: Vec::new(),
        heads: Heads::default(),
        notes: Vec::new(),
    };
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    for (index, task) in tasks.into_iter().enumerate() {
        let renamed = renamed(&task, renames)?;
        let is_there = |tensor: &Tensor| task.checkpoint.get(&tensor.name).is_some_and(|own| own.shape == tensor.shape);
        if renamed.is_none() && base.tensors().iter().all(is_there) {
            found.tasks.push(task);
            continue;
        }
        let own = named(&task.checkpoint, None);
        let n_bytes = MATCHING_BYTES * (own.len() + base_names.len()) as u64;
        let _charge = task.checkpoint.budget().charge(task.checkpoint.path(), "matching its names", n_bytes)?;
        let given = renamed.as_ref().map_or_else(|| own.clone(), |names| named(&task.checkpoint, Some(names)));
        let matched = names_in_base(&base_names, &given).map_err(|ambiguous| {
            let [first, second] = &ambiguous.ways;
            Error::rejected(format!(
                "task {}: its names match the base's in two ways: {}, or {} ({})",
                task.name,
                first.in_words(),
                second.in_words(),
                shown_path(task.checkpoint.path())
            ))
            .hint(format!(
                "say which: --rename '{}:s/^{}/{}/'",
                task.name,
                first.taken_off.replace('.', "\\."),
                first.put_before
            ))
        })?;
        let names = match (matched, renamed) {
            (Some(Matched { names, task_head, base_head }), _) => {
                found.heads.add(index, (&task.checkpoint, &names, &task_head), (base, &base_head));
                names
            }
            (None, Some(names)) => names.into_iter().map(Some).collect(),
            (None, None) => {
                found.tasks.push(task);
                continue;
            }
        };
        let changes = changes(&own, &names, &|name| base.get(name).is_some());
        match told.iter_mut().find(|(known, _)| *known == changes) {
            Some((_, names)) => names.push(task.name.clone()),
            None if changes.is_empty() => {}
            None => told.push((changes, vec![task.name.clone()])),
        }
        let nameless = task.checkpoint.tensors().iter().zip(&names);
        let nameless = nameless.filter(|(tensor, name)| name.is_none() && tensor.dtype.float().is_some());
        found.nameless.extend(nameless.map(|(tensor, _)| (index, tensor.name.clone(), tensor.n_elements())));
        let checkpoint = task.checkpoint.under_names(&names)?;
        found.tasks.push(Task { checkpoint, ..task });
    }
    let of_opening =
        |task: &Task| task.checkpoint.notes().iter().map(|note| format!("task {}: {note}", task.name)).collect();
    let of_opening: Vec<Vec<String>> = found.tasks.iter().map(of_opening).collect();
    found.notes = told.into_iter().map(|(changes, names)| format!("{}: {changes}", tasks_in_words(&names))).collect();
    found.notes.extend(of_opening.concat());
    Ok(found)
}

/// A base that is given to something made from the base whose tensors are `known`, under the names that those have. What is written
/// like it keeps its own names. Shapes are for others to compare. `None` where there is nothing to change, or no way to.
///
/// # Errors
/// Rejected: names that match in two ways, too little memory.
pub fn base_under_names(base: &Checkpoint, known: &[&str]) -> Result<Option<(Checkpoint, String)>> {
    let is_pipeline = matches!(base.layout(), Layout::Pipeline { .. });
    // Fewer tensors cannot be all that are known, whatever they are called.
    let is_smaller = base.tensors().len() < known.len();
    if is_pipeline || is_smaller || known.iter().all(|name| base.get(name).is_some()) {
        return Ok(None);
    }
    let n_bytes = MATCHING_BYTES * (known.len() + base.tensors().len()) as u64;
    let _charge = base.budget().charge(base.path(), "matching its names", n_bytes)?;
    let expected: Vec<Named<'_>> = known.iter().map(|name| Named { name, shape: &[] }).collect();
    let own: Vec<Named<'_>> = base.tensors().iter().map(|tensor| Named { name: &tensor.name, shape: &[] }).collect();
    let matched = names_in_base(&expected, &own).map_err(|ambiguous| {
        let [first, second] = ambiguous.ways.map(|way| way.in_words());
        Error::rejected(format!(
            "{}: its names match the basis's in two ways: {first}, or {second}",
            shown_path(base.path())
        ))
        .hint("name the checkpoint that the basis was made from, or one with a single copy of the model")
    })?;
    let Some(names) = matched.and_then(|matched| matched.names.into_iter().collect::<Option<Vec<String>>>()) else {
        return Ok(None);
    };
    let is_anothers = |(name, own): (&String, &Named<'_>)| name != own.name && base.get(name).is_some();
    let found: HashSet<&str> = names.iter().map(String::as_str).collect();
    if names.iter().zip(&own).any(is_anothers) || !known.iter().all(|name| found.contains(name)) {
        return Ok(None);
    }
    let given: Vec<Option<String>> = names.iter().cloned().map(Some).collect();
    let known: HashSet<&str> = known.iter().copied().collect();
    let changes = changes(&own, &given, &|name| known.contains(name));
    Ok(Some((base.known_as(&names)?, changes)))
}

fn named<'a>(checkpoint: &'a Checkpoint, names: Option<&'a [String]>) -> Vec<Named<'a>> {
    let tensors = checkpoint.tensors().iter().enumerate();
    let named = tensors.map(|(index, tensor)| Named {
        name: names.and_then(|names| names.get(index)).map_or(tensor.name.as_str(), String::as_str),
        shape: &tensor.shape,
    });
    named.collect()
}

/// The names as the user's rules have them, one rule after the other; `None` where none of them is about this task.
fn renamed(task: &Task, renames: &[Rename]) -> Result<Option<Vec<String>>> {
    let rules: Vec<&Rename> = renames.iter().filter(|rename| rename.is_about(&task.name)).collect();
    if rules.is_empty() {
        return Ok(None);
    }
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut names = Vec::with_capacity(task.checkpoint.tensors().len());
    for tensor in task.checkpoint.tensors() {
        let name = rules.iter().fold(tensor.name.clone(), |name, rule| rule.apply(&name).into_owned());
        if let Some(other) = seen.insert(name.clone(), &tensor.name) {
            return Err(Error::rejected(format!(
                "task {}: --rename gives tensors {} and {} one name: {}",
                task.name,
                shown(other),
                shown(&tensor.name),
                shown(&name)
            ))
            .hint("make the pattern narrower, for example with ^ at its start"));
        }
        names.push(name);
    }
    Ok(Some(names))
}

/// What was done to the names of tensors that the base has: `` `module.` taken off 312 names ``.
fn changes(own: &[Named<'_>], names: &[Option<String>], is_known: &dyn Fn(&str) -> bool) -> String {
    let mut counts: Vec<((&str, &str), usize)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for (tensor, name) in own.iter().zip(names) {
        let Some(name) = name.as_deref().filter(|name| *name != tensor.name && is_known(name)) else {
            continue;
        };
        let changed = change(tensor.name, name);
        let place = *places.entry(changed).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, n)) => *n += 1,
            None => counts.push((changed, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let told = counts.iter().take(CHANGES_TOLD).map(|((before, after), n)| {
        let names = if *n == 1 { "name" } else { "names" };
        match (before.is_empty(), after.is_empty()) {
            (_, true) => format!("{} taken off {n} {names}", shown(before)),
            (true, false) => format!("{} put before {n} {names}", shown(after)),
            (false, false) => format!("{} read as {} in {n} {names}", shown(before), shown(after)),
        }
    });
    let mut told: Vec<String> = told.collect();
    let n_more: usize = counts.iter().skip(CHANGES_TOLD).map(|(_, n)| n).sum();
    if n_more > 0 {
        told.push(format!("{n_more} more names changed"));
    }
    told.join(", ")
}

/// `task cars`, or `tasks a, b, c and 5 more`.
pub(super) fn tasks_in_words(names: &[String]) -> String {
    let unique: HashSet<&String> = names.iter().collect();
    let told: Vec<&str> = names.iter().take(TASKS_TOLD).map(String::as_str).collect();
    let more = match unique.len().saturating_sub(told.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("task{} {}{more}", if unique.len() == 1 { "" } else { "s" }, told.join(", "))
}
