//! The zip container of a PyTorch file: where each entry's bytes lie.
//!
//! Only the directory at the end is read, and an entry's own header when its bytes are wanted. PyTorch stores its
//! entries uncompressed, so a tensor can be read in place; compressed entries are what someone packed again.

use super::errors::rejected;
use crate::checkpoint::limits::{N_ZIP_ENTRIES_MAX, ZIP_DIRECTORY_BYTES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::{Charge, DataFile};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::Read;

const END_BYTES: usize = 22;
const END64_BYTES: usize = 56;
const END64_LOCATOR_BYTES: usize = 20;
const DIRECTORY_ENTRY_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: u64 = 30;
const COMMENT_BYTES_MAX: u64 = u16::MAX as u64;
/// No byte that deflate stores stands for more than this many.
const DEFLATE_TIMES_MAX: u64 = 1032;
/// Bytes that are read or inflated between two looks at whether to stop.
const PIECE_BYTES: u64 = 1 << 20;

/// The directory of a zip archive.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, Entry>,
    /// Where the directory begins; every entry's bytes lie before it.
    data_end: u64,
    charge: Charge,
}

/// Memory for an entry in the table, which grows by doubling, and for its name's allocation.
const ENTRY_BYTES: usize = 2 * (size_of::<(String, Entry)>() + 1) + 32;

/// What the directory says about one entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Uncompressed length.
    pub(super) n_bytes: u64,
    pub(super) compressed: bool,
    /// Length as it is stored.
    pub(super) stored_bytes: u64,
    crc32: u32,
    header_offset: u64,
}

impl Archive {
    /// Reads the directory.
    ///
    /// # Errors
    /// Rejected when the file is no complete zip archive or claims absurd counts and sizes.
    pub(super) fn read(file: &DataFile) -> Result<Archive> {
        let end = find_end(file)?;
        if end.directory_bytes > ZIP_DIRECTORY_BYTES_MAX || end.n_entries > N_ZIP_ENTRIES_MAX {
            return Err(rejected(
                file,
                format!(
                    "a zip directory of {} bytes for {} entries, more than any",
                    end.directory_bytes, end.n_entries
                ),
            ));
        }
        if end.directory_offset.checked_add(end.directory_bytes).is_none_or(|directory_end| directory_end > end.offset)
        {
            return Err(rejected(
                file,
                format!(
                    "the zip directory of {} bytes at {} does not fit before its end record at {}",
                    end.directory_bytes, end.directory_offset, end.offset
                ),
            ));
        }
        let _directory_charge = file.charge("its zip directory", end.directory_bytes)?;
        let mut directory = vec![0; end.directory_bytes as usize];
        file.read_at(end.directory_offset, &mut directory)?;
        let charge = file.account("its zip directory");
        let mut archive = Archive { entries: HashMap::new(), data_end: end.directory_offset, charge };
        let mut rest = &directory[..];
        for _ in 0..end.n_entries {
            let (name, entry) =
                parse_entry(&mut rest).map_err(|why| rejected(file, format!("zip directory: {why}")))?;
            archive.charge.take((ENTRY_BYTES + name.len()) as u64)?;
            if archive.entries.contains_key(&name) {
                return Err(rejected(file, format!("zip directory: {} stands twice", shown(&name))));
            }
            archive.entries.insert(name, entry);
        }
        Ok(archive)
    }

