//! One PyTorch file being written: its entries' parts by position, then the checksums and the directory.

use super::save_value::{self, SaveStorage, SaveTensor, SaveValue};
use super::zip_layout::ZipLayout;
use crate::checkpoint::{OutputFile, TensorSpec};
use crate::error::{Error, Result};
use flate2::Crc;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// One PyTorch file being written.
#[derive(Debug)]
pub struct TorchWriter {
    file: OutputFile,
    layout: ZipLayout,
    /// Checksums of the entries before and after the storages, which are complete.
    small: Vec<(usize, u32)>,
    /// The storages' entries begin here.
    first_storage: usize,
    /// (storage, offset, length, checksum) of every part that was written.
    parts: Mutex<Vec<Part>>,
}

#[derive(Debug)]
struct Part {
    storage: usize,
    offset: u64,
    n_bytes: u64,
    crc: Crc,
}

impl TorchWriter {
    /// Creates the file and reserves its length. `stem` is the name of the folder inside the archive, which PyTorch
    /// makes from the file's name. Every byte of every storage must be written once before
    /// [`finish`](TorchWriter::finish).
    ///
    /// # Errors
    /// Failed when the file exists or the disk has too little room; rejected when a tensor does not lie in its storage.
    pub fn create(path: &Path, stem: &str, value: &SaveValue, storages: &[SaveStorage]) -> Result<TorchWriter> {
        let pickle =
            save_value::pickle(value, storages).map_err(|why| Error::rejected(format!("{}: {why}", path.display())))?;
        let mut entries: Vec<(String, u64)> = Vec::with_capacity(storages.len() + 4);
        let mut small: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut add_small = |entries: &mut Vec<(String, u64)>, name: &str, bytes: Vec<u8>| {
            small.push((entries.len(), bytes.clone()));
            entries.push((format!("{stem}/{name}"), bytes.len() as u64));
        };
        // A name for the contents; readers only show it.
        let serialization_id = format!("{:040}", twox_hash::XxHash3_128::oneshot(&pickle));
        add_small(&mut entries, "data.pkl", pickle);
        add_small(&mut entries, "byteorder", b"little".into());
        let first_storage = entries.len();
        for (key, storage) in storages.iter().enumerate() {
            entries.push((format!("{stem}/data/{key}"), storage.n_bytes()?));
        }
        add_small(&mut entries, "version", b"3\n".into());
        add_small(&mut entries, ".data/serialization_id", serialization_id.into());

        let layout = ZipLayout::new(entries)?;
        let file = OutputFile::create(path, layout.file_bytes())?;
        let mut checksums = Vec::with_capacity(small.len());
        for (entry, bytes) in small {
            let mut crc = Crc::new();
            crc.update(&bytes);
            file.write_at(layout.data_offset(entry), &bytes)?;
            checksums.push((entry, crc.sum()));
        }
        Ok(TorchWriter { file, layout, small: checksums, first_storage, parts: Mutex::new(Vec::new()) })
    }

    /// A state dict: an `OrderedDict` of the tensors in their order, each with a storage of its own, so that tensor
    /// number k is storage number k for [`write_at`](TorchWriter::write_at).
    ///
    /// # Errors
    /// As [`create`](TorchWriter::create).
    pub fn create_state_dict(path: &Path, stem: &str, specs: &[TensorSpec]) -> Result<TorchWriter> {
        let mut storages = Vec::with_capacity(specs.len());
        let mut entries = Vec::with_capacity(specs.len());
        for spec in specs {
            let n_elements = spec.n_bytes()? / spec.dtype.size() as u64;
            entries.push((
                SaveValue::Str(spec.name.clone()),
                SaveValue::Tensor(SaveTensor::contiguous(storages.len(), 0, spec.dtype, &spec.shape)),
            ));
            storages.push(SaveStorage { dtype: spec.dtype, n_elements });
        }
        TorchWriter::create(path, stem, &SaveValue::OrderedDict(entries), &storages)
    }

    /// Writes a part of storage number `storage`; several threads at once, no byte twice.
    ///
    /// # Errors
    /// Failed when the system cannot write, or the bytes do not fit into the storage.
    pub fn write_at(&self, storage: usize, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let entry = self.first_storage + storage;
        let n_bytes = self.layout.n_bytes(entry);
        if byte_offset.checked_add(bytes.len() as u64).is_none_or(|end| end > n_bytes) {
            return Err(Error::failed(format!(
                "{}: asked to write {} bytes at {byte_offset} of a storage of {n_bytes}",
                self.file.path().display(),
                bytes.len()
            )));
        }
        self.file.write_at(self.layout.data_offset(entry) + byte_offset, bytes)?;
        let mut crc = Crc::new();
        crc.update(bytes);
        let part = Part { storage, offset: byte_offset, n_bytes: bytes.len() as u64, crc };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        Ok(())
    }

    /// Writes the checksums and the archive's directory, and makes sure that everything is on the disk.
    ///
    /// # Errors
    /// Failed when the system cannot write, or a part of a storage is missing or was written twice.
    pub fn finish(self) -> Result<()> {
        let mut parts = self.parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|part| part.n_bytes > 0);
        parts.sort_by_key(|part| (part.storage, part.offset));
        let n_storages = self.layout.n_entries() - self.small.len();
        let mut checksums = vec![0; self.layout.n_entries()];
        let mut parts = parts.into_iter().peekable();
        for storage in 0..n_storages {
            let entry = self.first_storage + storage;
            let (mut crc, mut end) = (Crc::new(), 0);
            while let Some(part) = parts.next_if(|part| part.storage == storage) {
                if part.offset != end {
                    return Err(Error::failed(format!(
                        "{}: storage {storage}: expected its next part at {end}, found {}",
                        self.file.path().display(),
                        part.offset
                    )));
                }
                crc.combine(&part.crc);
                end += part.n_bytes;
            }
            if end != self.layout.n_bytes(entry) {
                return Err(Error::failed(format!(
                    "{}: storage {storage}: expected {} bytes, only {end} were written",
                    self.file.path().display(),
                    self.layout.n_bytes(entry)
                )));
            }
            put(&mut checksums, entry, crc.sum());
        }
        for &(entry, checksum) in &self.small {
            put(&mut checksums, entry, checksum);
        }
        for (entry, &checksum) in checksums.iter().enumerate() {
            self.file.write_at(self.layout.header_offset(entry), &self.layout.local_header(entry, checksum))?;
        }
        self.file.write_at(self.layout.directory_offset(), &self.layout.directory(&checksums))?;
        self.file.sync()
    }
}

fn put(checksums: &mut [u32], entry: usize, checksum: u32) {
    if let Some(place) = checksums.get_mut(entry) {
        *place = checksum;
    }
}

/// An archive of any entries, for tests of the reader.
#[cfg(test)]
pub(in crate::checkpoint::torch) fn forge(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let sizes = entries.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.len() as u64)).collect();
    let layout = ZipLayout::new(sizes).unwrap();
    let mut out = Vec::new();
    let mut checksums = Vec::new();
    for (k, (_, bytes)) in entries.iter().enumerate() {
        let mut crc = Crc::new();
        crc.update(bytes);
        checksums.push(crc.sum());
        out.extend(layout.local_header(k, crc.sum()));
        out.extend_from_slice(bytes);
    }
    out.extend(layout.directory(&checksums));
    out
}
