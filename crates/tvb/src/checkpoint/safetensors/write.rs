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

    /// Opens a file that several runs write to, each its own rows, or creates it; the header is the same from all of them.
    ///
    /// # Errors
    /// Rejected: a file of another length. Failed: the system refuses.
    pub fn share(path: &Path, layout: SafetensorsLayout) -> Result<SafetensorsWriter> {
        let file = OutputFile::share(path, layout.file_bytes())?;
        file.write_at(0, layout.header())?;
        Ok(SafetensorsWriter { file, layout })
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

    /// Waits until what was written so far is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn finish(self) -> Result<()> {
        self.sync()
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
        ShardedWriter::with(folder, plan, specs, metadata, SafetensorsWriter::create)
    }

    /// Creates one file of all tensors at a path of any name.
    ///
    /// # Errors
    /// As [`create`](ShardedWriter::create).
    pub fn create_single(
        path: &Path,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<ShardedWriter> {
        let writer = SafetensorsWriter::create(path, SafetensorsLayout::new(specs, metadata)?)?;
        Ok(ShardedWriter { writers: vec![writer], homes: (0..specs.len()).map(|tensor| (0, tensor)).collect() })
    }

    /// Opens every file of `plan` that an interrupted run left in `folder`; `None` when one of them is not as
    /// [`create`](ShardedWriter::create) made it.
    ///
    /// # Errors
    /// Failed when a file cannot be opened, read or written; rejected when a shape overflows.
    pub fn reopen(
        folder: &Path,
        plan: &ShardPlan,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Option<ShardedWriter>> {
        let (layouts, homes) = lay_out(plan, specs, metadata)?;
        write_index(folder, plan, specs, &layouts)?;
        let mut writers = Vec::with_capacity(plan.files.len());
        for ((name, _), layout) in plan.files.iter().zip(layouts) {
            let Some(writer) = SafetensorsWriter::reopen(&folder.join(name), layout)? else { return Ok(None) };
            writers.push(writer);
        }
        Ok(Some(ShardedWriter { writers, homes }))
    }

    /// Opens every file of `plan` in `folder` that several runs write to, each its own rows, or creates it.
    ///
    /// # Errors
    /// Rejected: a file of another length, or a shape that overflows. Failed: the system refuses.
    pub fn share(
        folder: &Path,
        plan: &ShardPlan,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<ShardedWriter> {
        ShardedWriter::with(folder, plan, specs, metadata, SafetensorsWriter::share)
    }

    fn with(
        folder: &Path,
        plan: &ShardPlan,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
        open: fn(&Path, SafetensorsLayout) -> Result<SafetensorsWriter>,
    ) -> Result<ShardedWriter> {
        let (layouts, homes) = lay_out(plan, specs, metadata)?;
        write_index(folder, plan, specs, &layouts)?;
        let files = plan.files.iter().zip(layouts);
        let writers = files.map(|((name, _), layout)| open(&folder.join(name), layout));
        Ok(ShardedWriter { writers: writers.collect::<Result<_>>()?, homes })
    }

    /// Waits until what was written so far is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn sync(&self) -> Result<()> {
        self.writers.iter().try_for_each(SafetensorsWriter::sync)
    }

    /// The files' layouts, in the plan's order.
    pub fn layouts(&self) -> impl Iterator<Item = &SafetensorsLayout> {
        self.writers.iter().map(SafetensorsWriter::layout)
    }

    /// Writes a part of tensor number `tensor` of all; several threads at once.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::write_at`].
    pub fn write_at(&self, tensor: usize, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let home = self.homes.get(tensor).and_then(|(file, number)| Some((self.writers.get(*file)?, *number)));
        let (writer, number) = home.ok_or_else(|| Error::failed(format!("tensor number {tensor} is in no file")))?;
        writer.write_at(number, byte_offset, bytes)
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write it.
    pub fn finish(self) -> Result<()> {
        self.writers.into_iter().try_for_each(SafetensorsWriter::finish)
    }
}

/// The layout of every file of a plan, and (file, number in that file) of each tensor.
type LaidOut = (Vec<SafetensorsLayout>, Vec<(usize, usize)>);

fn lay_out(plan: &ShardPlan, specs: &[TensorSpec], metadata: &BTreeMap<String, String>) -> Result<LaidOut> {
    let missing = |tensor: usize| Error::failed(format!("tensor number {tensor} of {} asked for", specs.len()));
    let mut homes = vec![(0, 0); specs.len()];
    let mut layouts = Vec::with_capacity(plan.files.len());
    for (number, (_, tensors)) in plan.files.iter().enumerate() {
        let own: Vec<TensorSpec> = tensors
            .iter()
            .map(|&tensor| specs.get(tensor).cloned().ok_or_else(|| missing(tensor)))
            .collect::<Result<_>>()?;
        layouts.push(SafetensorsLayout::new(&own, metadata)?);
        for (place, &tensor) in tensors.iter().enumerate() {
            *homes.get_mut(tensor).ok_or_else(|| missing(tensor))? = (number, place);
        }
    }
    Ok((layouts, homes))
}

/// Writes the index, where the plan has one.
fn write_index(folder: &Path, plan: &ShardPlan, specs: &[TensorSpec], layouts: &[SafetensorsLayout]) -> Result<()> {
    let Some(index) = &plan.index else { return Ok(()) };
    let mut weight_map = Vec::with_capacity(specs.len());
    let mut total_bytes = 0;
    for ((name, tensors), layout) in plan.files.iter().zip(layouts) {
        let own = tensors.iter().filter_map(|&tensor| specs.get(tensor));
        for (place, spec) in own.enumerate() {
            total_bytes += layout.n_bytes(place);
            weight_map.push((spec.name.as_str(), name.as_str()));
        }
    }
    let path = folder.join(index);
    std::fs::write(&path, index_json(total_bytes, weight_map)).map_err(|error| Error::io("writing", &path, &error))
}
