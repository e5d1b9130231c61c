//! Codes of one column that wait until there are enough of them for a long write.

use crate::checkpoint::OutputFile;
use crate::error::Result;

/// Bytes that wait to be written at a place.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    most_bytes: usize,
}

impl Pending {
    /// Nothing yet; `most_bytes` are put together before they are written.
    pub(super) fn new(most_bytes: usize) -> Pending {
        Pending { at: 0, bytes: Vec::new(), most_bytes }
    }

    /// Writes what waits.
    pub(super) fn write(&mut self, file: &OutputFile) -> Result<()> {
        file.write_at(self.at, &self.bytes)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    /// Takes the next bytes, and writes where enough are there.
    pub(super) fn put(&mut self, bytes: &[u8], file: &OutputFile) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= self.most_bytes { self.write(file) } else { Ok(()) }
    }
}
