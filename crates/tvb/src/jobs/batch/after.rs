//! Steps that follow each basis: edits of the base.

use super::reading::{check_keys, read_both};
use crate::arithmetic::{self, parse_weighted};
use crate::error::{Error, Result};
use crate::jobs::edit::{Lines, WeightWords};
use crate::jobs::values::{dtype, number, texts};
use crate::solve::Rule;
use serde::Deserialize;
use toml::{Table, Value};
use tvb_kernels::Dtype;

/// What is formed.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Σ αt τ̂t over the named tasks (all where none is named), or the plain sum of the atoms.
    Add {
        /// Names and weights.
        tasks: Vec<(String, f64)>,
        /// How atoms are combined.
        rule: Rule,
    },
    /// −τ̂.
    Negate {
        /// The task.
        task: String,
    },
    /// τ̂C + τ̂B − τ̂A.
    Analogy {
        /// A, B, C.
        tasks: [String; 3],
    },
    /// A linear expression in task names.
    Apply {
        /// The expression.
        expression: String,
    },
}

/// A step, and what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct After {
    /// What is formed.
    pub step: Step,
    /// λ.
    pub scale: f64,
    /// Weights that differ between tensors.
    pub weights: WeightWords,
    /// The template of the edited checkpoint's path.
    pub output: String,
    /// Type of its float tensors; `None` keeps the base's.
    pub dtype: Option<Dtype>,
    /// Write the largest finite value of the type in place of one beyond it.
    pub clip: bool,
    /// The bare edit, without the base.
    pub delta: bool,
    /// Replace what is there.
    pub overwrite: bool,
}

impl Step {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Add { .. } => "add",
            Step::Negate { .. } => "negate",
            Step::Analogy { .. } => "analogy",
            Step::Apply { .. } => "apply",
        }
    }

    /// α over tasks of these names, without λ.
    ///
    /// # Errors
    /// Usage: a name that is not there, or an expression that cannot be read.
    pub fn alpha(&self, names: &[String]) -> Result<Vec<f64>> {
        match self {
            Step::Add { tasks, .. } => arithmetic::addition(names, tasks),
            Step::Negate { task } => arithmetic::negation(names, task),
            Step::Analogy { tasks: [a, b, c] } => arithmetic::analogy(names, a, b, c),
            Step::Apply { expression } => arithmetic::expression(names, expression),
        }
    }

    /// How atoms are combined.
    pub fn rule(&self) -> Rule {
        match self {
            Step::Add { rule, .. } => *rule,
            _ => Rule::Projected,
        }
    }
}

/// The keys that every step has.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OutputKeys {
    #[serde(deserialize_with = "number")]
    scale: Option<f64>,
    #[serde(deserialize_with = "texts")]
    weight_for: Vec<String>,
    lines: Option<String>,
    output: Option<String>,
    #[serde(deserialize_with = "dtype")]
    dtype: Option<Dtype>,
    clip: bool,
    delta: bool,
    overwrite: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AddKeys {
    #[serde(deserialize_with = "texts")]
    tasks: Vec<String>,
    rule: Option<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NegateKeys {
    task: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AnalogyKeys {
    #[serde(deserialize_with = "texts")]
    tasks: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ApplyKeys {
    expression: Option<String>,
}

/// The words for the steps.
const KINDS: [&str; 4] = ["add", "negate", "analogy", "apply"];

impl After {
    /// The steps of a job.
    pub(super) fn read_all(steps: &[Table], job: &str) -> Result<Vec<After>> {
        let steps = steps.iter().enumerate().map(|(index, table)| {
            let place = format!("{job}, after step {}", index + 1);
            check_keys(table, &KINDS, &place)?;
            let one_of = |found: String| {
                Error::rejected(format!("{place}: a table for one of {} expected, {found} found", KINDS.join(", ")))
            };
            match table.iter().next() {
                Some((kind, Value::Table(keys))) if table.len() == 1 => {
                    After::read(kind, keys, &format!("{place}, {kind}"))
                }
                Some((_, other)) if table.len() == 1 => Err(one_of(other.to_string())),
                _ => Err(one_of(table.len().to_string())),
            }
        });
        steps.collect()
    }

    fn read(kind: &str, table: &Table, place: &str) -> Result<After> {
        let missing = |what: &str| Error::rejected(format!("{place}: {what} expected, none found"));
        let (step, common): (Step, OutputKeys) = match kind {
            "add" => {
                let (keys, common): (AddKeys, _) = read_both(table, place)?;
                let weighted = |text: &String| {
                    parse_weighted(text)
                        .map_err(|error| Error::rejected(format!("{place}, tasks: {}", error.message())))
                };
                let tasks: Vec<(String, f64)> = keys.tasks.iter().map(weighted).collect::<Result<_>>()?;
                let rule = keys.rule.unwrap_or(Rule::Projected);
                if rule == Rule::Sum && !tasks.is_empty() {
                    return Err(Error::rejected(format!("{place}: the rule sum adds all atoms and knows no tasks")));
                }
                (Step::Add { tasks, rule }, common)
            }
            "negate" => {
                let (keys, common): (NegateKeys, _) = read_both(table, place)?;
                (Step::Negate { task: keys.task.ok_or_else(|| missing("a task"))? }, common)
            }
            "analogy" => {
                let (keys, common): (AnalogyKeys, _) = read_both(table, place)?;
                if keys.tasks.is_empty() {
                    return Err(missing("tasks = [A, B, C]"));
                }
                let tasks = <[String; 3]>::try_from(keys.tasks).map_err(|tasks| {
                    Error::rejected(format!("{place}, tasks: three expected, {} found", tasks.len()))
                })?;
                (Step::Analogy { tasks }, common)
            }
            _ => {
                let (keys, common): (ApplyKeys, _) = read_both(table, place)?;
                (Step::Apply { expression: keys.expression.ok_or_else(|| missing("an expression"))? }, common)
            }
        };
        let rejected =
            |key: &'static str| move |error: Error| Error::rejected(format!("{place}, {key}: {}", error.message()));
        let lines = common.lines.as_deref().map(str::parse::<Lines>).transpose().map_err(rejected("lines"))?;
        let weights = WeightWords { rules: common.weight_for, lines };
        weights.check().map_err(rejected("weight_for"))?;
        if step.rule() == Rule::Sum && !weights.is_empty() {
            return Err(Error::rejected(format!(
                "{place}: the rule sum adds all atoms alike, weights by tensor found"
            )));
        }
        Ok(After {
            step,
            weights,
            scale: common.scale.unwrap_or(1.0),
            output: common.output.ok_or_else(|| missing("an output"))?,
            dtype: common.dtype,
            clip: common.clip,
            delta: common.delta,
            overwrite: common.overwrite,
        })
    }
}
