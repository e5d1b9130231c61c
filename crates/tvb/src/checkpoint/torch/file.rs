//! An opened PyTorch file: its values, and where the storages of its tensors lie.

use super::errors::rejected;
use super::pickle::{Id, Node, Values};
use super::views::{self, Location};
use super::{archive, legacy};
use crate::checkpoint::read::read_tensor;
use crate::checkpoint::shown::shown;
use crate::checkpoint::{DataFile, Tensor};
use crate::error::Result;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// An opened PyTorch file of any content, not only a state dict.
#[derive(Debug)]
pub struct TorchFile {
    file: DataFile,
    values: Values,
    /// The location of each of the values' storages, or why it has none.
    locations: Vec<Result<Location, String>>,
    /// Bytes of compressed tensors in memory.
    held_bytes: AtomicU64,
}

impl TorchFile {
    /// Opens a file that `torch.save` wrote and reads its pickle; no tensor data is touched, unless it is compressed.
    ///
    /// # Errors
    /// Rejected, naming the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<TorchFile> {
        TorchFile::parse(DataFile::open(path)?)
    }

    pub(crate) fn parse(file: DataFile) -> Result<TorchFile> {
        let mut magic = [0; 4];
        let known = (file.len as usize).min(magic.len());
        file.read_at(0, &mut magic[..known])?;
        let contents = match magic {
            [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => archive::read(&file)?,
            [0x80, ..] => legacy::read(&file)?,
            _ => {
                let what = "expected a file that torch.save wrote, found neither a zip archive nor a pickle";
                return Err(rejected(&file, what).hint("it may be damaged or misnamed; download or copy it again"));
            }
        };
        let held_bytes =
            contents.locations.iter().map(|location| location.as_ref().map_or(0, Location::held_bytes)).sum();
        Ok(TorchFile {
            file,
            values: contents.values,
            locations: contents.locations,
            held_bytes: AtomicU64::new(held_bytes),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Fills `out` with the row-major bytes of one of this file's tensors from `byte_offset` on.
    ///
    /// # Errors
    /// Failed where the system cannot read or the piece does not lie in the tensor.
    pub fn read(&self, tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
        read_tensor(std::slice::from_ref(&self.file), tensor, byte_offset, out)
    }

    pub(crate) fn into_file(self) -> DataFile {
        self.file
    }

    pub(super) fn data_file(&self) -> &DataFile {
        &self.file
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// The tensor at `id` under the name that it goes by, with its place in file number 0.
    ///
    /// # Errors
    /// Rejected when it cannot be read, naming it and saying why.
    pub(super) fn tensor(&self, name: &str, id: Id) -> Result<Tensor> {
        let wrong = |why: &str| rejected(&self.file, format!("tensor {}: {why}", shown(name)));
        let Node::Tensor(raw) = self.values.node(id) else { return Err(wrong(&self.values.describe(id))) };
        let storage = &self.values.storages[raw.storage as usize];
        let location = self.locations[raw.storage as usize].as_ref().map_err(|why| wrong(why))?;
        let place = views::place(raw, storage, location, &self.held_bytes).map_err(|why| wrong(&why))?;
        Ok(Tensor { name: name.to_owned(), dtype: raw.dtype, shape: raw.shape.clone(), place })
    }
}
