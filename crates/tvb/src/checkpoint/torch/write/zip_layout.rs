//! A zip archive of uncompressed entries before it is written: where each lies, and its records.
//!
//! Data is aligned as PyTorch aligns it, so that a reader may map the file and use tensors in place.

use crate::error::{Error, Result};

const ALIGNMENT: u64 = 64;
const LOCAL_HEADER_BYTES: u64 = 30;
const EXTRA_HEAD_BYTES: u64 = 4;
/// Two 64-bit sizes in an entry's own header.
const LOCAL_WIDE_BYTES: u16 = 16;
/// Two sizes and an offset in the directory.
const DIRECTORY_WIDE_BYTES: u16 = 24;
/// Sizes and offsets from here on stand in 64-bit fields.
const NARROW_MAX: u64 = u32::MAX as u64 - 1;
/// The extra field that PyTorch pads with.
const PADDING_ID: [u8; 2] = *b"FB";
/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;
/// 1 January 1980, the first day a zip archive can name: contents alone decide about the bytes of a file.
const DATE: u16 = 1 << 5 | 1;
const VERSION_NEEDED: u16 = 45;

/// Entries of a zip archive and their places.
#[derive(Debug)]
pub(super) struct ZipLayout {
    entries: Vec<Entry>,
    directory_offset: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    n_bytes: u64,
    header_offset: u64,
    data_offset: u64,
}

impl ZipLayout {
    /// Lays out entries of the given names and lengths in their order.
    ///
    /// # Errors
    /// Rejected when a name is longer than a zip archive allows.
    pub(super) fn new(sizes: Vec<(String, u64)>) -> Result<ZipLayout> {
        let mut entries = Vec::with_capacity(sizes.len());
        let mut at = 0;
        for (name, n_bytes) in sizes {
            if name.len() > usize::from(u16::MAX) {
                return Err(Error::rejected(format!("a zip entry's name of {} bytes is too long", name.len())));
            }
            let wide = if is_wide(n_bytes) { EXTRA_HEAD_BYTES + u64::from(LOCAL_WIDE_BYTES) } else { 0 };
            let head_end = at + LOCAL_HEADER_BYTES + name.len() as u64 + wide + EXTRA_HEAD_BYTES;
            let data_offset = head_end.next_multiple_of(ALIGNMENT);
            entries.push(Entry { name, n_bytes, header_offset: at, data_offset });
            at = data_offset + n_bytes;
        }
        Ok(ZipLayout { entries, directory_offset: at })
    }

    pub(super) fn n_entries(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn n_bytes(&self, entry: usize) -> u64 {
        self.entry(entry).n_bytes
    }

    pub(super) fn header_offset(&self, entry: usize) -> u64 {
        self.entry(entry).header_offset
    }

    pub(super) fn data_offset(&self, entry: usize) -> u64 {
        self.entry(entry).data_offset
    }

    pub(super) fn directory_offset(&self) -> u64 {
        self.directory_offset
    }

    /// Length of the whole archive.
    pub(super) fn file_bytes(&self) -> u64 {
        let checksums = vec![0; self.n_entries()];
        self.directory_offset + self.directory(&checksums).len() as u64
    }

    #[allow(clippy::indexing_slicing, reason = "entries are counted by the writer that laid them out")]
    fn entry(&self, entry: usize) -> &Entry {
        &self.entries[entry]
    }

    /// The record before an entry's data, padded up to it.
    pub(super) fn local_header(&self, entry: usize, checksum: u32) -> Vec<u8> {
        let Entry { name, n_bytes, header_offset, data_offset } = self.entry(entry);
        let length = (data_offset - header_offset) as usize;
        let extra_bytes = (length - LOCAL_HEADER_BYTES as usize - name.len()) as u16;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(b"PK\x03\x04");
        put_common(&mut out, checksum, *n_bytes, name.len() as u16, extra_bytes);
        out.extend_from_slice(name.as_bytes());
        if is_wide(*n_bytes) {
            put_wide(&mut out, LOCAL_WIDE_BYTES, &[*n_bytes, *n_bytes]);
        }
        out.extend_from_slice(&PADDING_ID);
        let padding = length - out.len() - size_of::<u16>();
        out.extend_from_slice(&(padding as u16).to_le_bytes());
        out.resize(length, b'Z');
        out
    }

    /// The directory and the records at the archive's end.
    pub(super) fn directory(&self, checksums: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        for (entry, &checksum) in self.entries.iter().zip(checksums) {
            let wide = is_wide(entry.n_bytes) || is_wide(entry.header_offset);
            out.extend_from_slice(b"PK\x01\x02");
            // Made by version 45 on no system in particular.
            out.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
            let sizes = if wide { u64::MAX } else { entry.n_bytes };
            let extra_bytes = if wide { EXTRA_HEAD_BYTES as u16 + DIRECTORY_WIDE_BYTES } else { 0 };
            put_common(&mut out, checksum, sizes, entry.name.len() as u16, extra_bytes);
            // No comment, first disk, no attributes.
            out.extend_from_slice(&[0; 10]);
            let offset = if wide { u64::MAX } else { entry.header_offset };
            out.extend_from_slice(&narrow(offset).to_le_bytes());
            out.extend_from_slice(entry.name.as_bytes());
            if wide {
                put_wide(&mut out, DIRECTORY_WIDE_BYTES, &[entry.n_bytes, entry.n_bytes, entry.header_offset]);
            }
        }
        let (n_entries, n_bytes) = (self.entries.len() as u64, out.len() as u64);
        let end64_offset = self.directory_offset + n_bytes;

        // The 64-bit end record, whose length counts from after the length.
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44u64.to_le_bytes());
        out.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
        out.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        for value in [n_entries, n_entries, n_bytes, self.directory_offset] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        // Where it is.
        out.extend_from_slice(b"PK\x06\x07");
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&end64_offset.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
        // The end record that every reader looks for.
        out.extend_from_slice(b"PK\x05\x06");
        out.extend_from_slice(&[0; 4]);
        let count = u16::try_from(n_entries).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&narrow(n_bytes).to_le_bytes());
        out.extend_from_slice(&narrow(self.directory_offset).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out
    }
}

fn is_wide(value: u64) -> bool {
    value > NARROW_MAX
}

/// A 32-bit field, all ones where the value stands in a 64-bit one.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What an entry's own header and its directory entry have in common.
fn put_common(out: &mut Vec<u8>, checksum: u32, n_bytes: u64, name_bytes: u16, extra_bytes: u16) {
    for field in [VERSION_NEEDED, FLAGS, 0, 0, DATE] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [checksum, narrow(n_bytes), narrow(n_bytes)] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [name_bytes, extra_bytes] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

fn put_wide(out: &mut Vec<u8>, n_bytes: u16, values: &[u64]) {
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&n_bytes.to_le_bytes());
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}