    /// The entry of that name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Every entry's name, in no particular order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry begin, as they are stored. Reads the entry's own header, which must agree with the
    /// directory about the name.
    ///
    /// # Errors
    /// Rejected when the entry does not lie in the archive.
    pub(super) fn locate(&self, file: &DataFile, name: &str, entry: &Entry) -> Result<u64> {
        let outside = |what: &str| rejected(file, format!("zip entry {}: {what}", shown(name)));
        let header_end = entry.header_offset.checked_add(LOCAL_HEADER_BYTES);
        if header_end.is_none_or(|end| end > self.data_end) {
            return Err(outside("lies outside the archive"));
        }
        let mut header = [0; LOCAL_HEADER_BYTES as usize];
        file.read_at(entry.header_offset, &mut header)?;
        if header[..4] != *b"PK\x03\x04" {
            return Err(outside("has no header where the directory says"));
        }
        let (name_bytes, extra_bytes) = (u64::from(u16_at(&header, 26)), u64::from(u16_at(&header, 28)));
        let offset = entry.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes;
        if offset.checked_add(entry.stored_bytes).is_none_or(|end| end > self.data_end) {
            return Err(outside(&format!(
                "expected {} bytes at {offset}, found only {} before the directory",
                entry.stored_bytes,
                self.data_end.saturating_sub(offset)
            )));
        }
        let mut own_name = vec![0; name_bytes as usize];
        file.read_at(entry.header_offset + LOCAL_HEADER_BYTES, &mut own_name)?;
        if own_name != name.as_bytes() {
            return Err(outside(&format!("its own header calls it {}", shown(&String::from_utf8_lossy(&own_name)))));
        }
        Ok(offset)
    }

    /// The whole uncompressed contents of an entry that may have `bytes_max` bytes, and what they take of the budget.
    ///
    /// # Errors
    /// Rejected when it is missing, longer, or damaged. Failed when the system cannot read. Interrupted.
    pub(super) fn contents(
        &self,
        file: &DataFile,
        name: &str,
        what: &'static str,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, Charge)> {
        let damaged = |why: String| rejected(file, format!("zip entry {}: {why}", shown(name)));
        let entry = self.entry(name).ok_or_else(|| damaged("is missing".into()))?;
        if entry.n_bytes > bytes_max {
            return Err(damaged(format!("{} bytes, expected at most {bytes_max}", entry.n_bytes)));
        }
        if entry.n_bytes / DEFLATE_TIMES_MAX > entry.stored_bytes {
            let (n_bytes, stored) = (entry.n_bytes, entry.stored_bytes);
            return Err(damaged(format!(
                "claims {n_bytes} bytes in {stored} compressed ones, more than they can hold"
            )));
        }
        let offset = self.locate(file, name, entry)?;
        let charge = file.charge(what, entry.n_bytes)?;
        let stored = PositionedReader { file, at: offset, end: offset + entry.stored_bytes };
        let bytes = match entry.compressed {
            true => read_whole(flate2::read::DeflateDecoder::new(stored), entry.n_bytes, file),
            false => read_whole(stored, entry.n_bytes, file),
        };
        let bytes = bytes.map_err(|error| match error.downcast::<Error>() {
            // The disk or the user is to blame, not the archive.
            Ok(error) => error,
            Err(error) => damaged(format!("reading it failed: {error}")).caused_by(error),
        })?;
        if bytes.len() as u64 != entry.n_bytes {
            return Err(damaged(format!("expected {} bytes, found {}", entry.n_bytes, bytes.len())));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        // PyTorch can be told not to compute the checksums of what it stores; whoever compressed it computed them.
        if entry.compressed && crc.sum() != entry.crc32 {
            return Err(damaged(format!("damaged: expected checksum {:08x}, found {:08x}", entry.crc32, crc.sum())));
        }
        Ok((bytes, charge))
    }
}

/// Up to one byte more than `n_bytes`, which shows that the promise was wrong. The user may lose patience meanwhile.
fn read_whole(mut reader: impl Read, n_bytes: u64, file: &DataFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n_bytes as usize);
    loop {
        file.budget().check().map_err(std::io::Error::other)?;
        let rest = (n_bytes + 1).saturating_sub(bytes.len() as u64);
        // The last piece asks into a buffer of its own, so that a promise that is kept costs no second buffer.
        if rest <= 1 {
            let mut more = [0];
            let n_more = if rest == 1 { reader.read(&mut more)? } else { 0 };
            bytes.extend(more.iter().take(n_more));
            return Ok(bytes);
        }
        if reader.by_ref().take((rest - 1).min(PIECE_BYTES)).read_to_end(&mut bytes)? == 0 {
            return Ok(bytes);
        }
    }
}

