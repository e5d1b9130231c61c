//! An edited copy of a base, written by position from many threads: the base's layout, shards, tensor order, metadata,
//! configuration and tokenizer files, and a model card.

use super::names;
use super::shown::shown;
use super::staged::{Inputs, OutputKind, StagedOutput};
use super::{Checkpoint, Dtype, Existing, Leftover, SHARD_BYTES, ShardPlan, ShardedWriter, TensorSpec, side_files};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// One edited checkpoint (or bare edit) on its way.
#[derive(Debug)]
pub struct CheckpointWriter {
    staged: StagedOutput,
    writer: ShardedWriter,
    by_name: HashMap<String, usize>,
    specs: Vec<TensorSpec>,
    /// Numbers of the tensors that are written with the one of this number.
    tied: HashMap<usize, Vec<usize>>,
    /// Names of tensors of which nothing is written yet, whoever writes them.
    withheld: HashSet<String>,
    is_folder: bool,
}

impl CheckpointWriter {
    /// Prepares an output at `target`, made from `inputs`: one file where the name ends in `.safetensors`, a folder otherwise.
    /// Tensors stand in the order of `specs`; a folder keeps the shards of `like` where it holds the same tensors.
    ///
    /// # Errors
    /// Rejected: the output exists and is not to be replaced, or is an input or holds one. Usage: a path this program does not
    /// write to. Failed: the disk has too little room, or the system refuses.
    pub fn create(
        target: &Path,
        existing: Existing,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
        like: Option<&Checkpoint>,
        inputs: &Inputs,
    ) -> Result<CheckpointWriter> {
        let kind = CheckpointWriter::kind(target)?;
        let (staged, writer) = match kind {
            OutputKind::Folder => {
                let staged = StagedOutput::folder(target, existing, Leftover::Clear, inputs)?;
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
            }
            OutputKind::File => {
                let staged = StagedOutput::file(target, existing, inputs)?;
                let writer = ShardedWriter::create_single(staged.path(), specs, metadata)?;
                (staged, writer)
            }
        };
        let by_name = specs.iter().enumerate().map(|(number, spec)| (spec.name.clone(), number)).collect();
        let (specs, is_folder) = (specs.to_vec(), kind == OutputKind::Folder);
        let (tied, withheld) = (HashMap::new(), HashSet::new());
        Ok(CheckpointWriter { staged, writer, by_name, specs, tied, withheld, is_folder })
    }

    /// From now on, until [`release`](Self::release), what is written of these tensors is dropped: they come from elsewhere.
    pub fn withhold(&mut self, names: &[String]) {
        self.withheld.extend(names.iter().cloned());
    }

    /// From now on every tensor is written again.
    pub fn release(&mut self) {
        self.withheld.clear();
    }

    /// Sets keys of the output's `config.json`, or takes them out where they have no value. Does nothing where it has none.
    ///
    /// # Errors
    /// Failed: the system cannot read or write.
    pub fn set_config(&self, keys: &[(&str, Option<serde_json::Value>)]) -> Result<()> {
        if !self.is_folder || keys.is_empty() {
            return Ok(());
        }
        side_files::set_config(self.staged.path(), keys)
    }

    /// From now on what is written of the tensor `first` is written of `second` too. Where the output has one of them alone, that
    /// one goes by both names.
    ///
    /// # Errors
    /// Rejected: tensors of different types or shapes.
    pub fn tie(&mut self, first: &str, second: &str) -> Result<()> {
        let number = |name: &str| self.by_name.get(name).copied();
        match (number(first), number(second)) {
            (Some(one), Some(other)) if one != other => {
                let spec = |number: usize| self.specs.get(number).map(|spec| (spec.dtype, spec.shape.as_slice()));
                if spec(one) != spec(other) {
                    return Err(Error::rejected(format!(
                        "{}: tensors {} and {} of one type and shape expected, since they are one, others found",
                        self.staged.target().display(),
                        shown(first),
                        shown(second)
                    )));
                }
                self.tied.entry(one).or_default().push(other);
            }
            (None, Some(other)) => drop(self.by_name.insert(first.to_owned(), other)),
            _ => {}
        }
        Ok(())
    }

    /// Whether an output at `target` is one file or a folder, by its name.
    ///
    /// # Errors
    /// Usage: the name of a file that this program does not write.
    pub fn kind(target: &Path) -> Result<OutputKind> {
        let extension = target.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "pt" | "pth" | "bin" => Err(Error::usage(format!(
                "{}: an output ending in .safetensors, or a folder, expected",
                target.display()
            ))
            .hint("`tvb export --format pt` makes a PyTorch file of it")),
            "safetensors" => Ok(OutputKind::File),
            _ => Ok(OutputKind::Folder),
        }
    }

    /// Writes a part of the tensor called `name`; several threads at once.
    ///
    /// # Errors
    /// Failed: no such tensor, or the system cannot write.
    pub fn write(&self, name: &str, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let tensor = self.by_name.get(name).ok_or_else(|| {
            Error::failed(format!("{}: tensor {name} is not one of the output's", self.staged.target().display()))
        })?;
        if self.withheld.contains(name) {
            return Ok(());
        }
        for second in self.tied.get(tensor).into_iter().flatten() {
            self.writer.write_at(*second, byte_offset, bytes)?;
        }
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
    /// `dtype`. Does nothing where the output is one file.
    ///
    /// # Errors
    /// Rejected: a file that is none or too large, or a link that leads out of the folder. Failed: the system cannot read or
    /// write.
    pub fn copy_side_files(&self, base: &Checkpoint, dtype: Option<Dtype>) -> Result<()> {
        match self.is_folder && base.path().is_dir() {
            true => side_files::copy(base.path(), self.staged.path(), dtype),
            false => Ok(()),
        }
    }

    /// Writes the model card. Does nothing where the output is one file.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub fn add_card(&self, card: &str) -> Result<()> {
        if !self.is_folder {
            return Ok(());
        }
        let path = self.staged.path().join(names::CARD);
        std::fs::write(&path, card).map_err(|error| Error::io("writing", &path, &error))
    }

    /// Puts every byte on the disk and closes the files; the output appears when the answer is committed.
    ///
    /// # Errors
    /// Failed: the system refuses.
    pub fn finish(self) -> Result<StagedOutput> {
        self.writer.finish()?;
        Ok(self.staged)
    }

    /// Lets the output appear.
    ///
    /// # Errors
    /// Failed: the system refuses; nothing has changed then.
    pub fn commit(self) -> Result<()> {
        self.finish()?.commit()
    }
}
