//! The smallest M that meets a target error.
//!
//! No basis of M vectors has a mean relative error below what the spectrum of the tasks scaled to one length leaves, so
//! the search starts at the first M where that allows the target. From there every M is tried in turn, since neither the
//! worst error nor a numerical method's error need fall with M. Past [`TRY_ALL`] tasks that would take too long: steps
//! double until the target is met and the gap is then halved, so a smaller M may be missed where errors are not monotone.

use super::{Assessment, Gram, Method, SolveOptions, assess, solve};
use crate::error::{Error, Result};

/// Up to this many tasks every M is tried.
const TRY_ALL: usize = 128;
/// Rounding allowed above a target.
const SLACK: f64 = 1e-12;

/// A target for the relative squared errors δt²/‖τt‖².
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxError {
    /// Their mean over the tasks.
    Mean(f64),
    /// The largest of them.
    Worst(f64),
}

impl MaxError {
    /// What may not be passed.
    pub fn limit(self) -> f64 {
        match self {
            MaxError::Mean(limit) | MaxError::Worst(limit) => limit,
        }
    }

    /// Whether `assessment` meets it.
    pub fn is_met(self, assessment: &Assessment) -> bool {
        self.allows(self.error(assessment))
    }

    /// Whether an error of this much is within it.
    pub(super) fn allows(self, error: f64) -> bool {
        error <= self.limit() + SLACK
    }

    /// The error it is about.
    pub(super) fn error(self, assessment: &Assessment) -> f64 {
        match self {
            MaxError::Mean(_) => assessment.mean,
            MaxError::Worst(_) => assessment.worst,
        }
    }

    /// Refuses what is no target.
    pub(super) fn check(self) -> Result<()> {
        if self.limit() >= 0.0 && self.limit().is_finite() {
            return Ok(());
        }
        Err(Error::usage(format!("target error {}: expected a finite number, 0 or more", self.limit())))
    }
}

/// The smallest M at which `method` meets `target`; `options.n_atoms` is not looked at. `progress` is told the part done, 0
/// to 1, and stops the search by answering false.
///
/// # Errors
/// Usage: a target that is not a number of 0 or more. Rejected: not even M = T meets it. As [`solve`].
pub fn atoms_for_error(
    gram: &Gram,
    method: &Method,
    options: &SolveOptions,
    target: MaxError,
    progress: &dyn Fn(f64) -> bool,
) -> Result<usize> {
    target.check()?;
    let n_tasks = gram.n_tasks();
    let meets = |n_atoms: usize| -> Result<bool> {
        let done = |part: f64| progress((n_atoms as f64 - 1.0 + part) / n_tasks as f64);
        let found = solve(gram, method, &SolveOptions { n_atoms, ..*options }, &done)?;
        Ok(target.is_met(&assess(gram, &found)?))
    };
    let first = method.fixed_atoms(n_tasks).unwrap_or_else(|| first_possible(gram, method, target));
    let found =
        if n_tasks <= TRY_ALL { try_all(first, n_tasks, &meets)? } else { double_and_halve(first, n_tasks, &meets)? };
    found.ok_or_else(|| {
        Error::rejected(format!(
            "method '{}' does not reach an error of {} with any M up to {n_tasks}",
            method.name(),
            target.limit()
        ))
        .hint("allow a larger error or choose another method")
    })
}

/// The first M at which any basis at all could meet the target.
fn first_possible(gram: &Gram, method: &Method, target: MaxError) -> usize {
    let n_tasks = gram.n_tasks();
    // The mean is a vector more.
    let extra = usize::from(matches!(method, Method::Pca));
    let balanced = gram.balanced();
    let n_moving = gram.norms().iter().filter(|norm| **norm > 0.0).count();
    // Zero tasks are recovered exactly: they lower the mean. The worst error is at least the mean over the others.
    let share = match target {
        MaxError::Mean(_) => n_moving as f64 / n_tasks as f64,
        MaxError::Worst(_) => 1.0,
    };
    (1..n_tasks)
        .find(|&m| share * balanced.spectrum().tail(m + extra) <= target.limit() * (1.0 + 1e-9) + SLACK)
        .unwrap_or(n_tasks)
}

fn try_all(first: usize, last: usize, meets: &dyn Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    for n_atoms in first..=last {
        if meets(n_atoms)? {
            return Ok(Some(n_atoms));
        }
    }
    Ok(None)
}

fn double_and_halve(first: usize, last: usize, meets: &dyn Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    // Invariant: `fails` does not meet the target (or is below all that could), `tried` is next.
    let (mut fails, mut tried, mut step) = (first - 1, first, 1);
    while !meets(tried)? {
        if tried == last {
            return Ok(None);
        }
        fails = tried;
        tried = (tried + step).min(last);
        step *= 2;
    }
    let mut met = tried;
    while met - fails > 1 {
        let middle = fails + (met - fails) / 2;
        if meets(middle)? { met = middle } else { fails = middle }
    }
    Ok(Some(met))
}
