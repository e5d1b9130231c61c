//! `adapter_config.json`: how PEFT scales the factors of each module, and what of it is refused.

use crate::checkpoint::{Budget, EntryValue, for_each_entry, json_cost, read_capped_within, shown};
use crate::error::{Error, Result};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A longer configuration is something else.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// More patterns than modules that any model has.
const N_PATTERNS_MAX: usize = 1 << 16;
/// Most patterns are plain paths; of the others, which take memory, no more than this.
const N_REGEXES_MAX: usize = 64;
/// A parsed pattern may take so much.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Scales of an adapter's modules.
#[derive(Debug)]
pub(super) struct Config {
    rank: Option<f64>,
    alpha: f64,
    rank_pattern: Vec<(Pattern, f64)>,
    alpha_pattern: Vec<(Pattern, f64)>,
    use_rslora: bool,
    /// What PEFT says of all modules, although it may hold for some.
    pub(super) fan_in_fan_out: bool,
    pub(super) use_dora: bool,
    /// The model that was trained on: a name on the hub or a path.
    pub(super) base_model: Option<String>,
}

/// The end of a module's path, from a dot on or all of it.
#[derive(Debug)]
enum Pattern {
    /// Letters, digits and underscores, and dots that stand for any one character.
    Plain(Vec<char>),
    Regex(Regex),
}

impl Pattern {
    fn is_match(&self, path: &str) -> bool {
        let plain = match self {
            Pattern::Regex(regex) => return regex.is_match(path),
            Pattern::Plain(plain) => plain,
        };
        let mut rest = path.chars().rev();
        let is_end = plain.iter().rev().all(|c| rest.next().is_some_and(|found| *c == '.' || *c == found));
        is_end && rest.next().is_none_or(|before| before == '.')
    }
}

/// A JSON value under a key that stands once.
struct Any(Value);

impl EntryValue for Any {
    fn read<'de, D: Deserializer<'de>>(_key: &str, deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Any)
    }
}

type Entries = BTreeMap<String, Value>;

impl Config {
    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// Rejected: not such a file, or of an adapter that is not one of LoRA.
    pub(super) fn read(path: &Path, budget: &Budget) -> Result<Config> {
        let (json, mut charge) = read_capped_within(path, "an adapter's configuration", CONFIG_BYTES_MAX, budget)?;
        charge.take(json_cost(&json))?;
        let entries = entries(&json).and_then(|entries| match entries.get("peft_type").and_then(Value::as_str) {
            Some(kind) if kind.eq_ignore_ascii_case("LORA") => Ok(entries),
            Some(kind) => Err(not_lora(kind)),
            None => Err(Error::rejected("expected `peft_type`, found none")),
        });
        entries.and_then(|entries| Config::of(&entries)).map_err(|error| error.context(path.display()))
    }

    /// Those of each part of a pipeline, as diffusers keeps them in a file's metadata: `{"unet.r": 4, …}`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(super) fn of_parts(json: &str) -> Result<BTreeMap<String, Config>> {
        let mut parts: BTreeMap<String, Entries> = BTreeMap::new();
        for (key, value) in entries(json.as_bytes())? {
            if let Some((part, key)) = key.split_once('.') {
                parts.entry(part.to_owned()).or_default().insert(key.to_owned(), value);
            }
        }
        parts.into_iter().map(|(part, entries)| Ok((part, Config::of(&entries)?))).collect()
    }

    fn of(entries: &Entries) -> Result<Config> {
        refuse_variants(entries)?;
        let number = |key: &str| match entries.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|value| value.is_finite()) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::rejected(format!("`{key}`: a number expected"))),
            },
        };
        let flag = |key: &str| entries.get(key).and_then(Value::as_bool).unwrap_or(false);
        let alpha = number("lora_alpha")?
            .ok_or_else(|| Error::rejected("expected `lora_alpha`, found none: the factors' scale is unknown"))?;
        Ok(Config {
            rank: number("r")?,
            alpha,
            rank_pattern: patterns(entries, "rank_pattern")?,
            alpha_pattern: patterns(entries, "alpha_pattern")?,
            use_rslora: flag("use_rslora"),
            fan_in_fan_out: flag("fan_in_fan_out"),
            use_dora: flag("use_dora"),
            base_model: entries.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// The scale of the module at `path`, whose factors are of rank `rank`.
    ///
    /// # Errors
    /// Rejected: the configuration has another rank for it.
    pub(super) fn scale(&self, path: &str, rank: usize) -> Result<f64> {
        if let Some(expected) = of(&self.rank_pattern, path).or(self.rank).filter(|expected| *expected != rank as f64) {
            return Err(Error::rejected(format!(
                "module {}: rank {expected} expected by its configuration, {rank} found",
                shown(path)
            )));
        }
        let alpha = of(&self.alpha_pattern, path).unwrap_or(self.alpha);
        Ok(if self.use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 })
    }
}

/// The first pattern that the path ends with, as PEFT looks for it.
fn of(patterns: &[(Pattern, f64)], path: &str) -> Option<f64> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, value)| *value)
}

