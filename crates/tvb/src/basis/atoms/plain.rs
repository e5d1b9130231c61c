//! Atoms on disk: plain safetensors state dicts of deltas, written by position from many threads, digested on the way.
//!
//! An atom's checksum is the digest over, file by file, of the header's digest and the tensors' digests (see
//! [`crate::digest`]): writers and readers take it from the blocks as they pass, in any chunking.

use crate::basis::manifest::AtomRecord;
use crate::checkpoint::{
    Checkpoint, Dtype, Place, SHARD_BYTES, SafetensorsLayout, ShardPlan, ShardedWriter, TensorSpec,
};
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::ops::project::AtomSink;
use crate::pass::Block;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every atom of a basis while it is written.
#[derive(Debug)]
pub struct AtomFiles {
    dtype: Dtype,
    atoms: Vec<(ShardPlan, ShardedWriter)>,
}

/// The stem of atom `index` of `n_atoms`: `atom-00`, with more digits where there are more than a hundred.
pub fn stem(index: usize, n_atoms: usize) -> String {
    let width = n_atoms.saturating_sub(1).to_string().len().max(2);
    format!("atom-{index:0width$}")
}

fn specs(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Vec<TensorSpec> {
    let spec = |(name, shape): &(String, Vec<usize>)| TensorSpec { name: name.clone(), dtype, shape: shape.clone() };
    tensors.iter().map(spec).collect()
}

impl AtomFiles {
    /// Creates the files of `n_atoms` atoms in `folder`, at their full size; an atom larger than 5 GB in shards.
    ///
    /// # Errors
    /// Failed: the disk has too little room, or the system refuses.
    pub fn create(folder: &Path, n_atoms: usize, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<AtomFiles> {
        let stems: Vec<String> = (0..n_atoms).map(|atom| stem(atom, n_atoms)).collect();
        AtomFiles::create_named(folder, &stems, tensors, dtype)
    }

    /// The same under other names, one for each atom.
    ///
    /// # Errors
    /// As [`create`](AtomFiles::create).
    pub fn create_named(
        folder: &Path,
        stems: &[String],
        tensors: &[(String, Vec<usize>)],
        dtype: Dtype,
    ) -> Result<AtomFiles> {
        let specs = specs(tensors, dtype);
        let atoms = stems.iter().map(|stem| {
            let plan = ShardPlan::greedy(&specs, stem, SHARD_BYTES)?;
            let writer = ShardedWriter::create(folder, &plan, &specs, &BTreeMap::new())?;
            Ok((plan, writer))
        });
        Ok(AtomFiles { dtype, atoms: atoms.collect::<Result<_>>()? })
    }

    /// Opens the files that an interrupted run left, to write on; `None` where they are not all there as
    /// [`create`](AtomFiles::create) made them.
    pub fn reopen(folder: &Path, n_atoms: usize, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Option<AtomFiles> {
        let specs = specs(tensors, dtype);
        let atoms = (0..n_atoms).map(|atom| {
            let plan = ShardPlan::greedy(&specs, &stem(atom, n_atoms), SHARD_BYTES).ok()?;
            let writer = ShardedWriter::reopen(folder, &plan, &specs, &BTreeMap::new()).ok()??;
            Some((plan, writer))
        });
        Some(AtomFiles { dtype, atoms: atoms.collect::<Option<_>>()? })
    }

    /// Opens the files that all parts of a job write to, or creates them.
    ///
    /// # Errors
    /// Rejected: files of another job. Failed: the system refuses.
    pub fn share(folder: &Path, n_atoms: usize, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<AtomFiles> {
        let specs = specs(tensors, dtype);
        let atoms = (0..n_atoms).map(|atom| {
            let plan = ShardPlan::greedy(&specs, &stem(atom, n_atoms), SHARD_BYTES)?;
            let writer = ShardedWriter::share(folder, &plan, &specs, &BTreeMap::new())?;
            Ok((plan, writer))
        });
        Ok(AtomFiles { dtype, atoms: atoms.collect::<Result<_>>()? })
    }

    /// [n_atoms, n_tensors]: the file of each atom in `folder` that holds a tensor, and where it begins in it.
    ///
    /// # Errors
    /// Rejected: sizes that overflow.
    pub fn places(
        folder: &Path,
        n_atoms: usize,
        tensors: &[(String, Vec<usize>)],
        dtype: Dtype,
    ) -> Result<Vec<Vec<(PathBuf, u64)>>> {
        let specs = specs(tensors, dtype);
        let of_atom = |atom: usize| {
            let plan = ShardPlan::greedy(&specs, &stem(atom, n_atoms), SHARD_BYTES)?;
            let mut places = vec![(PathBuf::new(), 0); specs.len()];
            for (name, own) in &plan.files {
                let in_file: Vec<TensorSpec> = own.iter().filter_map(|tensor| specs.get(*tensor).cloned()).collect();
                let layout = SafetensorsLayout::new(&in_file, &BTreeMap::new())?;
                for (number, tensor) in own.iter().enumerate() {
                    if let Some(place) = places.get_mut(*tensor) {
                        *place = (folder.join(name), layout.offset(number));
                    }
                }
            }
            Ok(places)
        };
        (0..n_atoms).map(of_atom).collect()
    }

    /// The names of all files of these atoms, those of indices among them.
    ///
    /// # Errors
    /// Rejected: sizes that overflow.
    pub fn names(n_atoms: usize, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Vec<String>> {
        let specs = specs(tensors, dtype);
        let mut names = Vec::new();
        for atom in 0..n_atoms {
            let plan = ShardPlan::greedy(&specs, &stem(atom, n_atoms), SHARD_BYTES)?;
            names.extend(plan.files.into_iter().map(|(name, _)| name).chain(plan.index));
        }
        Ok(names)
    }

    /// Writes rows of a tensor in one atom from `first_row` on; several threads at once.
    ///
    /// # Errors
    /// Failed: the system cannot write, or there is no such place.
    pub fn write_rows_of(&self, atom: usize, tensor: usize, first_row: usize, bytes: &[u8]) -> Result<()> {
        let (_, writer) = self.atoms.get(atom).ok_or_else(|| Error::failed("rows of an atom that was not laid out"))?;
        writer.write_at(tensor, (first_row * self.dtype.size()) as u64, bytes)
    }

    /// Puts everything on the disk. `digests` is [n_tensors, n_atoms].
    ///
    /// # Errors
    /// Failed: the system cannot write. Interrupted: each atom is waited for, and there may be many.
    pub fn finish(self, digests: &TableOfDigests, progress: &dyn Progress) -> Result<Vec<AtomRecord>> {
        let records = self.atoms.into_iter().enumerate().map(|(atom, (plan, writer))| {
            progress.check()?;
            let tensor_digests: Vec<Digest> = digests.column(atom).collect();
            let mut parts = Vec::new();
            let mut bytes = 0;
            for ((_, tensors), layout) in plan.files.iter().zip(writer.layouts()) {
                parts.push(Digest::of(layout.header()));
                parts.extend(tensors.iter().filter_map(|&tensor| tensor_digests.get(tensor)));
                bytes += layout.file_bytes();
            }
            writer.finish()?;
            let names = plan.files.into_iter().map(|(name, _)| name);
            Ok(AtomRecord {
                checksum: Digest::of_digests(parts),
                bytes,
                dtype: self.dtype,
                shards: if plan.index.is_some() { names.clone().collect() } else { Vec::new() },
                file: plan.index.unwrap_or_else(|| names.collect()),
            })
        });
        records.collect()
    }
}

impl AtomSink for AtomFiles {
    fn sync(&self) -> Result<()> {
        self.atoms.iter().try_for_each(|(_, writer)| writer.sync())
    }

    fn write_rows(&self, blocks: &[Block], rows: &[u8]) -> Result<Vec<Digest>> {
        let size = self.dtype.size();
        let n_atoms = self.atoms.len();
        let mut digests = vec![Digest::default(); blocks.len() * n_atoms];
        let mut rest = rows;
        for (atom, (_, writer)) in self.atoms.iter().enumerate() {
            for (block, row) in blocks.iter().zip(digests.chunks_exact_mut(n_atoms)) {
                let (own, behind) = rest
                    .split_at_checked(block.n_rows * size)
                    .ok_or_else(|| Error::failed("an atom's rows are fewer than its blocks"))?;
                rest = behind;
                writer.write_at(block.tensor, (block.first_row * size) as u64, own)?;
                if let Some(digest) = row.get_mut(atom) {
                    *digest = Digest::of(own);
                }
            }
        }
        Ok(digests)
    }
}

/// The checksum of an atom that was read: `digests` are those of its tensors in file order.
///
/// # Errors
/// Failed: a header cannot be read again.
pub fn checksum(atom: &Checkpoint, digests: impl Iterator<Item = Digest>) -> Result<Digest> {
    let mut parts = Vec::new();
    let mut digests = digests;
    for (number, file) in atom.files().iter().enumerate() {
        parts.push(Digest::of(&file.safetensors_header()?));
        let is_here = |place: &Place| matches!(place, Place::Contiguous { file, .. } if *file == number);
        let n_tensors = atom.tensors().iter().filter(|tensor| is_here(&tensor.place)).count();
        parts.extend(digests.by_ref().take(n_tensors));
    }
    Ok(Digest::of_digests(parts))
}
