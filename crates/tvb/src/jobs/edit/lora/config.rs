//! `adapter_config.json`: exactly the modules that an edit changes, each at its rank and at scale 1.

use crate::checkpoint::Budget;
use crate::checkpoint::names::ADAPTER_CONFIG;
use crate::columns::plan::Task;
use regex::escape;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};

/// What the configuration says.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// Module and rank, in the base's order.
    pub ranks: Vec<(String, usize)>,
    /// Every module of the base that is known, as PEFT calls it.
    pub all_modules: HashSet<String>,
    /// Whether a weight is kept transposed.
    pub fan_in_fan_out: bool,
    /// Modules that are saved whole.
    pub modules_to_save: Vec<String>,
    /// Whether biases are saved.
    pub has_biases: bool,
    /// What the adapters agree on.
    pub common: Common,
}

/// What the adapters of an edit say and agree on; `None` where they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    pub task_type: Option<String>,
    pub base_model: Option<String>,
    pub revision: Option<String>,
}

impl Config {
    /// The rank that most modules have; the larger of two.
    pub(super) fn rank(&self) -> usize {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, rank) in &self.ranks {
            *counts.entry(*rank).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(rank, count)| (*count, *rank)).map_or(1, |(rank, _)| rank)
    }

    /// The file's text.
    pub(super) fn json(&self) -> Value {
        let rank = self.rank();
        let pattern = self.pattern(rank);
        json!({
            "alpha_pattern": pattern,
            "auto_mapping": null,
            "base_model_name_or_path": self.common.base_model,
            "bias": if self.has_biases { "all" } else { "none" },
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "modules_to_save": if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) },
            "peft_type": "LORA",
            "r": rank,
            "rank_pattern": pattern,
            "revision": self.common.revision,
            "target_modules": self.targets(),
            "task_type": self.common.task_type,
            "use_dora": false,
            "use_rslora": false,
        })
    }

    /// Module → rank where it is not `rank`. PEFT takes the first key that a module's name ends with, so longer names stand
    /// first, and one that would be taken for a shorter one is named although it has the usual rank.
    fn pattern(&self, rank: usize) -> Map<String, Value> {
        let others: HashSet<&str> =
            self.ranks.iter().filter(|(_, own)| *own != rank).map(|(name, _)| name.as_str()).collect();
        let mut named: Vec<&(String, usize)> = self
            .ranks
            .iter()
            .filter(|(name, own)| *own != rank || ends(name).any(|end| others.contains(end)))
            .collect();
        named.sort_by_key(|(name, _)| std::cmp::Reverse(name.matches('.').count()));
        named.into_iter().map(|(name, own)| (name.clone(), json!(own))).collect()
    }

    /// The list of modules; a pattern where another module's name ends with one of them, which PEFT would change as well.
    fn targets(&self) -> Value {
        let names: HashSet<&str> = self.ranks.iter().map(|(name, _)| name.as_str()).collect();
        let is_taken =
            |module: &String| !names.contains(module.as_str()) && ends(module).any(|end| names.contains(end));
        if self.all_modules.iter().any(is_taken) {
            let all: Vec<String> = self.ranks.iter().map(|(name, _)| escape(name)).collect();
            return json!(format!("({})", all.join("|")));
        }
        json!(self.ranks.iter().map(|(name, _)| name).collect::<Vec<_>>())
    }
}

/// What a name ends with, from its second word on.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..))
}

impl Common {
    /// What the configurations of the tasks' adapters say alike; adapters without one agree on nothing.
    pub(super) fn of(tasks: &[&Task], budget: &Budget) -> Common {
        let mut all = tasks.iter().map(|task| read(task, budget).unwrap_or_default());
        let Some(first) = all.next() else { return Common::default() };
        all.fold(first, |common, other| {
            let same = |own: Option<String>, other: Option<String>| own.filter(|own| Some(own) == other.as_ref());
            Common {
                task_type: same(common.task_type, other.task_type),
                base_model: same(common.base_model, other.base_model),
                revision: same(common.revision, other.revision),
            }
        })
    }
}

/// What one adapter's configuration says. It was read and checked when the adapter was opened, so what cannot be read now is
/// left out here.
fn read(task: &Task, budget: &Budget) -> Option<Common> {
    const CONFIG_BYTES_MAX: u64 = 16 << 20;
    let path = task.checkpoint.path();
    let folder = if path.is_dir() { path } else { path.parent()? };
    let path = crate::checkpoint::resolve_inside(folder, ADAPTER_CONFIG).ok()?;
    let read = crate::checkpoint::read_capped_within(&path, "an adapter's configuration", CONFIG_BYTES_MAX, budget);
    let (text, _charge) = read.ok()?;
    let parsed: Value = serde_json::from_slice(&text).ok()?;
    let text = |key: &str| parsed.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Common {
        task_type: text("task_type"),
        base_model: text("base_model_name_or_path"),
        revision: text("revision"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ranks: &[(&str, usize)], others: &[&str]) -> Value {
        let ranks: Vec<(String, usize)> = ranks.iter().map(|(name, rank)| ((*name).into(), *rank)).collect();
        let all_modules = ranks.iter().map(|(name, _)| name.clone()).chain(others.iter().map(|name| (*name).into()));
        Config { all_modules: all_modules.collect(), ranks, ..Config::default() }.json()
    }

    #[test]
    fn the_usual_rank_is_said_once() {
        let found = config(&[("h.0.q", 4), ("h.0.v", 8), ("h.1.q", 8)], &["h.0.k"]);
        assert_eq!((&found["r"], &found["lora_alpha"]), (&json!(8), &json!(8)));
        assert_eq!(found["rank_pattern"], json!({ "h.0.q": 4 }));
        assert_eq!(found["alpha_pattern"], found["rank_pattern"]);
        assert_eq!(found["target_modules"], json!(["h.0.q", "h.0.v", "h.1.q"]));
        assert_eq!(found["modules_to_save"], Value::Null);
    }

    #[test]
    fn names_that_end_alike_are_kept_apart() {
        let found = config(&[("layers.0.q", 4), ("decoder.layers.0.q", 8), ("layers.0.v", 8)], &[]);
        assert_eq!(found["rank_pattern"].to_string(), r#"{"decoder.layers.0.q":8,"layers.0.q":4}"#);
        let found = config(&[("layers.0.q", 4)], &["decoder.layers.0.q"]);
        assert_eq!(found["target_modules"], json!(r"(layers\.0\.q)"));
    }
}
