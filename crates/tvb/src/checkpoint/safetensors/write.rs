//! Writing safetensors files by position: several threads fill a file's tensors in any order.

use super::shards::index_json;
use super::{SafetensorsLayout, ShardPlan, TensorSpec};
use crate::checkpoint::OutputFile;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// One safetensors file being written.
#[derive(Debug)]
pub struct SafetensorsWriter {
    file: OutputFile,
    layout: SafetensorsLayout,
}

impl SafetensorsWriter {
    /// Creates the file, reserves its length and writes its header. The tensors' bytes are zeros until written.
    ///
    /// # Errors
    /// Failed when the file exists or the disk has too little room.
    pub fn create(path: &Path, layout: SafetensorsLayout) -> Result<SafetensorsWriter> {
        let file = OutputFile::create(path, layout.file_bytes())?;
        file.write_at(0, layout.header())?;
        Ok(SafetensorsWriter { file, layout })
    }

    /// Opens the file that an interrupted run left; `None` when its length or its header differ from `layout`.
    ///
    /// # Errors
    /// Failed when it cannot be opened or read.
    pub fn reopen(path: &Path, layout: SafetensorsLayout) -> Result<Option<SafetensorsWriter>> {
        let Some(file) = OutputFile::reopen(path, layout.file_bytes())? else { return Ok(None) };
        let mut header = vec![0; layout.header().len()];
        file.read_at(0, &mut header)?;
        Ok((header == layout.header()).then_some(SafetensorsWriter { file, layout }))
    }

    /// Where the tensors lie.
    pub fn layout(&self) -> &SafetensorsLayout {
        &self.layout
    }

    /// Writes a part of tensor number `tensor`; several threads at once.
    ///
    /// # Errors
    /// Failed when the system cannot write, or the bytes do not fit into the tensor.
    pub fn write_at(&self, tensor: usize, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let n_bytes = self.layout.n_bytes(tensor);
        if byte_offset.checked_add(bytes.len() as u64).is_none_or(|end| end > n_bytes) {
            return Err(Error::failed(format!(
                "{}: asked to write {} bytes at {byte_offset} of a tensor of {n_bytes}",
                self.file.path().display(),
                bytes.len()
            )));
        }
        self.file.write_at(self.layout.offset(tensor) + byte_offset, bytes)
    }

    /// Reads back a part of tensor number `tensor`, for a checksum.
    ///
    /// # Errors
    /// Failed when the system cannot read, or the part does not lie in the tensor.
    pub fn read_at(&self, tensor: usize, byte_offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_at(self.layout.offset(tensor) + byte_offset, out)
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn finish(self) -> Result<()> {
        self.file.sync()
    }
}

/// Tensors dealt over the files of a folder, and the index that binds them.
#[derive(Debug)]
pub struct ShardedWriter {
    writers: Vec<SafetensorsWriter>,
    /// (file, number in that file) of each tensor.
    homes: Vec<(usize, usize)>,
}

impl ShardedWriter {
    /// Creates every file of `plan` in `folder` and the index; `specs` are the tensors the plan's numbers mean.
    ///
    /// # Errors
    /// Failed when a file exists or the disk has too little room; rejected when a shape overflows.
    pub fn create(
        folder: &Path,
        plan: &ShardPlan,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<ShardedWriter> {
        let mut homes = vec![(0, 0); specs.len()];
        let mut writers = Vec::with_capacity(plan.files.len());
        let mut weight_map = Vec::with_capacity(specs.len());
        let mut total_bytes = 0;
        for (number, (name, tensors)) in plan.files.iter().enumerate() {
            let own: Vec<TensorSpec> = tensors.iter().map(|&tensor| specs[tensor].clone()).collect();
            let layout = SafetensorsLayout::new(&own, metadata)?;
            for (place, &tensor) in tensors.iter().enumerate() {
                homes[tensor] = (number, place);
                total_bytes += layout.n_bytes(place);
                weight_map.push((specs[tensor].name.as_str(), name.as_str()));
            }
            writers.push(SafetensorsWriter::create(&folder.join(name), layout)?);
        }
        if let Some(index) = &plan.index {
            let path = folder.join(index);
            std::fs::write(&path, index_json(total_bytes, weight_map))
                .map_err(|error| Error::io("writing", &path, &error))?;
        }
        Ok(ShardedWriter { writers, homes })
    }

    /// Writes a part of tensor number `tensor` of all; several threads at once.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::write_at`].
    pub fn write_at(&self, tensor: usize, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let (file, number) = self.homes[tensor];
        self.writers[file].write_at(number, byte_offset, bytes)
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn finish(self) -> Result<()> {
        self.writers.into_iter().try_for_each(SafetensorsWriter::finish)
    }
}
