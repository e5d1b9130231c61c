//! From what the user named to open columns: the base, and each task against it.

use super::adapter::Found;
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
    Found::at(path, options).and_then(Found::whole).map_err(|error| error.context("base"))
}

/// Opens one task, which may be known only relative to the base.
///
/// # Errors
/// As [`Checkpoint::open_with`]. Rejected: an adapter that has no place in the base.
pub fn open_task(source: &TaskSource, base: &Checkpoint, options: &OpenOptions) -> Result<Task> {
    let checkpoint = Found::at(&source.path, options).and_then(|found| match found {
        Found::Checkpoint(checkpoint) => Ok(checkpoint),
        Found::Adapter(adapter) => adapter.against(base),
    });
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
