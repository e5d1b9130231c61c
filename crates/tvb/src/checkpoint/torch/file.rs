//! An opened PyTorch file: its values, and where the storages of its tensors lie.

use super::contents::Contents;
use super::errors::{Fault, rejected};
use super::pickle::{Id, Node, Values};
use super::views::{self, Location};
use super::{archive, legacy};
use crate::checkpoint::read::read_tensor;
use crate::checkpoint::shown::shown;
use crate::checkpoint::{Budget, DataFile, Tensor};
use crate::error::Result;
use std::path::Path;

/// An opened PyTorch file of any content, not only a state dict.
#[derive(Debug)]
pub struct TorchFile {
    file: DataFile,
    values: Values,
    /// The location of each of the values' storages, or why it has none.
    locations: Vec<Result<Location, String>>,
    /// Bytes of the storages that were decompressed.
    held_bytes: u64,
}

impl TorchFile {
    /// Opens a file that `torch.save` wrote and reads its pickle; no tensor data is touched, unless it is compressed.
    ///
    /// # Errors
    /// Rejected, naming the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<TorchFile> {
        TorchFile::open_within(path, &Budget::default())
    }

    /// [`open`](TorchFile::open); what is kept of the file is charged to `budget`.
    ///
    /// # Errors
    /// As [`open`](TorchFile::open). Rejected: it needs more memory than there is in the budget. Interrupted.
    pub fn open_within(path: &Path, budget: &Budget) -> Result<TorchFile> {
        TorchFile::parse(DataFile::open_within(path, budget)?)
    }

    pub(crate) fn parse(file: DataFile) -> Result<TorchFile> {
        let mut magic = [0; 4];
        let known = usize::try_from(file.len).unwrap_or(magic.len()).min(magic.len());
        file.read_at(0, magic.get_mut(..known).unwrap_or_default())?;
        let contents = match magic {
            [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => archive::read(&file)?,
            [0x80, ..] => legacy::read(&file)?,
            _ => {
                let what = "expected a file that torch.save wrote, found neither a zip archive nor a pickle";
                return Err(rejected(&file, what).hint("it may be damaged or misnamed; download or copy it again"));
            }
        };
        let Contents { values, locations, held_bytes } = contents;
        Ok(TorchFile { file, values, locations, held_bytes })
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

    /// The file itself.
    pub(crate) fn data_file(&self) -> &DataFile {
        &self.file
    }

    /// Bytes that its storages can have: its own, and those that are compressed in it.
    pub(crate) fn storage_bytes(&self) -> u64 {
        self.file.len.saturating_add(self.held_bytes)
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// The tensor at `id` under the name that it goes by, with its place in file number 0.
    ///
    /// # Errors
    /// Rejected when it cannot be read, naming it and saying why.
    pub(super) fn tensor(&self, name: &str, id: Id) -> Result<Tensor> {
        let wrong = |fault: Fault| fault.context(format!("tensor {}", shown(name))).of(self.data_file());
        let Node::Tensor(raw) = self.values.node(id) else { return Err(wrong(self.values.describe(id).into())) };
        let number = raw.storage as usize;
        let (Some(storage), Some(location)) = (self.values.storages.get(number), self.locations.get(number)) else {
            return Err(wrong(String::from("a tensor of a storage that is not there").into()));
        };
        let location = location.as_ref().map_err(|why| wrong(why.clone().into()))?;
        let place = views::place(raw, storage, location, self.data_file()).map_err(wrong)?;
        Ok(Tensor { name: name.to_owned(), dtype: raw.dtype, shape: raw.shape.clone(), place })
    }
}
