//! Steps that follow each basis: edits of the base.

use super::file::dtype;
use super::settings::Settings;
use crate::arithmetic;
use crate::error::{Error, Result};
use crate::solve::Rule;
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
    /// The template of the edited checkpoint's path.
    pub output: String,
    /// Type of its float tensors; `None` keeps the base's.
    pub dtype: Option<Dtype>,
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

const KINDS: &[&str] = &["add", "negate", "analogy", "apply"];
const COMMON: [&str; 5] = ["scale", "output", "dtype", "delta", "overwrite"];

/// The steps of a job.
pub(super) fn parse_all(job: Settings<'_>) -> Result<Vec<After>> {
    let steps = job.tables("after")?.into_iter().enumerate().map(|(number, table)| {
        let place = format!("{}, after step {}", job.place, number + 1);
        let settings = Settings { table, place: &place };
        settings.check_keys(KINDS)?;
        match table.keys().next() {
            Some(kind) if table.len() == 1 => parse(kind, settings),
            _ => Err(Error::rejected(format!("{place}: one of {} expected, {} found", KINDS.join(", "), table.len()))),
        }
    });
    steps.collect()
}

fn parse(kind: &str, outer: Settings<'_>) -> Result<After> {
    let place = format!("{}, {kind}", outer.place);
    let Some(table) = outer.table(kind)? else { return Err(Error::rejected(format!("{place}: a table expected"))) };
    let settings = Settings { table, place: &place };
    let own: &[&str] = match kind {
        "add" => &["tasks", "rule"],
        "negate" => &["task"],
        "analogy" => &["tasks"],
        _ => &["expression"],
    };
    let known: Vec<&str> = own.iter().chain(&COMMON).copied().collect();
    settings.check_keys(&known)?;
    let missing = |what: &str| Error::rejected(format!("{place}: {what} expected, none found"));
    let step = match kind {
        "add" => {
            let tasks = settings.texts("tasks")?.unwrap_or_default();
            let tasks: Vec<(String, f64)> = tasks.iter().map(|text| weighted(text, &place)).collect::<Result<_>>()?;
            let rule = match settings.text("rule")?.as_deref() {
                None | Some("projected") => Rule::Projected,
                Some("sum") if tasks.is_empty() => Rule::Sum,
                Some("sum") => {
                    return Err(Error::rejected(format!("{place}: the rule sum adds all atoms and knows no tasks")));
                }
                Some(other) => {
                    return Err(Error::rejected(format!("{place}, rule: projected or sum expected, {other:?} found")));
                }
            };
            Step::Add { tasks, rule }
        }
        "negate" => Step::Negate { task: settings.text("task")?.ok_or_else(|| missing("a task"))? },
        "analogy" => {
            let tasks = settings.texts("tasks")?.ok_or_else(|| missing("tasks = [A, B, C]"))?;
            let n_found = tasks.len();
            let tasks = <[String; 3]>::try_from(tasks)
                .map_err(|_| Error::rejected(format!("{place}, tasks: three expected, {n_found} found")))?;
            Step::Analogy { tasks }
        }
        _ => Step::Apply { expression: settings.text("expression")?.ok_or_else(|| missing("an expression"))? },
    };
    Ok(After {
        step,
        scale: settings.number("scale")?.unwrap_or(1.0),
        output: settings.text("output")?.ok_or_else(|| missing("an output"))?,
        dtype: settings.text("dtype")?.map(|name| dtype(&name, &place)).transpose()?,
        delta: settings.flag("delta")?.unwrap_or(false),
        overwrite: settings.flag("overwrite")?.unwrap_or(false),
    })
}

/// `NAME` or `NAME:WEIGHT`.
fn weighted(text: &str, place: &str) -> Result<(String, f64)> {
    let Some((name, number)) = text.rsplit_once(':') else { return Ok((text.to_owned(), 1.0)) };
    match number.trim().parse::<f64>() {
        Ok(weight) if weight.is_finite() => Ok((name.to_owned(), weight)),
        _ => {
            Err(Error::rejected(format!("{place}, tasks: NAME:WEIGHT such as \"mnist:0.5\" expected, {text:?} found")))
        }
    }
}
