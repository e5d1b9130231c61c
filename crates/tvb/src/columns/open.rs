//! From what the user named to open columns: the base, and each task against it.

use super::adapter::Found;
use super::tasks::{Task, TaskSource, split_key};
use super::unfit;
use crate::checkpoint::{Checkpoint, Component, Layout, OpenOptions, raise_open_file_limit};
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use std::path::Path;

/// Opens a base: `PATH`, or `PATH::KEY` for one state dict of a PyTorch file.
///
/// # Errors
/// As [`Checkpoint::open_with`]. Rejected: weights that take no part, such as quantized ones. Usage: `::` without a key.
pub fn open_base(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    raise_open_file_limit();
    let open = || {
        let (path, key) = split_key(path)?;
        let checkpoint = open_with_key(&path, key.as_deref(), options)?.whole()?;
        unfit::check(&checkpoint)?;
        Ok(checkpoint)
    };
    open().map_err(|error: Error| error.context("base"))
}

/// Opens one task, which may be known only relative to the base: a component of its pipeline.
///
/// # Errors
/// As [`open_base`]. Rejected: an adapter that has no place in the base, or a component of another pipeline.
pub fn open_task(source: &TaskSource, base: &Checkpoint, options: &OpenOptions) -> Result<Task> {
    let open = || match open_with_key(&source.path, source.key.as_deref(), options)? {
        Found::Adapter(adapter) => adapter.against(base),
        Found::Checkpoint(checkpoint) => {
            unfit::check(&checkpoint)?;
            in_pipeline(checkpoint, base)
        }
    };
    let checkpoint = open().map_err(|error: Error| error.context(format!("task {}", source.name)))?;
    Ok(Task { name: source.name.clone(), checkpoint })
}

/// A base that is open already, such as a state dict in memory.
///
/// # Errors
/// As [`open_base`].
pub fn take_base(base: Checkpoint) -> Result<Checkpoint> {
    unfit::check(&base).map_err(|error| error.context("base"))?;
    Ok(base)
}

/// A task that is open already, such as a state dict in memory. What it has must be a whole model's, or that of a component of
/// the base; an adapter is not known by its tensors alone.
///
/// # Errors
/// As [`open_task`].
pub fn take_task(name: &str, checkpoint: Checkpoint, base: &Checkpoint) -> Result<Task> {
    let take = || {
        unfit::check(&checkpoint)?;
        in_pipeline(checkpoint, base)
    };
    let checkpoint = take().map_err(|error: Error| error.context(format!("task {name}")))?;
    Ok(Task { name: name.to_owned(), checkpoint })
}

/// Opens a base and its tasks.
///
/// # Errors
/// As [`open_base`] and [`open_task`].
pub fn open_columns(base: &Path, sources: &[TaskSource], options: &OpenOptions) -> Result<(Checkpoint, Vec<Task>)> {
    let base = open_base(base, options)?;
    let tasks = sources.iter().map(|source| open_task(source, &base, options)).collect::<Result<_>>()?;
    Ok((base, tasks))
}

/// A key of this path alone goes before one for all.
fn open_with_key(path: &Path, key: Option<&str>, options: &OpenOptions) -> Result<Found> {
    let Some(key) = key else { return Found::at(path, options) };
    let own = OpenOptions { key: Some(key.to_owned()), ..options.clone() };
    match Found::at(path, &own)? {
        Found::Checkpoint(found) if matches!(found.layout(), Layout::TorchFile | Layout::TorchFolder { .. }) => {
            Ok(Found::Checkpoint(found))
        }
        _ => Err(Error::rejected(format!("{}: no key {}: only PyTorch files have keys", shown_path(path), shown(key)))
            .hint("leave out :: and what follows")),
    }
}

/// A task of a pipeline is a pipeline, or one of its components.
fn in_pipeline(task: Checkpoint, base: &Checkpoint) -> Result<Checkpoint> {
    let (of_task, of_base) = (components(&task), components(base));
    match (of_task, of_base) {
        (None, Some(components)) => {
            let component = component_of(&task, base, components)?;
            task.as_component(component, base)
        }
        (Some(components), None) => {
            let called = components.iter().find(|component| base.path().ends_with(&component.name));
            let example = called.or(components.first()).map_or("unet", |component| component.name.as_str());
            Err(Error::rejected(format!(
                "{}: a pipeline, and the base {} is none",
                shown_path(task.path()),
                shown_path(base.path())
            ))
            .hint(format!("name the component that the base is, for example {}", task.path().join(example).display())))
        }
        _ => Ok(task),
    }
}

fn components(checkpoint: &Checkpoint) -> Option<&[Component]> {
    match checkpoint.layout() {
        Layout::Pipeline { components, .. } => Some(components),
        _ => None,
    }
}

/// The component that a task is, by its tensors; by its folder's name where several have tensors of these names and shapes.
fn component_of<'a>(task: &Checkpoint, base: &Checkpoint, components: &'a [Component]) -> Result<&'a Component> {
    let fits = |component: &&Component| {
        let prefix = component.prefix();
        let mut floats = task.tensors().iter().filter(|tensor| tensor.dtype.float().is_some()).peekable();
        let is_there = |tensor: &crate::checkpoint::Tensor| {
            base.get(&format!("{prefix}{}", tensor.name)).is_some_and(|found| found.shape == tensor.shape)
        };
        floats.peek().is_some() && floats.all(is_there)
    };
    // The folder, or that of the file.
    let is_called = |component: &&Component| {
        task.path().ancestors().take(2).any(|path| path.file_name().is_some_and(|name| name == component.name.as_str()))
    };
    let fitting: Vec<&Component> = components.iter().filter(fits).collect();
    let called = || components.iter().find(is_called);
    match fitting[..] {
        [only] => Some(only),
        // What does not fit is listed when its tensors are matched.
        [] => called(),
        _ => fitting.iter().copied().find(is_called),
    }
    .ok_or_else(|| {
        let names: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
        let n_fitting = if fitting.is_empty() { "none" } else { "several" };
        Error::rejected(format!(
            "{}: a component of the pipeline {} expected, the tensors are those of {n_fitting}",
            shown_path(task.path()),
            shown_path(base.path())
        ))
        .hint(format!("its components are {}; the task's folder may be called like one", names.join(", ")))
    })
}