/// What the record at the archive's end says.
struct End {
    offset: u64,
    n_entries: u64,
    directory_bytes: u64,
    directory_offset: u64,
}

/// Finds the end record: the last bytes of the file but for a comment, and its 64-bit form where there is one.
fn find_end(file: &DataFile) -> Result<End> {
    let tail_bytes = file.len.min(COMMENT_BYTES_MAX + (END_BYTES + END64_LOCATOR_BYTES) as u64);
    let tail_offset = file.len - tail_bytes;
    let mut tail = vec![0; tail_bytes as usize];
    file.read_at(tail_offset, &mut tail)?;
    let is_end = |at: &usize| {
        let record = tail.get(*at..).unwrap_or_default();
        record.starts_with(b"PK\x05\x06") && END_BYTES + u16_at(record, 20) as usize == record.len()
    };
    let at = (0..(tail.len() + 1).saturating_sub(END_BYTES)).rev().find(is_end).ok_or_else(|| {
        rejected(file, format!("truncated: no end of the zip archive in its last {tail_bytes} of {} bytes", file.len))
            .hint("download or copy the file again")
    })?;
    let record = tail.get(at..).unwrap_or_default();
    let end = End {
        offset: tail_offset + at as u64,
        n_entries: u64::from(u16_at(record, 10)),
        directory_bytes: u64::from(u32_at(record, 12)),
        directory_offset: u64::from(u32_at(record, 16)),
    };
    let Some(locator) = at.checked_sub(END64_LOCATOR_BYTES).and_then(|at| tail.get(at..)) else { return Ok(end) };
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(end);
    }
    let offset = u64_at(locator, 8);
    let mut record = [0; END64_BYTES];
    if offset.checked_add(END64_BYTES as u64).is_none_or(|record_end| record_end > end.offset) {
        return Err(rejected(file, format!("the zip64 end record at {offset} lies outside the file")));
    }
    file.read_at(offset, &mut record)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Err(rejected(file, format!("no zip64 end record at {offset}, where it should be")));
    }
    Ok(End {
        offset,
        n_entries: u64_at(&record, 32),
        directory_bytes: u64_at(&record, 40),
        directory_offset: u64_at(&record, 48),
    })
}

/// Takes one entry from the front of the directory.
fn parse_entry(rest: &mut &[u8]) -> Result<(String, Entry), String> {
    const HUGE: u64 = u32::MAX as u64;
    let fixed = rest.get(..DIRECTORY_ENTRY_BYTES).ok_or("ends before its last entry")?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return Err("an entry does not begin like one".into());
    }
    let (flags, method) = (u16_at(fixed, 8), u16_at(fixed, 10));
    let [name_bytes, extra_bytes, comment_bytes] = [28, 30, 32].map(|at| u16_at(fixed, at) as usize);
    let variable = rest.get(DIRECTORY_ENTRY_BYTES..).unwrap_or_default();
    let all = name_bytes + extra_bytes + comment_bytes;
    let (variable, behind) = variable.split_at_checked(all).ok_or("ends before its last entry")?;
    let (name, variable) = variable.split_at_checked(name_bytes).unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| "a name is not UTF-8")?.to_owned();

    let mut n_bytes = u64::from(u32_at(fixed, 24));
    let mut stored_bytes = u64::from(u32_at(fixed, 20));
    let mut header_offset = u64::from(u32_at(fixed, 42));
    let mut wide = zip64_fields(variable.get(..extra_bytes).unwrap_or_default());
    for field in [&mut n_bytes, &mut stored_bytes, &mut header_offset] {
        if *field == HUGE {
            let (value, after) =
                wide.split_first_chunk().ok_or_else(|| format!("{}: its size is missing", shown(&name)))?;
            (*field, wide) = (u64::from_le_bytes(*value), after);
        }
    }
    if flags & 1 != 0 {
        return Err(format!("{}: is encrypted", shown(&name)));
    }
    let compressed = match method {
        0 if n_bytes == stored_bytes => false,
        0 => return Err(format!("{}: stored {n_bytes} bytes in {stored_bytes}", shown(&name))),
        8 => true,
        other => {
            return Err(format!("{}: compression method {other}, expected 0 (stored) or 8 (deflate)", shown(&name)));
        }
    };
    *rest = behind;
    Ok((name, Entry { n_bytes, compressed, stored_bytes, crc32: u32_at(fixed, 16), header_offset }))
}

