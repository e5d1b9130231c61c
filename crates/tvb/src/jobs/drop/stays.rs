//! Which tasks stay, and what is kept of them.

use crate::arithmetic::{expression, find_task};
use crate::basis::Basis;
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use std::collections::HashSet;

/// The tasks of a basis, divided.
#[derive(Clone, Debug)]
pub(super) struct Stays {
    /// Numbers of those that stay, ascending.
    pub(super) left: Vec<usize>,
    /// Numbers of those that go, as they were named.
    pub(super) gone: Vec<usize>,
    /// The latter's names.
    pub(super) names: Vec<String>,
}

impl Stays {
    /// # Errors
    /// Usage: a name that no task has, or one given twice. Rejected: nothing would be left.
    pub(super) fn of(basis: &Basis, names: &[String]) -> Result<Stays> {
        let known = basis.task_names();
        let gone: Vec<usize> = names.iter().map(|name| find_task(&known, name)).collect::<Result<_>>()?;
        let unique: HashSet<usize> = gone.iter().copied().collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(Error::usage(format!("task {}: given once expected, twice found", shown(twice.1))));
        }
        if unique.len() == known.len() {
            return Err(Error::rejected(format!(
                "{}: at least one task that stays expected, none found: nothing would be left of its {}",
                shown_path(&basis.folder),
                known.len()
            ))
            .hint("remove the folder if the basis is no longer needed"));
        }
        let left = (0..known.len()).filter(|task| !unique.contains(task)).collect();
        Ok(Stays { left, gone, names: names.to_vec() })
    }

    /// What is kept of an edit that was: as it is where it names no task that goes, else the rest of it where that can be written down.
    pub(super) fn rest_of(&self, basis: &Basis, text: &str) -> String {
        if ["sum", "weighted sum"].contains(&text) {
            return text.to_owned();
        }
        let names = basis.task_names();
        let Ok(alpha) = expression(&names, text) else { return text.to_owned() };
        if self.gone.iter().all(|&task| alpha[task] == 0.0) {
            return text.to_owned();
        }
        let left: Vec<String> = self.left.iter().map(|&task| names[task].clone()).collect();
        let expected: Vec<f64> = self.left.iter().map(|&task| alpha[task]).collect();
        let terms: Vec<String> = (expected.iter().zip(&left))
            .filter(|(weight, _)| **weight != 0.0)
            .map(|(weight, name)| format!("{weight}*{name}"))
            .collect();
        let rest = terms.join(" + ").replace("+ -", "- ");
        match expression(&left, &rest) {
            Ok(found) if found == expected => rest,
            _ => format!("{text} (the rest of it)"),
        }
    }
}
