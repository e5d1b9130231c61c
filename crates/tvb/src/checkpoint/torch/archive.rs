//! The container since PyTorch 1.6: a zip archive with the pickle in `STEM/data.pkl` and each storage in an entry
//! `STEM/data/KEY` of its own.

use super::contents::Contents;
use super::errors::{pickle_error, rejected};
use super::pickle;
use super::views::Location;
use super::zip::Archive;
use crate::checkpoint::limits::PICKLE_BYTES_MAX;
use crate::checkpoint::shown::shown;
use crate::checkpoint::{DataFile, HeldBytes};
use crate::error::Result;
use std::collections::HashMap;

/// Reads the pickle and finds the storages. Entries that no tensor refers to are ignored.
///
/// # Errors
/// Rejected when the archive is damaged, not PyTorch's, or of a kind that is not supported.
pub(super) fn read(file: &DataFile) -> Result<Contents> {
    let archive = Archive::read(file)?;
    let stem = find_stem(file, &archive)?;
    check_kind(file, &archive, &stem)?;
    check_byte_order(file, &archive, &stem)?;

    let (pickle, pickle_charge) = archive.contents(file, &format!("{stem}data.pkl"), "its pickle", PICKLE_BYTES_MAX)?;
    let (charge, stack_charge) = (file.account("the values of its pickle"), file.account("its pickle's stack"));
    let (values, _) = pickle::run(&pickle, charge, stack_charge).map_err(|error| pickle_error(file, error))?;
    drop((pickle, pickle_charge));

    let mut held_bytes = 0;
    let mut ranges = Vec::new();
    let mut by_key: HashMap<&str, Result<Location, String>> = HashMap::new();
    for storage in &values.storages {
        if by_key.contains_key(&*storage.key) {
            continue;
        }
        file.budget().check()?;
        let name = format!("{stem}data/{}", storage.key);
        let location = match archive.entry(&name) {
            None => Err(format!("storage {} is missing in the archive", shown(&storage.key))),
            Some(entry) => {
                let offset = archive.locate(file, &name, entry)?;
                ranges.push((offset, entry.stored_bytes, name.clone()));
                Ok(match entry.compressed {
                    false => Location::InFile { offset, n_bytes: entry.n_bytes },
                    true => {
                        let held = archive.contents(file, &name, "its compressed tensors", u64::MAX - 1);
                        let (bytes, charge) = held.map_err(|error| match error.hint_text() {
                            Some(_) => error,
                            None => {
                                error.hint("torch.save stores tensors as they are, which need not be held in memory")
                            }
                        })?;
                        held_bytes += bytes.len() as u64;
                        Location::Held(HeldBytes::new(bytes, charge))
                    }
                })
            }
        };
        by_key.insert(&storage.key, location);
    }
    check_overlap(file, ranges)?;
    let no_location = || Err("a storage without a place in the archive".into());
    let location = |key: &str| by_key.get(key).cloned().unwrap_or_else(no_location);
    let locations = values.storages.iter().map(|storage| location(&storage.key)).collect();
    Ok(Contents { values, locations, held_bytes })
}

/// The folder inside the archive that everything lies in, with its slash; empty where there is none.
fn find_stem(file: &DataFile, archive: &Archive) -> Result<String> {
    let stems: Vec<&str> = archive
        .names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|stem| stem.is_empty() || stem.ends_with('/'))
        .collect();
    match stems[..] {
        [stem] => Ok(stem.to_owned()),
        [] => Err(rejected(file, "a zip archive without data.pkl, not a file that torch.save wrote")),
        _ => Err(rejected(file, format!("a zip archive with {} entries data.pkl, expected one", stems.len()))),
    }
}

/// TorchScript archives hold programs besides tensors.
fn check_kind(file: &DataFile, archive: &Archive, stem: &str) -> Result<()> {
    let code = format!("{stem}code/");
    if archive.entry(&format!("{stem}constants.pkl")).is_some() || archive.names().any(|name| name.starts_with(&code)) {
        return Err(rejected(file, "a TorchScript archive, which is not supported")
            .hint("save the model's state dict: torch.save(model.state_dict(), \"model.pt\")"));
    }
    Ok(())
}

fn check_byte_order(file: &DataFile, archive: &Archive, stem: &str) -> Result<()> {
    let name = format!("{stem}byteorder");
    if archive.entry(&name).is_none() {
        // Before PyTorch 2.1 nothing was said, and in practice everything was little-endian.
        return Ok(());
    }
    let (order, _charge) = archive.contents(file, &name, "its byte order", 64)?;
    match order.trim_ascii() {
        b"little" => Ok(()),
        b"big" => Err(rejected(file, "big-endian tensors, which are not supported")
            .hint("save the file again on a little-endian machine")),
        other => {
            let found = shown(&String::from_utf8_lossy(other));
            Err(rejected(file, format!("byteorder: expected `little`, found {found}")))
        }
    }
}

/// Storages that share bytes without being one would be a forgery.
fn check_overlap(file: &DataFile, mut ranges: Vec<(u64, u64, String)>) -> Result<()> {
    ranges.sort();
    for ((offset, n_bytes, name), (next_offset, _, next_name)) in ranges.iter().zip(ranges.iter().skip(1)) {
        if offset.checked_add(*n_bytes).is_none_or(|end| end > *next_offset) {
            return Err(rejected(file, format!("zip entries {} and {} overlap", shown(name), shown(next_name))));
        }
    }
    Ok(())
}
