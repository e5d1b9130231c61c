//! Edits that are to be formed: from which columns, with which weights, of which tensors.

use super::decode::{CodedAtoms, CodesRead};
use super::generated::RawColumns;
use super::range::Clipped;
use crate::checkpoint::{Checkpoint, shown};
use crate::columns::fit::Fit;
use crate::columns::plan::{Plan, Task};
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};

/// What edits are formed from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Original fine-tunes, each differenced against `origin` on the way, even where the output is the bare edit.
    Checkpoints {
        /// What the fine-tunes started from.
        origin: Checkpoint,
        /// The fine-tunes.
        tasks: Vec<Task>,
    },
    /// Deltas as they are: atoms, or an edit that was written before.
    Deltas(Vec<Task>),
    /// Columns that are made on the way from a seed.
    Generated(RawColumns),
    /// Coded atoms: weights are over their own columns and the shared ones.
    Coded(CodedAtoms),
}

/// Edits to be formed in one pass, and what they are formed from.
#[derive(Clone, Debug)]
pub struct Edits {
    /// The columns beside the base.
    pub source: Source,
    /// \[n_outputs\]\[n_columns\]: output k is [base +] Σ_c weights\[k\]\[c\]·column_c.
    pub weights: Vec<Vec<f64>>,
    /// Names of the tensors that the columns edit.
    pub tensors: Vec<String>,
    /// How they fit the base.
    pub fit: Fit,
    /// Tensors that have weights of their own in place of `weights`; no tensor is in two of them.
    pub blocks: Vec<EditBlock>,
}

/// Tensors that are edited with weights of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct EditBlock {
    /// Their names.
    pub tensors: Vec<String>,
    /// \[n_outputs\]\[n_columns\], as those of [`Edits`].
    pub weights: Vec<Vec<f64>>,
}

impl Edits {
    /// Edits Σ_t alpha\[t\]·τt from the originals of a plan, one for each of `alphas` (each of length T).
    pub fn from_checkpoints(plan: &Plan, alphas: &[Vec<f64>]) -> Edits {
        Edits {
            source: Source::Checkpoints { origin: plan.column_checkpoint(0).clone(), tasks: plan.tasks.clone() },
            weights: alphas.to_vec(),
            tensors: plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            fit: plan.fit.clone(),
            blocks: Vec::new(),
        }
    }

    /// λ times a bare edit that was written before.
    pub fn from_delta(delta: Checkpoint, scale: f64, fit: Fit) -> Edits {
        Edits {
            tensors: delta.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            source: Source::Deltas(vec![Task { name: "edit".into(), checkpoint: delta }]),
            weights: vec![vec![scale]],
            fit,
            blocks: Vec::new(),
        }
    }
}

impl Edits {
    /// The same edits of some of the tensors: those that `keep` answers true for.
    #[must_use]
    pub fn only(&self, keep: &dyn Fn(&str) -> bool) -> Edits {
        let source = match &self.source {
            Source::Generated(raw) => Source::Generated(raw.only(keep)),
            Source::Coded(atoms) => Source::Coded(atoms.only(keep)),
            Source::Checkpoints { .. } | Source::Deltas(_) => self.source.clone(),
        };
        let kept = |names: &[String]| names.iter().filter(|name| keep(name)).cloned().collect();
        let block = |block: &EditBlock| EditBlock { tensors: kept(&block.tensors), weights: block.weights.clone() };
        let blocks = self.blocks.iter().map(block).filter(|block| !block.tensors.is_empty()).collect();
        let (weights, fit) = (self.weights.clone(), self.fit.clone());
        Edits { source, tensors: kept(&self.tensors), weights, fit, blocks }
    }

    /// One edit of several: block k of the tensors is edited as output k is. Tensors in no block are edited as the first output.
    ///
    /// # Errors
    /// Usage: other than one block for each output, or a tensor in two of them.
    pub fn in_blocks(self, blocks: Vec<Vec<String>>) -> Result<Edits> {
        if blocks.len() != self.weights.len() || blocks.is_empty() {
            let (expected, found) = (self.weights.len(), blocks.len());
            return Err(Error::usage(format!("{expected} blocks of tensors expected, {found} found")));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = blocks.iter().flatten().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::usage(format!("tensor {}: one block expected, two found", shown(twice))));
        }
        let first = self.weights.first().cloned().unwrap_or_default();
        let block =
            |(tensors, weights): (Vec<String>, &Vec<f64>)| EditBlock { tensors, weights: vec![weights.clone()] };
        let blocks = blocks.into_iter().zip(&self.weights).map(block).collect();
        Ok(Edits { weights: vec![first], blocks, ..self })
    }

    /// Edits of the same weights everywhere that are this one together: one for each block, and one of all other tensors.
    pub fn uniform(&self) -> Vec<Edits> {
        if self.blocks.is_empty() {
            return vec![self.clone()];
        }
        let whole = Edits { blocks: Vec::new(), ..self.clone() };
        let of_block = |block: &EditBlock| {
            let names: HashSet<&str> = block.tensors.iter().map(String::as_str).collect();
            Edits { weights: block.weights.clone(), ..whole.only(&|name| names.contains(name)) }
        };
        let in_block: HashSet<&str> = self.blocks.iter().flat_map(|block| &block.tensors).map(String::as_str).collect();
        let others = whole.only(&|name| !in_block.contains(name));
        let parts = self.blocks.iter().map(of_block).chain([others]);
        parts.filter(|part| !part.tensors.is_empty()).collect()
    }

    /// The tensors that are edited and their shapes, in order; without those that the first column lacks.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let in_checkpoint = |like: Option<&Checkpoint>| {
            let shape = |name: &String| Some((name.clone(), like?.get(name)?.shape.clone()));
            self.tensors.iter().filter_map(shape).collect()
        };
        match &self.source {
            Source::Generated(raw) => raw.tensors.clone(),
            Source::Coded(atoms) => {
                atoms.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
            }
            Source::Checkpoints { origin, .. } => in_checkpoint(Some(origin)),
            Source::Deltas(columns) => in_checkpoint(columns.first().map(|column| &column.checkpoint)),
        }
    }
}

/// Digests of what was read while edits were formed, to be checked before they are kept.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Of every tensor of the base that was read, by name.
    pub base: HashMap<String, Digest>,
    /// For each column that was read, of its tensors in its own file order; `None` for one that was not read.
    pub columns: Vec<(Task, Vec<Option<Digest>>)>,
    /// Of the codes that were read.
    pub codes: Vec<CodesRead>,
    /// What was written as the largest finite value of its type.
    pub clipped: Clipped,
}

impl Read {
    /// Adds what was read of other tensors of the same columns.
    pub fn add(&mut self, other: Read) {
        self.base.extend(other.base);
        for (task, digests) in other.columns {
            match self.columns.iter_mut().find(|(known, _)| known.name == task.name) {
                Some((_, known)) => known.iter_mut().zip(digests).for_each(|(known, digest)| *known = known.or(digest)),
                None => self.columns.push((task, digests)),
            }
        }
        for codes in other.codes {
            match self.codes.iter_mut().find(|known| known.column == codes.column) {
                Some(known) => known.digests.extend(codes.digests),
                None => self.codes.push(codes),
            }
        }
        self.clipped = self.clipped.and(other.clipped);
    }
}
