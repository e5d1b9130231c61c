//! A task's own head: tensors that an edited output takes from a task as they are, whatever the base has under their names.

use crate::checkpoint::{Checkpoint, Dtype, Inputs, TensorSpec};
use crate::columns::fit::Twin;
use crate::columns::matching::{UnderBaseNames, under_base_names};
use crate::columns::patterns::regex;
use crate::columns::plan::Task;
use crate::columns::tied::find_ties;
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use serde_json::Value;

/// Keys of `config.json` that are about a head.
const CONFIG_KEYS: [&str; 5] = ["architectures", "id2label", "label2id", "num_labels", "problem_type"];
/// Where a tensor replaces one of another shape.
const VOCABULARY_KEY: &str = "vocab_size";
/// Tensors that are named.
const TENSORS_TOLD: usize = 4;

/// Tensors of one task that go into an output as they are.
#[derive(Clone, Debug)]
pub struct OwnHead {
    task: String,
    /// Under the base's names.
    checkpoint: Checkpoint,
    names: Vec<String>,
    config: Vec<(&'static str, Option<Value>)>,
}

impl OwnHead {
    /// The tensors of `task` in whose names, as the base has them, `pattern` matches.
    ///
    /// # Errors
    /// Usage: not a regular expression. Rejected: names that match the base's in two ways, no tensor of such a name, one that an
    /// adapter only changes, or one of two that are tied. Failed: I/O.
    pub fn new(base: &Checkpoint, task: Task, pattern: &str) -> Result<OwnHead> {
        let pattern = regex(pattern)?;
        let name = task.name.clone();
        let UnderBaseNames { tasks, .. } = under_base_names(base, vec![task], &[])?;
        let ties = find_ties(base, tasks, &|_| true)?;
        let Some(task) = ties.tasks.into_iter().next() else { return Err(Error::usage("no task to take a head from")) };
        let found = task.checkpoint.in_key_order().filter(|tensor| pattern.is_match(&tensor.name));
        let found: Vec<_> = found.collect();
        let path = || shown_path(task.checkpoint.path());
        if let Some(tensor) = found.iter().find(|tensor| tensor.is_delta()) {
            return Err(Error::rejected(format!(
                "task {name}, tensor {}: a tensor of its own expected, an adapter's change of the base's found ({})",
                shown(&tensor.name),
                path()
            )));
        }
        if found.is_empty() {
            return Err(Error::rejected(format!(
                "task {name}: a tensor in whose name {:?} matches expected, none found ({})",
                pattern.as_str(),
                path()
            ))
            .hint("`tvb inspect` lists its tensors"));
        }
        let is_resized = found.iter().any(|tensor| base.get(&tensor.name).is_some_and(|own| own.shape != tensor.shape));
        let keys = CONFIG_KEYS.into_iter().chain(is_resized.then_some(VOCABULARY_KEY));
        let config = match task.checkpoint.config()? {
            Some(config) => keys.map(|key| (key, config.get(key).cloned())).collect(),
            None => Vec::new(),
        };
        let names = found.iter().map(|tensor| tensor.name.clone()).collect();
        let head = OwnHead { task: name, checkpoint: task.checkpoint, names, config };
        head.check(&ties.twins)?;
        Ok(head)
    }

    /// Names of the tensors, in the task's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The task's checkpoint under the base's names.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What the task's `config.json` says of its head; `None` where it says nothing of a key. Empty where it has none.
    pub fn config(&self) -> &[(&'static str, Option<Value>)] {
        &self.config
    }

    /// What an output must leave alone.
    pub fn inputs(&self) -> Inputs {
        self.checkpoint.inputs()
    }

    /// The specs of an output with these tensors in the place of those of the same name, new ones behind them.
    pub(super) fn over(&self, mut specs: Vec<TensorSpec>, stored: impl Fn(Dtype) -> Dtype) -> Vec<TensorSpec> {
        for tensor in self.names.iter().filter_map(|name| self.checkpoint.get(name)) {
            let own =
                TensorSpec { name: tensor.name.clone(), dtype: stored(tensor.dtype), shape: tensor.shape.clone() };
            match specs.iter_mut().find(|spec| spec.name == own.name) {
                Some(spec) => *spec = own,
                None => specs.push(own),
            }
        }
        specs
    }

    /// Whether no tied tensor is taken without its twin, which the edit would write.
    pub(super) fn check(&self, twins: &[Twin]) -> Result<()> {
        let has = |name: &String| self.names.contains(name);
        match twins.iter().find(|twin| has(&twin.name) != has(&twin.of)) {
            None => Ok(()),
            Some(twin) => Err(Error::rejected(format!(
                "task {}: tensors {} and {} are one in the base, and one of them is asked for",
                self.task,
                shown(&twin.name),
                shown(&twin.of)
            ))
            .hint("let the pattern match both, or neither")),
        }
    }

    /// `2 tensors are task cars' own: …`
    pub fn in_words(&self) -> String {
        let told: Vec<String> = self.names.iter().take(TENSORS_TOLD).map(|name| shown(name).to_string()).collect();
        let more = match self.names.len().saturating_sub(told.len()) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let n = self.names.len();
        let (tensors, are) = if n == 1 { ("tensor", "is") } else { ("tensors", "are") };
        format!("{n} {tensors} {are} task {}'s own: {}{more}", shown(&self.task), told.join(", "))
    }
}
