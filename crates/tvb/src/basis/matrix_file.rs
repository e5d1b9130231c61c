//! A safetensors file of matrices, read in pieces: its bytes never lie in memory all at once, which for many tasks and tensors
//! would take as much again as the matrices themselves.

use super::seal::UNSEALED;
use crate::checkpoint::{Budget, Charge, DataFile, Dtype, SafetensorsHeader, Tensor, json_cost};
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use std::path::Path;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The length field before the header.
const PREFIX_BYTES: usize = 8;

/// Where the bytes come from.
enum Source<'a> {
    File(DataFile),
    Memory(&'a [u8]),
}

/// A file whose header was read and checked.
pub(super) struct MatrixFile<'a> {
    source: Source<'a>,
    /// The length field and the JSON.
    head: Vec<u8>,
    n_bytes: u64,
    header: SafetensorsHeader,
    charge: Charge,
}

impl MatrixFile<'_> {
    /// Opens a file of at most `max_bytes`; `what` names it in messages. Where its digest is known it is compared before
    /// anything is made of its header.
    ///
    /// # Errors
    /// Rejected: no regular file, a larger one, a damaged one, a malformed header, too little memory. Failed: I/O.
    pub(super) fn open(
        path: &Path,
        what: &'static str,
        max_bytes: u64,
        expected: Option<Digest>,
        budget: &Budget,
    ) -> Result<MatrixFile<'static>> {
        let file = DataFile::open_within(path, budget)?;
        if file.len > max_bytes {
            return Err(Error::rejected(format!(
                "{}: {what} of at most {max_bytes} bytes expected, {} found",
                path.display(),
                file.len
            )));
        }
        if let Some(expected) = expected {
            let mut digester = Digester::default();
            read_pieces(&file, 0, file.len, &mut |piece| {
                digester.push(piece);
                Ok(())
            })?;
            if digester.finish() != expected {
                return Err(Error::rejected(format!(
                    "{}: its checksum does not match: the file was damaged",
                    path.display()
                ))
                .hint("make the basis again, or copy it again"));
            }
        }
        let (header, mut charge) = SafetensorsHeader::read_charged(&file)?;
        let head = file.safetensors_header()?;
        charge.take(head.len() as u64)?;
        Ok(MatrixFile { n_bytes: file.len, source: Source::File(file), head, header, charge })
    }

    /// The same of a file that is in memory.
    ///
    /// # Errors
    /// Rejected: a malformed header. The message has no path.
    pub(super) fn of_bytes(bytes: &[u8]) -> Result<MatrixFile<'_>> {
        let length = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        let end = length.checked_add(PREFIX_BYTES as u64).filter(|&end| end <= bytes.len() as u64);
        let end = end.ok_or_else(|| Error::rejected("truncated: its header is longer than the file"))? as usize;
        let (head, data) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let header = SafetensorsHeader::parse(head.get(PREFIX_BYTES..).unwrap_or_default(), data.len() as u64)?;
        let budget = Budget::default();
        let charge = budget.account(Path::new("bytes"), "a header");
        let (source, n_bytes) = (Source::Memory(bytes), bytes.len() as u64);
        Ok(MatrixFile { source, head: head.to_vec(), n_bytes, header, charge })
    }

    /// A string of its metadata; empty where there is none.
    pub(super) fn metadata(&self, key: &str) -> &str {
        self.header.metadata.get(key).map_or("", String::as_str)
    }

    /// Bytes of the file.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Takes memory for the values of a JSON text that is about to be read.
    ///
    /// # Errors
    /// Rejected: too little. Interrupted.
    pub(super) fn charge_json(&mut self, text_bytes: u64) -> Result<()> {
        self.charge.take(text_bytes)
    }

    /// What reading the JSON text of a metadata entry takes.
    pub(super) fn json_cost(&self, key: &str) -> u64 {
        json_cost(self.metadata(key).as_bytes())
    }

    /// Takes memory for `n_values` of 8 bytes.
    ///
    /// # Errors
    /// Rejected: too little. Interrupted.
    pub(super) fn charge_values(&mut self, n_values: u64) -> Result<()> {
        self.charge.take(n_values.saturating_mul(8))
    }

    /// The tensor of that name.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.header.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Whether the file is as it was when it was sealed with `checksum`, which stands in its header.
    ///
    /// # Errors
    /// Failed: I/O. Interrupted.
    pub(super) fn is_intact(&self, checksum: Digest) -> Result<bool> {
        let Some(place) = super::seal::place(&self.head, checksum) else { return Ok(false) };
        let mut digester = Digester::default();
        digester.push(self.head.get(..place.start).unwrap_or_default());
        digester.push(UNSEALED.to_string().as_bytes());
        digester.push(self.head.get(place.end..).unwrap_or_default());
        self.pieces(self.head.len() as u64, self.n_bytes, &mut |piece| {
            digester.push(piece);
            Ok(())
        })?;
        Ok(digester.finish() == checksum)
    }

    /// Hands the little-endian f64 values of a tensor out, in order.
    ///
    /// # Errors
    /// Rejected: not f64, or a value that is not finite; without the path. Failed: I/O. Interrupted.
    pub(super) fn values(&self, tensor: &Tensor, mut each: impl FnMut(f64)) -> Result<()> {
        let rejected = |what: String| Err(Error::rejected(format!("tensor {}: {what}", tensor.name)));
        if tensor.dtype != Dtype::F64 {
            return rejected(format!("F64 expected, {} found", tensor.dtype.safetensors_name()));
        }
        let mut are_finite = true;
        self.bytes(tensor, &mut |piece| {
            let (values, _) = piece.as_chunks::<8>();
            for value in values {
                let value = f64::from_le_bytes(*value);
                are_finite &= value.is_finite();
                each(value);
            }
            Ok(())
        })?;
        if are_finite { Ok(()) } else { rejected("finite values expected, another found".into()) }
    }

    /// Hands the bytes of a tensor out, in pieces of a multiple of 16.
    ///
    /// # Errors
    /// Failed: I/O. Interrupted.
    pub(super) fn bytes(&self, tensor: &Tensor, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (_, begin) = tensor.place.sort_key();
        self.pieces(begin, begin + tensor.n_bytes(), each)
    }

    fn pieces(&self, begin: u64, end: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match &self.source {
            Source::Memory(bytes) => {
                let piece = bytes.get(begin as usize..end as usize);
                each(piece.ok_or_else(|| Error::rejected("truncated: a tensor reaches past the end"))?)
            }
            Source::File(file) => read_pieces(file, begin, end, each),
        }
    }

    /// Notices a file that was written to since it was opened; gives what was charged for.
    ///
    /// # Errors
    /// Rejected: it was.
    pub(super) fn finish(self) -> Result<Charge> {
        if let Source::File(file) = &self.source {
            file.check_unchanged()?;
        }
        Ok(self.charge)
    }
}

fn read_pieces(file: &DataFile, begin: u64, end: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min((end - begin) as usize)];
    let mut at = begin;
    while at < end {
        file.budget().check()?;
        let n_bytes = piece.len().min((end - at) as usize);
        let piece = piece.get_mut(..n_bytes).unwrap_or_default();
        file.read_at(at, piece)?;
        each(piece)?;
        at += n_bytes as u64;
    }
    Ok(())
}