/// The 64-bit sizes among an entry's extra fields; empty where there are none.
fn zip64_fields(mut extra: &[u8]) -> &[u8] {
    while let Some((head, after)) = extra.split_first_chunk::<4>() {
        let length = u16_at(head, 2) as usize;
        let Some((field, behind)) = after.split_at_checked(length) else { break };
        if u16_at(head, 0) == 1 {
            return field;
        }
        extra = behind;
    }
    &[]
}

/// A range of a file as a stream, for the decompressor.
struct PositionedReader<'a> {
    file: &'a DataFile,
    at: u64,
    end: u64,
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = (self.end - self.at).min(out.len() as u64) as usize;
        self.file.read_at(self.at, out.get_mut(..n).unwrap_or_default()).map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// N bytes of a record; zeros past its end, which the callers' checks of its length keep them from.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::checkpoint::Budget;
    use crate::checkpoint::torch::write::forge;

    fn opened(bytes: &[u8], budget: &Budget) -> (tempfile::NamedTempFile, DataFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let opened = DataFile::open_within(file.path(), budget).unwrap();
        (file, opened)
    }

    /// A disk that fails in the middle of an entry fails the machine; it says nothing about the archive.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_failing_disk_is_not_a_damaged_archive() {
        // Nothing can be read at the start of a process's own memory.
        let broken = DataFile::open(std::path::Path::new("/proc/self/mem")).unwrap();
        let entry = PositionedReader { file: &broken, at: 0, end: 100 };
        let error = read_whole(entry, 100, &broken).unwrap_err().downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.message().starts_with("/proc/self/mem: reading 100 bytes at offset 0 failed"), "{error}");
        let entry = PositionedReader { file: &broken, at: 0, end: 100 };
        let error = read_whole(flate2::read::DeflateDecoder::new(entry), 100, &broken).unwrap_err();
        assert_eq!(error.downcast::<Error>().unwrap().kind(), ErrorKind::Failed);
    }

    #[test]
    fn entries_are_paid_for_before_they_are_read() {
        let bytes = forge(&[("a/data.pkl", &[7; 5000])]);
        let budget = Budget::new(8000);
        let (_file, file) = opened(&bytes, &budget);
        let archive = Archive::read(&file).unwrap();
        let (contents, charge) = archive.contents(&file, "a/data.pkl", "its pickle", 5000).unwrap();
        assert_eq!(contents, [7; 5000]);
        assert!(budget.left() < 3000, "{budget:?}");
        let error = archive.contents(&file, "a/data.pkl", "its pickle", 5000).unwrap_err();
        assert!(error.message().ends_with("for its pickle"), "{error}");
        drop((charge, archive));
        assert_eq!(budget.left(), budget.limit());
    }

    #[test]
    fn a_directory_of_many_names_is_paid_for() {
        let names: Vec<String> = (0..1000).map(|n| format!("m/{n}")).collect();
        let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let budget = Budget::new(100_000);
        let (_file, file) = opened(&forge(&entries), &budget);
        assert!(Archive::read(&file).unwrap_err().message().ends_with("for its zip directory"));
        assert_eq!(budget.left(), budget.limit());
    }

    #[test]
    fn inflating_stops_when_the_user_asks() {
        let budget = Budget::cancelled_by(1 << 20, || true);
        let (_file, file) = opened(&[0; 100], &budget);
        let entry = PositionedReader { file: &file, at: 0, end: 100 };
        let error = read_whole(entry, 100, &file).unwrap_err().downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
