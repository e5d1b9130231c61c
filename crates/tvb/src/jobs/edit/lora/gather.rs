//! From an edit's columns to what it changes: factors with their weights, tensor by tensor, and the few tensors that are dense.

use super::names::{Rule, module_of};
use crate::checkpoint::{Checkpoint, LowRank, Module, Place, Sides, Tensor, shown};
use crate::columns::plan::Task;
use crate::error::{Error, Result};
use crate::ops::reconstruct::{EditBlock, Edits, Source};
use std::collections::{HashMap, HashSet};

/// One weight that the edit changes by factors.
#[derive(Debug)]
pub(super) struct Change {
    /// The tensor's name in the base.
    pub tensor: String,
    /// Its shape in the base.
    pub shape: Vec<usize>,
    /// Whose weight it is.
    pub module: Module,
    /// Factors and the weights that they take part with, none of them 0.
    pub terms: Vec<(LowRank, f64)>,
}

/// What an edit changes.
#[derive(Debug)]
pub(super) struct Gathered {
    /// By factors, in the base's order.
    pub changes: Vec<Change>,
    /// Names of tensors that some column gives whole.
    pub dense: Vec<String>,
    /// How names of the base become those of the adapter.
    pub rule: Rule,
}

/// The columns of an edit that take part, with their weights.
pub(super) struct Used<'a> {
    /// Those that have a weight in some tensor.
    pub columns: Vec<&'a Task>,
    /// \[n_columns\]: their weights in tensors that are in no block.
    common: Vec<f64>,
    /// \[n_columns\]: their weights in the tensors of blocks, by name.
    in_blocks: HashMap<&'a str, Vec<f64>>,
    /// What whole tensors are differences from; `None` where columns are differences.
    pub origin: Option<&'a Checkpoint>,
}

impl Change {
    /// Rows and columns of the weight as a matrix.
    pub(super) fn size(&self) -> (usize, usize) {
        self.terms.first().map_or((0, 0), |(factors, _)| (factors.n_rows(), factors.n_columns()))
    }

    /// Ranks of the factors together.
    pub(super) fn stacked_rank(&self) -> usize {
        self.terms.iter().map(|(factors, _)| factors.rank()).sum()
    }
}

impl<'a> Used<'a> {
    /// # Errors
    /// Rejected: an edit that is not one of stored columns, or that gives a weight to a column without factors.
    pub(super) fn of(edits: &'a Edits) -> Result<Used<'a>> {
        let (tasks, origin) = match &edits.source {
            Source::Checkpoints { origin, tasks } => (tasks, Some(origin)),
            Source::Deltas(tasks) => (tasks, None),
            Source::Generated(_) | Source::Coded(_) => {
                return Err(no_factors("the basis").hint(
                    "a basis of adapters that keeps their factors can be written as one, or name them with --from-checkpoints; -o OUT writes the edited checkpoint",
                ));
            }
        };
        let blocks = || edits.blocks.iter().filter_map(|block| block.weights.first());
        let weights_of =
            |column: usize| edits.weights.first().into_iter().chain(blocks()).map(move |row| row.get(column));
        let is_used = |column: &usize| weights_of(*column).flatten().any(|weight| *weight != 0.0);
        let used: Vec<usize> = (0..tasks.len()).filter(is_used).collect();
        let columns: Vec<&Task> = used.iter().filter_map(|&column| tasks.get(column)).collect();
        let row = |weights: Option<&Vec<f64>>| -> Vec<f64> {
            used.iter().map(|&column| weights.and_then(|row| row.get(column)).copied().unwrap_or(0.0)).collect()
        };
        let in_block = |block: &'a EditBlock| {
            let weights = row(block.weights.first());
            block.tensors.iter().map(move |name| (name.as_str(), weights.clone()))
        };
        let in_blocks = edits.blocks.iter().flat_map(in_block).collect();
        let names: HashSet<&str> = edits.tensors.iter().map(String::as_str).collect();
        for task in &columns {
            let all = task.checkpoint.tensors().iter().filter(|tensor| names.contains(tensor.name.as_str()));
            if !all.into_iter().any(Tensor::is_delta) {
                let what = format!("{}: task {}", task.checkpoint.path().display(), shown(&task.name));
                return Err(no_factors(&what)
                    .hint("an adapter can be written of adapters alone; -o OUT writes the edited checkpoint"));
            }
        }
        Ok(Used { common: row(edits.weights.first()), columns, in_blocks, origin })
    }

    /// The columns, each with its weight in a tensor.
    pub(super) fn weighted(&self, tensor: &str) -> impl Iterator<Item = (&'a Task, f64)> {
        let weights = self.in_blocks.get(tensor).unwrap_or(&self.common);
        self.columns.iter().copied().zip(weights.iter().copied())
    }
}

fn no_factors(what: &str) -> Error {
    Error::rejected(format!("{what}: a LoRA adapter expected, whole tensors found"))
}