fn patterns(entries: &Entries, key: &str) -> Result<Vec<(Pattern, f64)>> {
    let Some(value) = entries.get(key).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let map = value.as_object().filter(|map| map.len() <= N_PATTERNS_MAX);
    let map = map.ok_or_else(|| Error::rejected(format!("`{key}`: an object expected")))?;
    let mut n_regexes = 0;
    let read = |(pattern, value): (&String, &Value)| {
        let bad = |why: &str| Error::rejected(format!("`{key}`: {}: {why}", shown(pattern)));
        let value = value.as_f64().filter(|value| value.is_finite()).ok_or_else(|| bad("a number expected"))?;
        if pattern.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.')) {
            return Ok((Pattern::Plain(pattern.chars().collect()), value));
        }
        n_regexes += 1;
        if n_regexes > N_REGEXES_MAX {
            return Err(bad("too many patterns that are no plain paths"));
        }
        let regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).size_limit(REGEX_BYTES_MAX).build();
        Ok((Pattern::Regex(regex.map_err(|_| bad("not a pattern that can be read"))?), value))
    };
    map.iter().map(read).collect()
}

fn entries(json: &[u8]) -> Result<Entries> {
    let text = std::str::from_utf8(json)
        .map_err(|error| Error::rejected(format!("not UTF-8 at its byte {}", error.valid_up_to())))?;
    let mut entries = Entries::new();
    for_each_entry(text, |key, Any(value)| {
        entries.insert(key, value);
        Ok(())
    })
    .map_err(Error::rejected)?;
    Ok(entries)
}

fn not_lora(kind: &str) -> Error {
    Error::rejected(format!("an adapter of LoRA expected, one of {} found", shown(kind)))
        .hint("merge it with PEFT's `merge_and_unload()` and name the merged model")
}

/// What changes the meaning of the factors, or the base below them.
fn refuse_variants(entries: &Entries) -> Result<()> {
    const MERGE: &str = "merge it with PEFT's `merge_and_unload()` and name the merged model";
    const HARMLESS: [&str; 7] =
        ["use_rslora", "use_dora", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config"];
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for key in entries.iter().filter(|(_, value)| is_set(value)).map(|(key, _)| key) {
        let is_other = matches!(
            key.as_str(),
            "alora_invocation_tokens" | "layer_replication" | "target_parameters" | "trainable_token_indices"
        );
        // A variant of tomorrow is likely to be called so as well. VeLoRA only saves memory in training.
        let is_variant = key.starts_with("use_") || key.ends_with("_config");
        if is_other || (is_variant && !HARMLESS.contains(&key.as_str()) && key != "velora_config") {
            return Err(Error::rejected(format!("`{}` is set, which is not plain LoRA", shown(key))).hint(MERGE));
        }
    }
    let initial = entries.get("init_lora_weights").and_then(Value::as_str).unwrap_or("").to_lowercase();
    let moves_base = ["pissa", "olora", "corda", "lora_ga", "loftq", "kasa"].into_iter();
    if let Some(kind) = moves_base.into_iter().find(|kind| initial.starts_with(kind)) {
        return Err(Error::rejected(format!(
            "`init_lora_weights` is {kind}, which changed the base below the adapter: it is a difference from another model"
        ))
        .hint(
            "save it with `path_initial_model_for_weight_conversion`, which makes plain LoRA of it, or merge it with \
             `merge_and_unload()`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Result<Config> {
        let json = format!(r#"{{"r": 8, "lora_alpha": 16{more}}}"#);
        entries(json.as_bytes()).and_then(|entries| Config::of(&entries))
    }

    #[test]
    fn scales_follow_patterns_as_in_peft() {
        let patterns =
            r#", "rank_pattern": {"v_proj": 2, "layers\\.1\\.q": 4}, "alpha_pattern": {"q": 32, "a.v_proj": 1}"#;
        let plain = config(patterns).unwrap();
        for (path, rank, scale) in
            [("k", 8, 2.0), ("a.v_proj", 2, 0.5), ("b.v_proj", 2, 8.0), ("layers.1.q", 4, 8.0), ("xq", 8, 2.0)]
        {
            assert_eq!(plain.scale(path, rank).unwrap(), scale, "{path}");
        }
        assert!(plain.scale("k", 4).unwrap_err().message().contains("rank 8 expected"));
        let stable = config(r#", "use_rslora": true"#).unwrap();
        assert_eq!(stable.scale("k", 8).unwrap(), 16.0 / 8f64.sqrt());
    }

    #[test]
    fn variants_are_refused_by_name() {
        for (more, word) in [
            (r#", "init_lora_weights": "pissa_niter_4""#, "pissa"),
            (r#", "alora_invocation_tokens": [1]"#, "alora_invocation_tokens"),
            (r#", "layer_replication": [[0, 1]]"#, "layer_replication"),
            (r#", "target_parameters": ["experts.w"]"#, "target_parameters"),
            (r#", "use_qalora": true"#, "use_qalora"),
            (r#", "kasa_config": {"beta": 1}"#, "kasa_config"),
            (r#", "rank_pattern": {"(?<=a)": 1}"#, "pattern"),
            (r#", "r": 1"#, "stands twice"),
        ] {
            assert!(config(more).unwrap_err().message().contains(word), "{more}");
        }
        assert!(config(r#", "init_lora_weights": true, "loftq_config": {}, "use_qalora": false"#).is_ok());
        assert!(not_lora("IA3").message().contains("IA3"));
    }
}
