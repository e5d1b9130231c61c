//! Whether what was read while edits were formed is what a basis says of its atoms and its base.

use super::atoms::{coded, factors, plain};
use super::open::Basis;
use crate::checkpoint::Checkpoint;
use crate::digest::{Digest, fingerprint};
use crate::error::{Error, Result};
use crate::ops::decode::CodesRead;
use crate::ops::reconstruct::Read;

/// Checks what was read against what a basis says of its atoms and, where it knows, of its base.
///
/// # Errors
/// Rejected: a damaged atom, or another base.
pub fn check_read(read: &Read, basis: &Basis, base: Option<&Checkpoint>) -> Result<()> {
    let n_atoms = basis.manifest.atoms.len();
    let columns = if read.codes.is_empty() { read.columns.as_slice() } else { &[] };
    for (task, digests) in columns {
        let record = (0..n_atoms).find(|&index| plain::stem(index, n_atoms) == task.name);
        let Some(record) = record.and_then(|index| basis.manifest.atoms.get(index)) else { continue };
        if basis.manifest.factors.is_some() {
            let digest_of = |name: &str| digests.get(task.checkpoint.index_of(name)?).copied().flatten();
            let found = factors::checksum(&task.checkpoint, basis.stored_tensors(), digest_of)?;
            match found {
                Some(found) if found != record.checksum => return Err(damaged(&task.checkpoint)),
                _ => continue,
            }
        }
        let Some(digests) = digests.iter().copied().collect::<Option<Vec<Digest>>>() else { continue };
        if plain::checksum(&task.checkpoint, digests.into_iter())? != record.checksum {
            return Err(damaged(&task.checkpoint));
        }
    }
    if !read.codes.is_empty() {
        check_codes(read, basis)?;
    }
    let (Some(base), Some(expected)) = (base, basis.manifest.base.fingerprint) else { return Ok(()) };
    let found = base_fingerprint(read, base, basis)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::rejected(format!(
        "{}: another base expected, the one this basis was made from ({}): fingerprint {expected} expected, {found} found",
        base.path().display(),
        basis.manifest.base.source
    ))
    .hint("--force uses this base all the same"))
}

fn damaged(atom: &Checkpoint) -> Error {
    let path = atom.path().display();
    Error::rejected(format!("{path}: its checksum does not match: the atom was damaged"))
        .hint("make the basis again, or copy it again; `tvb verify` checks all of it")
}

/// The same for atoms that were read as codes; their few other tensors were read as columns.
fn check_codes(read: &Read, basis: &Basis) -> Result<()> {
    let tensors = basis.coded_tensors();
    for CodesRead { column, task, digests } in &read.codes {
        let raw = read.columns.iter().find(|(read, _)| read.name == task.name);
        let raw_digest = |name: &str| {
            let (task, digests) = raw?;
            digests.get(task.checkpoint.index_of(name)?).copied().flatten()
        };
        let digest_of = |name: &str| digests.get(name).copied().or_else(|| raw_digest(name));
        let found = coded::checksum(&task.checkpoint, &tensors, *column < basis.n_atoms(), digest_of)?;
        let record = basis.manifest.atoms.get(*column);
        if let (Some(found), Some(record)) = (found, record)
            && found != record.checksum
        {
            return Err(damaged(&task.checkpoint));
        }
    }
    Ok(())
}

fn base_fingerprint(read: &Read, base: &Checkpoint, basis: &Basis) -> Result<Digest> {
    let base = &basis.manifest.fit.seen(base)?;
    let took_part = basis.stored_tensors().iter().chain(&basis.manifest.frozen);
    let mut parts = Vec::new();
    for name in took_part {
        let (Some(tensor), Some(digest)) = (base.get(name), read.base.get(name)) else {
            return Err(Error::rejected(format!("{}: tensor {name} expected, none found", base.path().display())));
        };
        parts.push((name.as_str(), tensor.dtype, tensor.shape.as_slice(), *digest));
    }
    Ok(fingerprint(parts))
}
