//! From what the user named to open columns: the base, and each task against it.

use super::tasks::{Task, TaskSource};
use crate::checkpoint::{Checkpoint, OpenOptions, raise_open_file_limit};
use crate::error::Result;
use std::path::Path;

/// Opens a base.
///
/// # Errors
/// As [`Checkpoint::open_with`].
pub fn open_base(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    raise_open_file_limit();
    Checkpoint::open_with(path, options).map_err(|error| error.context("base"))
}

/// Opens one task, which may be known only relative to the base.
///
/// # Errors
/// As [`Checkpoint::open_with`].
pub fn open_task(source: &TaskSource, _base: &Checkpoint, options: &OpenOptions) -> Result<Task> {
    let checkpoint = Checkpoint::open_with(&source.path, options);
    let checkpoint = checkpoint.map_err(|error| error.context(format!("task {}", source.name)))?;
    Ok(Task { name: source.name.clone(), checkpoint })
}

/// Opens a base and its tasks.
///
/// # Errors
/// As [`Checkpoint::open_with`].
pub fn open_columns(base: &Path, sources: &[TaskSource], options: &OpenOptions) -> Result<(Checkpoint, Vec<Task>)> {
    let base = open_base(base, options)?;
    let tasks = sources.iter().map(|source| open_task(source, &base, options)).collect::<Result<_>>()?;
    Ok((base, tasks))
}
