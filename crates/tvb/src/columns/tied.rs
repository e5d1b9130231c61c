//! Tied tensors: an embedding that is the head too is one tensor, though files store it once, twice, or each time under
//! another name.
//!
//! Two names are one tensor where the base has them at one place, where its configuration ties its embeddings and the names are
//! those of an embedding and a head, or where such names have equal data in every column that has both. A task in which they
//! differ although the base ties them is refused: one of the two would be lost.

use super::fit::Twin;
use super::tasks::Task;
use crate::checkpoint::{Checkpoint, Place, Tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::shown::{shown, shown_path};
use std::collections::HashSet;

/// Ends of the names of embeddings that heads are tied to.
const EMBEDDINGS: [&str; 8] = [
    "embed_tokens.weight",
    "wte.weight",
    "shared.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "token_embedding.weight",
    "word_embedding.weight",
    "embed_in.weight",
];
/// Ends of the names of heads.
const HEADS: [&str; 9] = [
    "lm_head.weight",
    "embed_out.weight",
    "output_projection.weight",
    "predictions.decoder.weight",
    "lm_head.decoder.weight",
    "generator_lm_head.weight",
    "vocab_projector.weight",
    "lm_loss.weight",
    "pred_layer.proj.weight",
];
/// A head's bias under its second name: what stands in `X.decoder.bias` stands in `X.bias`.
const BIASES: [&str; 2] = ["predictions.decoder.bias", "lm_head.decoder.bias"];
/// Names of one kind that are looked at.
const N_NAMES_MAX: usize = 32;
/// Elements' bytes that are compared at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of each of the places that are compared before all is.
const SAMPLE_BYTES: usize = 4 << 10;
const N_SAMPLES: u64 = 8;

/// Tied tensors, and the tasks with every one of them under its first name.
#[derive(Clone, Debug)]
pub struct Ties {
    /// The tasks, in order.
    pub tasks: Vec<Task>,
    /// Second names, of tensors that the base has.
    pub twins: Vec<Twin>,
    /// What was found, a line each.
    pub notes: Vec<String>,
}

/// Why two names are one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    OnePlace,
    Configured,
    EqualData,
}

/// Finds the tied tensors of `base` and of `tasks`, which go by the base's names; `takes` says which are chosen. Reads tensors whose names say that they could be
/// one, no others.
///
/// # Errors
/// Rejected: a task in which tensors differ that the base ties. Failed: I/O. Interrupted.
pub fn find_ties(base: &Checkpoint, tasks: Vec<Task>, takes: &dyn Fn(&str) -> bool) -> Result<Ties> {
    let search = Search { base, tasks: &tasks, takes };
    let mut found: Vec<(Twin, Why)> = Vec::new();
    for group in base.tied() {
        let mut names: Vec<&str> = group
            .iter()
            .filter_map(|&index| base.tensors().get(index))
            .filter(|tensor| tensor.dtype.float().is_some())
            .map(|tensor| tensor.name.as_str())
            .collect();
        // The embedding keeps its name.
        names.sort_by_key(|name| is_head(name));
        let Some((first, rest)) = names.split_first() else { continue };
        for name in rest {
            if search.is_tied((first, name), Some(Why::OnePlace))?.is_some() {
                found.push((Twin { name: (*name).to_owned(), of: (*first).to_owned() }, Why::OnePlace));
            }
        }
    }
    let said = said_by_config(base)?;
    if said != Some(false) {
        search.find_pairs(said == Some(true), &mut found)?;
    }
    let notes = found.iter().map(|(twin, why)| {
        let why = match why {
            Why::OnePlace => "one storage in the base",
            Why::Configured => "the base's config.json ties them",
            Why::EqualData => "equal wherever both are",
        };
        format!("{} is {}: one tensor ({why}), written alike", shown(&twin.name), shown(&twin.of))
    });
    let mut notes: Vec<String> = notes.collect();
    let twins: Vec<Twin> = found.into_iter().map(|(twin, _)| twin).collect();
    let tasks = tasks.into_iter().map(|task| under_first_names(task, &twins, &mut notes)).collect::<Result<_>>()?;
    Ok(Ties { tasks, twins, notes })
}

/// What the base's configuration says of its embeddings. One that cannot be read says nothing.
fn said_by_config(base: &Checkpoint) -> Result<Option<bool>> {
    match base.config() {
        Ok(config) => Ok(config.and_then(|config| config.ties_embeddings())),
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        Err(_) => Ok(None),
    }
}

fn is_head(name: &str) -> bool {
    HEADS.iter().any(|end| ends_with(name, end)) || BIASES.iter().any(|end| ends_with(name, end))
}

/// Whether whole segments at a name's end are these.
fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// What ties are looked for in.
struct Search<'a> {
    base: &'a Checkpoint,
    tasks: &'a [Task],
    takes: &'a dyn Fn(&str) -> bool,
}

