//! The base that an edit from a basis is written onto: the one that the basis was made from, whatever its names have before them.

use super::open::Basis;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::columns::matching::base_under_names;
use crate::columns::plan::{Plan, Task};
use crate::error::{Error, Result};
use std::collections::HashMap;

impl Basis {
    /// `base` under the names that this basis knows, where wrappers have put something before them or taken it off, and a line
    /// that says so. What is written like it keeps its own names.
    ///
    /// # Errors
    /// Rejected: names that match in two ways, too little memory.
    pub fn base(&self, base: Checkpoint) -> Result<(Checkpoint, Option<String>)> {
        let known: Vec<&str> = self.stored_tensors().iter().chain(&self.manifest.frozen).map(String::as_str).collect();
        match base_under_names(&base, &known).map_err(|error: Error| error.context("base"))? {
            Some((base, changes)) => Ok((base, Some(format!("base: {changes}, as the basis has them")))),
            None => Ok((base, None)),
        }
    }

    /// The base of a plan and its tasks, which go by the base's names, under those that this basis knows.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    pub fn columns(&self, plan: &Plan) -> Result<(Checkpoint, Vec<Task>, Option<String>)> {
        let (base, note) = self.base(plan.base.clone())?;
        if note.is_none() {
            return Ok((base, plan.tasks.clone(), None));
        }
        let names: HashMap<&str, &str> =
            base.tensors().iter().map(|tensor| (base.own_name(&tensor.name), tensor.name.as_str())).collect();
        let known_as = |task: &Task| {
            // A tensor that the base lacks may have a name that another one has now.
            let name = |tensor: &Tensor| match names.get(tensor.name.as_str()) {
                Some(name) => Some((*name).to_owned()),
                None => base.get(&tensor.name).is_none().then(|| tensor.name.clone()),
            };
            let given: Vec<Option<String>> = task.checkpoint.tensors().iter().map(name).collect();
            Ok(Task { checkpoint: task.checkpoint.under_names(&given)?, ..task.clone() })
        };
        let tasks = plan.tasks.iter().map(known_as).collect::<Result<_>>()?;
        Ok((base, tasks, note))
    }
}
