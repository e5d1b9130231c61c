//! An edited copy of a base, written by position from many threads: the base's layout, shards, tensor order, metadata,
//! configuration and tokenizer files, and a model card.

use super::names;
use super::parts::{create_parts, pipeline_parts};
use super::shown::shown;
use super::staged::{Inputs, OutputKind, StagedOutput};
use super::{
    Checkpoint, Dtype, Existing, Layout, Leftover, SHARD_BYTES, ShardPlan, ShardedWriter, TensorSpec, side_files,
};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Where a tensor is written: the writer, and the tensor's number there.
type Home = (usize, usize);

/// One edited checkpoint (or bare edit) on its way.
#[derive(Debug)]
pub struct CheckpointWriter {
    staged: StagedOutput,
    /// One, or one for each component of a pipeline.
    writers: Vec<ShardedWriter>,
    /// The writer of each tensor, and its number there.
    by_name: HashMap<String, Home>,
    specs: Vec<TensorSpec>,
    /// Tensors that are written with this one.
    tied: HashMap<Home, Vec<Home>>,
    /// Names of tensors of which nothing is written yet, whoever writes them.
    withheld: HashSet<String>,
    is_folder: bool,
}

impl CheckpointWriter {
    /// Prepares an output at `target`, made from `inputs`: one file where the name ends in `.safetensors`, a folder otherwise.
    /// Tensors stand in the order of `specs`; a folder keeps the shards of `like` where it holds the same tensors, and is a
    /// pipeline again where `like` is one.
    ///
    /// # Errors
    /// Rejected: the output exists and is not to be replaced, or is an input or holds one. Usage: a path this program does not
    /// write to, or a file for a pipeline. Failed: the disk has too little room, or the system refuses.
    pub fn create(
        target: &Path,
        existing: Existing,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
        like: Option<&Checkpoint>,
        inputs: &Inputs,
    ) -> Result<CheckpointWriter> {
        let kind = CheckpointWriter::kind(target)?;
        let in_one = || specs.iter().enumerate().map(|(number, spec)| (spec.name.clone(), (0, number))).collect();
        let is_pipeline = like.is_some_and(|like| matches!(like.layout(), Layout::Pipeline { .. }));
        let same = |like: &&Checkpoint| {
            like.tensors().len() == specs.len()
                && like.tensors().iter().zip(specs).all(|(tensor, spec)| like.own_name(&tensor.name) == spec.name)
        };
        let (staged, writers, by_name) = match kind {
            OutputKind::File if is_pipeline => {
                return Err(Error::usage(format!(
                    "{}: a folder expected, since the base is a pipeline",
                    target.display()
                ))
                .hint("name an output without an ending"));
            }
            OutputKind::File => {
                let staged = StagedOutput::file(target, existing, inputs)?;
                let writer = ShardedWriter::create_single(staged.path(), specs, metadata)?;
                (staged, vec![writer], in_one())
            }
            OutputKind::Folder => {
                let staged = StagedOutput::folder(target, existing, Leftover::Clear, inputs)?;
                match like.filter(same).and_then(|like| pipeline_parts(like, specs)) {
                    Some(parts) => {
                        let (writers, by_name) = create_parts(staged.path(), parts, metadata)?;
                        (staged, writers, by_name)
                    }
                    None => {
                        let plan = match like.filter(same).and_then(ShardPlan::like) {
                            Some(plan) => plan,
                            None => ShardPlan::greedy(specs, "model", SHARD_BYTES)?,
                        };
                        let writer = ShardedWriter::create(staged.path(), &plan, specs, metadata)?;
                        (staged, vec![writer], in_one())
                    }
                }
            }
        };
        let is_folder = kind == OutputKind::Folder;
        let (tied, withheld) = (HashMap::new(), HashSet::new());
        Ok(CheckpointWriter { staged, writers, by_name, specs: specs.to_vec(), tied, withheld, is_folder })
    }

    /// Makes it an output that nobody needs after a crash: it appears whole, and is not waited for until it is on the disk.
    pub fn scratch(&mut self) {
        self.staged.scratch();
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
        let home = |name: &str| self.by_name.get(name).copied();
        match (home(first), home(second)) {
            (Some(one), Some(other)) if one != other => {
                let spec = |name: &str| {
                    let found = self.specs.iter().find(|spec| spec.name == name);
                    found.map(|spec| (spec.dtype, spec.shape.as_slice()))
                };
                if spec(first) != spec(second) {
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

    /// From now on the tensor `own` of the output can be written as `name` too.
    pub fn call(&mut self, own: &str, name: &str) {
        if let Some(home) = self.by_name.get(own).copied() {
            self.by_name.entry(name.to_owned()).or_insert(home);
        }
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
        let home = self.by_name.get(name).and_then(|home| Some((self.writers.get(home.0)?, *home)));
        let (writer, home) = home.ok_or_else(|| {
            Error::failed(format!("{}: tensor {name} is not one of the output's", self.staged.target().display()))
        })?;
        if self.withheld.contains(name) {
            return Ok(());
        }
        for (writer, second) in self.tied.get(&home).into_iter().flatten() {
            if let Some(writer) = self.writers.get(*writer) {
                writer.write_at(*second, byte_offset, bytes)?;
            }
        }
        writer.write_at(home.1, byte_offset, bytes)
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
        match base.layout() {
            _ if !self.is_folder || base.is_in_memory() || !base.path().is_dir() => Ok(()),
            Layout::Pipeline { components, others } => {
                side_files::copy_pipeline(base.path(), self.staged.path(), components, others, dtype)
            }
            _ => side_files::copy(base.path(), self.staged.path(), dtype),
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

    /// Puts every byte on the disk, but of a scratch output, and closes the files; the output appears when the answer is committed.
    ///
    /// # Errors
    /// Failed: the system refuses.
    pub fn finish(self) -> Result<StagedOutput> {
        if !self.staged.is_scratch() {
            self.writers.into_iter().try_for_each(ShardedWriter::finish)?;
        }
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
