//! What a model's own `config.json` says, where it matters for reading its weights.

use super::budget::Charge;
use super::capped::read_capped_within;
use super::names::CONFIG;
use super::{Checkpoint, Component, json, side_files};
use crate::error::Result;
use serde_json::Value;
use std::path::Path;

/// A folder's `config.json`.
#[derive(Debug)]
pub struct Config {
    value: Value,
    /// What it takes of the budget.
    _charge: Charge,
}

impl Config {
    /// What stands under `key`; in a model of several parts that has none itself, under `key` of its text part.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).or_else(|| self.value.get("text_config")?.get(key))
    }

    /// Whether the output head is the embedding, where the configuration says so either way.
    pub fn ties_embeddings(&self) -> Option<bool> {
        self.get("tie_word_embeddings")?.as_bool()
    }

    /// The method by which the weights were quantized, where they were: `gptq`, `bitsandbytes`, `fp8`.
    pub fn quantization(&self) -> Option<&str> {
        let keys = ["quantization_config", "compression_config"];
        let found = keys.iter().find_map(|key| self.get(key).filter(|found| found.is_object()))?;
        // What bitsandbytes leaves in the configuration of a model that it was not used for.
        let is_off = |key: &str| found.get(key).is_some_and(|value| *value == Value::Bool(false));
        if is_off("load_in_8bit") && is_off("load_in_4bit") {
            return None;
        }
        Some(found.get("quant_method").and_then(Value::as_str).unwrap_or("an unnamed method"))
    }
}

impl Checkpoint {
    /// The `config.json` beside the weights; `None` where there is none, what is there is no JSON object, or the weights are in memory.
    ///
    /// # Errors
    /// Rejected: no regular file, a larger one than any configuration, or too little memory. Failed: the system cannot read.
    pub fn config(&self) -> Result<Option<Config>> {
        if self.is_in_memory() {
            return Ok(None);
        }
        let folder = if self.path().is_dir() { Some(self.path()) } else { self.path().parent() };
        folder.map_or(Ok(None), |folder| read(folder, self))
    }

    /// The `config.json` of a component of this pipeline.
    ///
    /// # Errors
    /// As [`config`](Checkpoint::config).
    pub fn config_of(&self, component: &Component) -> Result<Option<Config>> {
        read(&self.path().join(&component.name), self)
    }
}

/// A link is followed wherever it leads: nothing of the file is copied or shown but a word of it, and tunes often share the
/// configuration of their base.
fn read(folder: &Path, of: &Checkpoint) -> Result<Option<Config>> {
    let path = folder.join(CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    let (text, mut charge) = read_capped_within(&path, "a configuration", side_files::CONFIG_BYTES_MAX, of.budget())?;
    charge.take(json::cost(&text))?;
    let value = serde_json::from_slice(&text).ok().filter(Value::is_object);
    Ok(value.map(|value| Config { value, _charge: charge.settled() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};

    #[test]
    fn a_configuration_is_read_beside_the_weights() {
        let top = tempfile::tempdir().unwrap();
        let specs = [TensorSpec { name: "w".into(), dtype: Dtype::F32, shape: vec![1] }];
        let layout = SafetensorsLayout::new(&specs, &Default::default()).unwrap();
        let file = top.path().join("model.safetensors");
        SafetensorsWriter::create(&file, layout).unwrap().finish().unwrap();
        let cases: [(&str, Option<(Option<bool>, Option<&str>)>); 8] = [
            (r#"{"quantization_config": {"load_in_8bit": false, "load_in_4bit": false}}"#, Some((None, None))),
            ("[1]", None),
            ("no json", None),
            ("{}", Some((None, None))),
            (r#"{"tie_word_embeddings": false, "quantization_config": null}"#, Some((Some(false), None))),
            (r#"{"text_config": {"tie_word_embeddings": true}}"#, Some((Some(true), None))),
            (r#"{"quantization_config": {"quant_method": "gptq"}}"#, Some((None, Some("gptq")))),
            (r#"{"tie_word_embeddings": "yes", "quantization_config": {}}"#, Some((None, Some("an unnamed method")))),
        ];
        for path in [top.path(), &file] {
            assert!(Checkpoint::open(path).unwrap().config().unwrap().is_none());
        }
        for (text, expected) in cases {
            std::fs::write(top.path().join(CONFIG), text).unwrap();
            for path in [top.path(), &file] {
                let config = Checkpoint::open(path).unwrap().config().unwrap();
                let found = config.as_ref().map(|config| (config.ties_embeddings(), config.quantization()));
                assert_eq!(found, expected, "{text}");
            }
        }
        std::fs::remove_file(top.path().join(CONFIG)).unwrap();
        std::fs::create_dir(top.path().join(CONFIG)).unwrap();
        assert!(Checkpoint::open(&file).unwrap().config().is_err());
    }
}
