//! What can be refused before any data is read: a number of atoms, options that do not fit a method.

use super::method::{Coordinates, Method};
use crate::error::{Error, Result};

/// Whether options fit a method: needs no data, so that a user is told before anything is read.
///
/// # Errors
/// Usage, with what would fit.
pub fn check_options(method: &Method, balance: bool, coordinates: Coordinates) -> Result<()> {
    let spans_only = matches!(method, Method::Anchored(_) | Method::Exact(_));
    if coordinates == Coordinates::Orthogonal && !spans_only {
        return Err(Error::usage(format!(
            "orthogonal coordinates with method '{}': expected 'anchored' or 'exact'",
            method.name()
        ))
        .hint("leave the coordinates out"));
    }
    if balance && !method.stores_atoms() {
        return Err(Error::usage("balance with method 'random': its atoms do not depend on the tasks' norms")
            .hint("leave --balance out"));
    }
    Ok(())
}

/// M must be 1 to T.
///
/// # Errors
/// Rejected, with the range.
pub fn check_atoms(n_atoms: usize, n_tasks: usize) -> Result<()> {
    if (1..=n_tasks).contains(&n_atoms) {
        return Ok(());
    }
    let tasks = if n_tasks == 1 { "task" } else { "tasks" };
    Err(Error::rejected(format!("M = {n_atoms} atoms for {n_tasks} {tasks}: expected 1 to {n_tasks}"))
        .hint("give -m a number in that range, or --ratio 0.5 for half as many atoms as tasks"))
}
