//! An edited copy of a base, written by position from many threads: the base's layout, shards, tensor order, metadata,
//! configuration and tokenizer files, and a model card.

use super::capped::read_capped;
use super::{Checkpoint, Dtype, Existing, Leftover, SHARD_BYTES, ShardPlan, ShardedWriter, StagedOutput, TensorSpec};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Files beside the weights that an edited copy of a folder needs as they are.
const COPIED_FILES: [&str; 14] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
];
/// A side file larger than this is not copied.
const SIDE_FILE_BYTES_MAX: u64 = 1 << 30;

/// One edited checkpoint (or bare edit) on its way.
#[derive(Debug)]
pub struct CheckpointWriter {
    staged: StagedOutput,
    writer: ShardedWriter,
    by_name: HashMap<String, usize>,
    is_folder: bool,
}

impl CheckpointWriter {
    /// Prepares an output at `target`: one file where the name ends in `.safetensors`, a folder otherwise. Tensors stand
    /// in the order of `specs`; a folder keeps the shards of `like` where it holds the same tensors.
    ///
    /// # Errors
    /// Rejected: the output exists and is not to be replaced. Usage: a file name this program does not write. Failed:
    /// the disk has too little room, or the system refuses.
    pub fn create(
        target: &Path,
        existing: Existing,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
        like: Option<&Checkpoint>,
    ) -> Result<CheckpointWriter> {
        let extension = target.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        if matches!(extension, "pt" | "pth" | "bin") {
            return Err(Error::usage(format!(
                "{}: an output ending in .safetensors, or a folder, expected",
                target.display()
            ))
            .hint("`tvb export --format pt` makes a PyTorch file of it"));
        }
        let is_folder = extension != "safetensors";
        let (staged, writer) = if is_folder {
            let staged = StagedOutput::folder(target, existing, Leftover::Clear)?;
            let same = |like: &&Checkpoint| {
                like.tensors().len() == specs.len()
                    && like.tensors().iter().zip(specs).all(|(tensor, spec)| tensor.name == spec.name)
            };
            let plan = match like.filter(same).and_then(ShardPlan::like) {
                Some(plan) => plan,
                None => ShardPlan::greedy(specs, "model", SHARD_BYTES)?,
            };
            let writer = ShardedWriter::create(staged.path(), &plan, specs, metadata)?;
            (staged, writer)
        } else {
            let staged = StagedOutput::file(target, existing)?;
            let writer = ShardedWriter::create_single(staged.path(), specs, metadata)?;
            (staged, writer)
        };
        let by_name = specs.iter().enumerate().map(|(number, spec)| (spec.name.clone(), number)).collect();
        Ok(CheckpointWriter { staged, writer, by_name, is_folder })
    }

    /// Writes a part of the tensor called `name`; several threads at once.
    ///
    /// # Errors
    /// Failed: no such tensor, or the system cannot write.
    pub fn write(&self, name: &str, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let tensor = self.by_name.get(name).ok_or_else(|| {
            Error::failed(format!("{}: tensor {name} is not one of the output's", self.staged.target().display()))
        })?;
        self.writer.write_at(*tensor, byte_offset, bytes)
    }

    /// Whether the output is a folder, with room for side files.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Where the output will appear.
    pub fn target(&self) -> &Path {
        self.staged.target()
    }

    /// Copies configuration and tokenizer files of the folder `base` lies in, `config.json` with its type brought up to
    /// `dtype`, and writes the model card. Does nothing where the output is one file.
    ///
    /// # Errors
    /// Failed: the system cannot read or write.
    pub fn add_side_files(&self, base: &Checkpoint, dtype: Option<Dtype>, card: &str) -> Result<()> {
        if !self.is_folder {
            return Ok(());
        }
        let to = self.staged.path();
        write_file(&to.join("README.md"), card.as_bytes())?;
        let from = if base.path().is_dir() { base.path() } else { return Ok(()) };
        for name in COPIED_FILES {
            let source = from.join(name);
            let is_small =
                std::fs::metadata(&source).is_ok_and(|found| found.is_file() && found.len() <= SIDE_FILE_BYTES_MAX);
            if is_small {
                std::fs::copy(&source, to.join(name)).map_err(|error| Error::io("copying", &source, &error))?;
            }
        }
        let config = from.join("config.json");
        if config.is_file() {
            let text = read_capped(&config, "a configuration", SIDE_FILE_BYTES_MAX)?;
            write_file(&to.join("config.json"), &with_dtype(&text, dtype))?;
        }
        Ok(())
    }

    /// Lets the output appear.
    ///
    /// # Errors
    /// Failed: the system refuses; nothing has changed then.
    pub fn commit(self) -> Result<()> {
        self.writer.finish()?;
        self.staged.commit()
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|error| Error::io("writing", path, &error))
}

/// `config.json` with its `dtype` or `torch_dtype` changed; as it is where it names none or cannot be read.
fn with_dtype(text: &[u8], dtype: Option<Dtype>) -> Vec<u8> {
    let name = match dtype {
        Some(Dtype::F64) => "float64",
        Some(Dtype::F32) => "float32",
        Some(Dtype::F16) => "float16",
        Some(Dtype::Bf16) => "bfloat16",
        _ => return text.to_vec(),
    };
    let Ok(serde_json::Value::Object(mut config)) = serde_json::from_slice(text) else { return text.to_vec() };
    let keys: Vec<&str> = ["dtype", "torch_dtype"].into_iter().filter(|key| config.contains_key(*key)).collect();
    for key in if keys.is_empty() { vec!["torch_dtype"] } else { keys } {
        config.insert(key.to_owned(), name.into());
    }
    let mut changed = serde_json::to_vec_pretty(&config).unwrap_or_else(|_| text.to_vec());
    changed.push(b'\n');
    changed
}
