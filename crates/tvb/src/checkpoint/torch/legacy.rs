//! The container before PyTorch 1.6: five pickles in a row (magic number, version, machine, the object, the keys of
//! its storages), then the storages, each after its number of elements.

use super::contents::Contents;
use super::errors::{pickle_error, rejected};
use super::pickle::{self, Node, PickleError, Values};
use super::views::Location;
use crate::checkpoint::limits::PICKLE_BYTES_MAX;
use crate::checkpoint::shown::shown;
use crate::checkpoint::{Charge, DataFile};
use crate::error::Result;
use std::collections::HashMap;

/// 0x1950a86a20f9469cfc6c, which is longer than any integer here, as the pickle writes it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;
const COUNT_BYTES: u64 = 8;

/// Reads the pickles and finds the storages.
///
/// # Errors
/// Rejected when the file is another pickle, damaged, or from a big-endian machine.
pub(super) fn read(file: &DataFile) -> Result<Contents> {
    let mut pickles = Pickles { file, bytes: Vec::new(), at: 0, charge: file.account("its pickles") };
    let magic = pickles.next()?;
    if *magic.node(magic.root) != Node::Bytes(MAGIC.into()) {
        return Err(rejected(file, "a plain pickle, expected a file that torch.save wrote")
            .hint("load it in Python and save it with torch.save"));
    }
    let version = pickles.next()?;
    if *version.node(version.root) != Node::Int(VERSION) {
        return Err(rejected(file, format!("unknown version of the container, expected {VERSION}")));
    }
    let machine = pickles.next()?;
    let little = machine.get(machine.root, "little_endian").map(|id| machine.node(id));
    if little == Some(&Node::Bool(false)) {
        return Err(rejected(file, "big-endian tensors, which are not supported")
            .hint("save the file again on a little-endian machine"));
    }
    let values = pickles.next()?;
    let keys = pickles.next()?;
    let Some(key_ids) = keys.items(keys.root) else {
        return Err(rejected(file, "expected a list of storages after the pickles"));
    };

    // The element size of each storage stands in the object's pickle only.
    let n_bytes_of: HashMap<&str, u64> =
        values.storages.iter().filter_map(|storage| Some((&*storage.key, storage.n_bytes()?))).collect();
    let counts: HashMap<&str, u64> =
        values.storages.iter().map(|storage| (&*storage.key, storage.n_elements)).collect();
    let mut found: HashMap<&str, Location> = HashMap::new();
    let mut at = pickles.at;
    for &id in key_ids {
        file.budget().check()?;
        let key = keys.str(id).unwrap_or_default();
        let (Some(&n_bytes), Some(&expected)) = (n_bytes_of.get(key), counts.get(key)) else {
            return Err(rejected(file, format!("storage {} has no type or length", shown(key))));
        };
        let end = at.checked_add(COUNT_BYTES).and_then(|begin| begin.checked_add(n_bytes));
        if end.is_none_or(|end| end > file.len) {
            let rest = file.len.saturating_sub(at);
            let what = format!("truncated: expected storage {} of {n_bytes} bytes, found {rest}", shown(key));
            return Err(rejected(file, what).hint("download or copy the file again"));
        }
        let mut count = [0; COUNT_BYTES as usize];
        file.read_at(at, &mut count)?;
        if u64::from_le_bytes(count) != expected {
            let count = u64::from_le_bytes(count);
            return Err(rejected(file, format!("storage {}: expected {expected} elements, found {count}", shown(key))));
        }
        found.insert(key, Location::InFile { offset: at + COUNT_BYTES, n_bytes });
        at += COUNT_BYTES + n_bytes;
    }
    let locations = values
        .storages
        .iter()
        .map(|storage| match found.get(&*storage.key) {
            Some(location) => Ok(location.clone()),
            None => Err(format!("storage {} is missing in the file", shown(&storage.key))),
        })
        .collect();
    Ok(Contents { values, locations, held_bytes: 0 })
}

/// The pickles at the front of a file, whose lengths nothing says.
struct Pickles<'a> {
    file: &'a DataFile,
    /// The file's first bytes, more of them when a pickle does not end in what is there.
    bytes: Vec<u8>,
    at: u64,
    /// For `bytes`.
    charge: Charge,
}

impl Pickles<'_> {
    fn next(&mut self) -> Result<Values> {
        const FIRST_BYTES: u64 = 1 << 18;
        loop {
            let charge = self.file.account("the values of its pickles");
            let stack_charge = self.file.account("its pickles' stack");
            match pickle::run(self.bytes.get(self.at as usize..).unwrap_or_default(), charge, stack_charge) {
                Ok((values, n_bytes)) => {
                    self.at += n_bytes as u64;
                    return Ok(values);
                }
                Err(PickleError::Truncated) if (self.bytes.len() as u64) < self.file.len.min(PICKLE_BYTES_MAX) => {
                    let wanted = (self.bytes.len() as u64 * 8).max(FIRST_BYTES);
                    let wanted = wanted.min(self.file.len).min(PICKLE_BYTES_MAX);
                    self.charge.raise_to(wanted)?;
                    self.bytes.resize(wanted as usize, 0);
                    self.file.read_at(0, &mut self.bytes)?;
                }
                Err(error) => return Err(pickle_error(self.file, error)),
            }
        }
    }
}