impl Search<'_> {
    /// Embeddings and heads by their names, and biases with theirs.
    fn find_pairs(&self, is_said: bool, found: &mut Vec<(Twin, Why)>) -> Result<()> {
        let is_kind = |name: &str| HEADS.iter().chain(&EMBEDDINGS).any(|end| ends_with(name, end));
        let mut names: Vec<String> = Vec::new();
        let mut biases: Vec<String> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let Search { base, tasks, .. } = *self;
        for checkpoint in std::iter::once(base).chain(tasks.iter().map(|task| &task.checkpoint)) {
            for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.dtype.float().is_some()) {
                let list = match BIASES.iter().any(|end| ends_with(&tensor.name, end)) {
                    true => &mut biases,
                    false if is_kind(&tensor.name) => &mut names,
                    false => continue,
                };
                if list.len() < N_NAMES_MAX && seen.insert(&tensor.name) {
                    list.push(tensor.name.clone());
                }
            }
        }
        // The base's embeddings, its heads, and then what only tasks have.
        names.sort_by_key(|name| (base.get(name).is_none(), is_head(name)));
        let mut firsts: Vec<String> = Vec::new();
        for name in names {
            if found.iter().any(|(twin, _)| twin.name == name) {
                continue;
            }
            let mut is_second = false;
            for first in &firsts {
                let is_pair =
                    is_head(first) != is_head(&name) || [first, &name].iter().any(|n| ends_with(n, "shared.weight"));
                let why = (is_said && is_pair).then_some(Why::Configured);
                if let Some(why) = self.is_tied((first, &name), why)? {
                    found.push((Twin { name: name.clone(), of: first.clone() }, why));
                    is_second = true;
                    break;
                }
            }
            if !is_second && base.get(&name).is_some() {
                firsts.push(name);
            }
        }
        for name in biases {
            let first = name.strip_suffix("decoder.bias").map(|start| format!("{start}bias")).unwrap_or_default();
            let is_known = found.iter().any(|(twin, _)| twin.name == name);
            if is_known || base.get(&first).is_none() {
                continue;
            }
            let why = is_said.then_some(Why::Configured);
            if let Some(why) = self.is_tied((&first, &name), why)? {
                found.push((Twin { name, of: first }, why));
            }
        }
        Ok(())
    }

    /// Whether `first`, which the base has, and `second` are one tensor; `said` is what the base says of it.
    fn is_tied(&self, pair: (&str, &str), said: Option<Why>) -> Result<Option<Why>> {
        let Search { base, tasks, takes } = *self;
        let (first, second) = pair;
        let mut is_equal_somewhere = false;
        if let (Some(a), Some(b)) = (base.get(first), base.get(second)) {
            if said != Some(Why::OnePlace) && !is_same(base, a, b)? {
                return Ok(None);
            }
            is_equal_somewhere = true;
        }
        for task in tasks {
            let (Some(a), Some(b)) = (task.checkpoint.get(first), task.checkpoint.get(second)) else { continue };
            if is_same(&task.checkpoint, a, b)? {
                is_equal_somewhere = true;
                continue;
            }
            let Some(why) = said else { return Ok(None) };
            // Left out, both of them.
            if !takes(first) || !takes(second) {
                return Ok(said);
            }
            let how = match why {
                Why::OnePlace => "has them at one place",
                _ => "ties them in its config.json",
            };
            return Err(Error::rejected(format!(
            "task {}: tensors {} and {} differ, and the base {how} ({})",
            task.name,
            shown(first),
            shown(second),
            shown_path(task.checkpoint.path())
        ))
        .hint(format!(
            "untie the base (tie_word_embeddings: false in its config.json, both tensors in its weights), or leave both out: --exclude '{}|{}'",
            first.replace('.', "\\."),
            second.replace('.', "\\.")
        )));
        }
        Ok(said.or(is_equal_somewhere.then_some(Why::EqualData)))
    }
}

/// Whether two tensors of a checkpoint are one: at one place, or of equal bytes. Where an adapter moves one of two, the other
/// goes with it.
fn is_same(checkpoint: &Checkpoint, a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.dtype != b.dtype || a.shape != b.shape {
        return Ok(false);
    }
    if a.place == Place::Unmoved || b.place == Place::Unmoved || a.place == b.place {
        return Ok(true);
    }
    if a.is_delta() || b.is_delta() {
        return Ok(false);
    }
    let n_bytes = a.n_bytes();
    let samples = (0..N_SAMPLES).map(|sample| (n_bytes / N_SAMPLES).saturating_mul(sample) / 16 * 16);
    let pieces =
        samples.map(|at| (at, SAMPLE_BYTES)).chain((0..n_bytes).step_by(PIECE_BYTES).map(|at| (at, PIECE_BYTES)));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (at, most) in pieces {
        let n = (n_bytes.saturating_sub(at)).min(most as u64) as usize;
        left.resize(n, 0);
        right.resize(n, 0);
        checkpoint.read(a, at, &mut left)?;
        checkpoint.read(b, at, &mut right)?;
        if left != right {
            return Ok(false);
        }
        checkpoint.budget().check()?;
    }
    Ok(true)
}

/// A task with each tied tensor under its first name too: from its second where the first is missing, or is left alone by an
/// adapter that moves the second.
fn under_first_names(task: Task, twins: &[Twin], notes: &mut Vec<String>) -> Result<Task> {
    let own = &task.checkpoint;
    let mut from: Vec<(&str, &str)> = Vec::new();
    for twin in twins {
        let Some(second) = own.get(&twin.name) else { continue };
        let first = own.get(&twin.of);
        let is_left_alone = first.is_some_and(|first| first.place == Place::Unmoved) && second.place != Place::Unmoved;
        if (first.is_none() || is_left_alone) && !from.iter().any(|(of, _)| *of == twin.of) {
            from.push((&twin.of, &twin.name));
            if is_left_alone {
                let (second, first) = (shown(&twin.name), shown(&twin.of));
                notes.push(format!("task {}: moves {second}, and {first} with it", task.name));
            }
        }
    }
    if from.is_empty() {
        return Ok(task);
    }
    let mut tensors: Vec<Tensor> = Vec::with_capacity(own.tensors().len() + from.len());
    for tensor in own.in_key_order() {
        if !from.iter().any(|(of, _)| *of == tensor.name) {
            tensors.push(tensor.clone());
        }
        if let Some((of, _)) = from.iter().find(|(_, name)| *name == tensor.name) {
            tensors.push(Tensor { name: (*of).to_owned(), ..tensor.clone() });
        }
    }
    let checkpoint = own.with_views(tensors)?;
    Ok(Task { checkpoint, ..task })
}
