//! The bytes of a pickle, read from the front.

use super::errors::{PickleError, Step, malformed};

pub(super) struct Input<'a> {
    bytes: &'a [u8],
    /// Bytes that have been read.
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, length: u64) -> Step<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(PickleError::Truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    // Integers, little-endian.

    pub(super) fn u8(&mut self) -> Step<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Step<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Step<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Step<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Text up to the end of its line.
    pub(super) fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated)?;
        self.at += length + 1;
        let line = std::str::from_utf8(rest.get(..length).unwrap_or_default())
            .or_else(|_| malformed("a line that is not UTF-8"))?;
        Ok(line.strip_suffix('\r').unwrap_or(line))
    }

    /// A memo index in text form.
    pub(super) fn index_line(&mut self) -> Step<u32> {
        self.line()?.parse().or_else(|_| malformed("a memo index that is no number"))
    }
}