/// # Errors
/// Rejected: factors that do not say whose weight they change, adapters of models that call their modules otherwise, nothing
/// that is changed.
pub(super) fn gather(edits: &Edits, used: &Used<'_>) -> Result<Gathered> {
    let mut gathered = Gathered { changes: Vec::new(), dense: Vec::new(), rule: Rule::default() };
    let mut rules: Vec<(&str, Vec<Rule>)> = used.columns.iter().map(|task| (task.name.as_str(), Vec::new())).collect();
    for name in &edits.tensors {
        let mut change: Option<Change> = None;
        let mut is_dense = false;
        let mut cores = Cores::default();
        for ((task, weight), (_, rules)) in used.weighted(name).zip(&mut rules) {
            if weight == 0.0 {
                continue;
            }
            let at = || format!("task {}, tensor {}", shown(&task.name), shown(name));
            let tensor = task.checkpoint.get(name);
            let tensor = tensor
                .ok_or_else(|| Error::rejected(format!("{}: not in {}", at(), task.checkpoint.path().display())))?;
            let factors = match &tensor.place {
                Place::Unmoved => continue,
                Place::LowRank(factors) if tensor.shape.len() >= 2 => factors,
                Place::Rescaled { .. } => {
                    return Err(Error::rejected(format!(
                        "{}: a product of factors expected, DoRA found, which no plain adapter holds",
                        at()
                    ))
                    .hint("-o OUT writes the edited checkpoint"));
                }
                _ => {
                    is_dense = true;
                    continue;
                }
            };
            let module = factors.module().ok_or_else(|| {
                Error::rejected(format!("{}: factors that say which module's they are expected, others found", at()))
                    .hint("name the adapters themselves with --from-checkpoints")
            })?;
            let rule = Rule::of(module_of(name).0, &module.name);
            rules.extend(rule.filter(|rule| !rules.contains(rule)));
            let known = change.get_or_insert_with(|| Change {
                tensor: name.clone(),
                shape: tensor.shape.clone(),
                module: module.clone(),
                terms: Vec::new(),
            });
            if known.module != *module {
                return Err(Error::rejected(format!(
                    "{}: module {} expected, as the adapters before have it, {} found",
                    at(),
                    shown(&known.module.name),
                    shown(&module.name)
                ))
                .hint(OTHER_MODELS));
            }
            match factors.core() {
                Some((sides, core)) => cores.add(sides, core, weight)?,
                None => known.terms.push((factors.clone(), weight)),
            }
        }
        if let (Some(change), Some(task)) = (&mut change, used.columns.first()) {
            change.terms.extend(cores.factors(&task.checkpoint)?.map(|factors| (factors, 1.0)));
        }
        if is_dense {
            gathered.dense.push(name.clone());
        } else {
            gathered.changes.extend(change);
        }
    }
    gathered.rule = one_rule(&rules)?;
    if gathered.changes.is_empty() && gathered.dense.is_empty() {
        return Err(nothing());
    }
    Ok(gathered)
}

/// The weighted sum of cores between the same sides: one product, whatever the number of adapters.
#[derive(Default)]
struct Cores {
    sum: Option<(Sides, Vec<f64>)>,
}

impl Cores {
    fn add(&mut self, sides: &Sides, core: &[f32], weight: f64) -> Result<()> {
        let (known, sum) = self.sum.get_or_insert_with(|| (sides.clone(), vec![0.0; core.len()]));
        if !known.is(sides) {
            return Err(Error::failed("cores between sides of two bases in one edit"));
        }
        sum.iter_mut().zip(core).for_each(|(sum, value)| *sum += weight * f64::from(*value));
        Ok(())
    }

    fn factors(self, of: &Checkpoint) -> Result<Option<LowRank>> {
        let Some((sides, sum)) = self.sum else { return Ok(None) };
        let core = sum.into_iter().map(|value| value as f32).collect();
        LowRank::of_core(&sides, core, of.path(), of.budget()).map(Some)
    }
}

/// An adapter of nothing is none that PEFT takes.
pub(super) fn nothing() -> Error {
    Error::rejected("an edit that changes something expected, one of zeros found")
        .hint("weights that cancel each other leave nothing to write")
}

const OTHER_MODELS: &str = "adapters of a model with and without its head call their modules otherwise, and one adapter cannot: -o OUT writes the edited checkpoint";

/// The way that all columns write the base's names.
fn one_rule(rules: &[(&str, Vec<Rule>)]) -> Result<Rule> {
    let mut known = rules.iter().filter(|(_, rules)| !rules.is_empty());
    let Some((first, common)) = known.next() else { return Ok(Rule::default()) };
    for (task, rules) in known {
        if let (Some(expected), Some(found), true) =
            (common.first(), rules.first(), !rules.iter().any(|rule| common.contains(rule)))
        {
            return Err(Error::rejected(format!(
                "task {}: names of modules as in task {} expected ({}), others found ({})",
                shown(task),
                shown(first),
                expected.text(),
                found.text()
            ))
            .hint(OTHER_MODELS));
        }
    }
    Ok(common.first().cloned().unwrap_or_default())
}
