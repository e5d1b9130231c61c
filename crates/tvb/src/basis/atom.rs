//! Atoms on disk: plain safetensors state dicts of deltas, written by position from many threads, digested on the way.
//!
//! An atom's checksum is the digest over, file by file and tensor by tensor in file order, of the header's digest and the
//! tensors' digests (see [`crate::digest`]): writers and readers take it from the blocks as they pass, in any chunking.

use super::manifest::AtomRecord;
use crate::checkpoint::{Checkpoint, Dtype, StateDictWriter};
use crate::chunks::Block;
use crate::digest::{Digest, TableOfDigests};
use crate::error::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// Every atom of a basis while it is written.
#[derive(Debug)]
pub struct AtomSink {
    dtype: Dtype,
    writers: Vec<StateDictWriter>,
}

/// The stem of atom `index` of `n_atoms`: `atom-00`, with more digits where there are more than a hundred.
pub fn stem(index: usize, n_atoms: usize) -> String {
    let width = n_atoms.saturating_sub(1).to_string().len().max(2);
    format!("atom-{index:0width$}")
}

impl AtomSink {
    /// Creates the files of `n_atoms` atoms in `folder`, at their full size.
    pub fn create(folder: &Path, n_atoms: usize, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<AtomSink> {
        let tensors: Vec<(String, Dtype, Vec<usize>)> =
            tensors.iter().map(|(name, shape)| (name.clone(), dtype, shape.clone())).collect();
        let writers = (0..n_atoms).map(|atom| {
            let metadata = BTreeMap::from([("tvb".to_owned(), format!("atom {atom} of {n_atoms}"))]);
            StateDictWriter::create(folder, &stem(atom, n_atoms), &tensors, metadata)
        });
        Ok(AtomSink { dtype, writers: writers.collect::<Result<_>>()? })
    }

    /// Writes one chunk's rows: `bytes` holds for each atom in turn the blocks in order, tightly packed.
    /// Answers [n_blocks, n_atoms] digests.
    pub fn write_rows(&self, blocks: &[Block], bytes: &[u8]) -> Result<Vec<Digest>> {
        let size = self.dtype.size();
        let mut digests = vec![Digest::default(); blocks.len() * self.writers.len()];
        let mut at = 0;
        for (atom, writer) in self.writers.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                let rows = &bytes[at..at + block.n_rows * size];
                at += rows.len();
                writer.write(block.tensor, (block.first_row * size) as u64, rows)?;
                digests[index * self.writers.len() + atom] = Digest::of(rows);
            }
        }
        Ok(digests)
    }

    /// Puts everything on the disk. `digests` is [n_tensors, n_atoms].
    pub fn finish(self, digests: &TableOfDigests) -> Result<Vec<AtomRecord>> {
        let records = self.writers.into_iter().enumerate().map(|(atom, writer)| {
            let tensor_digests: Vec<Digest> = digests.column(atom).collect();
            let written = writer.finish()?;
            let parts = written.files.iter().flat_map(|file| {
                std::iter::once(Digest::of(&file.header)).chain(file.tensors.iter().map(|&tensor| tensor_digests[tensor]))
            });
            Ok(AtomRecord {
                checksum: Digest::of_digests(parts),
                file: written.entry,
                shards: if written.files.len() > 1 { written.files.iter().map(|file| file.name.clone()).collect() } else { Vec::new() },
                bytes: written.n_bytes,
                dtype: self.dtype,
            })
        });
        records.collect()
    }
}

/// The checksum of an atom that was read: `digests` are those of its tensors in file order (one column).
pub fn checksum(atom: &Checkpoint, digests: impl Iterator<Item = Digest>) -> Result<Digest> {
    let mut parts = Vec::new();
    let mut digests = digests;
    for (number, file) in atom.files().iter().enumerate() {
        parts.push(Digest::of(&file.header_bytes()?));
        let n_tensors = atom.tensors().iter().filter(|tensor| tensor.place.file() == Some(number)).count();
        parts.extend(digests.by_ref().take(n_tensors));
    }
    Ok(Digest::of_digests(parts))
}
