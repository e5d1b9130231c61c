//! From a tensor that a pickle describes to the bytes it means: storage, offset and strides, all checked.

use super::pickle::{RawTensor, StorageKind, StorageRef};
use crate::checkpoint::gather::{self, View};
use crate::checkpoint::limits::{HELD_BYTES_MAX, REPEATED_BYTES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::tensor::checked_bytes;
use crate::checkpoint::{Dtype, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a storage lies.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// In the file as it is.
    InFile {
        /// Bytes from the file's start.
        offset: u64,
        /// Bytes that are there.
        n_bytes: u64,
    },
    /// Decompressed in memory.
    Held(Arc<Vec<u8>>),
}

impl Location {
    /// Bytes that are there.
    fn n_bytes(&self) -> u64 {
        match self {
            Location::InFile { n_bytes, .. } => *n_bytes,
            Location::Held(bytes) => bytes.len() as u64,
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn held_bytes(&self) -> u64 {
        match self {
            Location::InFile { .. } => 0,
            Location::Held(bytes) => bytes.len() as u64,
        }
    }
}

/// The place of a tensor in file number 0. `held_bytes` counts what all of a file's tensors keep in memory.
///
/// # Errors
/// Why the tensor cannot be read: an unknown type, a storage that is too short, a view outside its storage.
pub(super) fn place(
    raw: &RawTensor,
    storage: &StorageRef,
    location: &Location,
    held_bytes: &AtomicU64,
) -> Result<Place, String> {
    let key = || shown(&storage.key);
    let storage_bytes = match (&storage.kind, storage.n_bytes()) {
        (StorageKind::Unknown(name), _) => return Err(format!("a tensor in {}, which is not supported", shown(name))),
        (_, None) => return Err(format!("storage {} has {} elements, more than any", key(), storage.n_elements)),
        (_, Some(n_bytes)) => n_bytes,
    };
    let found = location.n_bytes();
    if found < storage_bytes {
        return Err(format!("storage {}: expected {storage_bytes} bytes, found {found}", key()));
    }
    let n_bytes = check_view(raw.dtype, raw.offset, &raw.shape, &raw.strides, storage_bytes)
        .map_err(|why| format!("{why} (storage {})", key()))?;

    // Behind its last element a storage has no place for the offset of an empty tensor; any place does.
    let skip = if n_bytes == 0 { 0 } else { raw.offset * size_of_element(raw.dtype) };
    let contiguous = is_contiguous(&raw.shape, &raw.strides);
    match location {
        Location::InFile { offset, .. } if contiguous => Ok(Place::Contiguous { file: 0, offset: offset + skip }),
        Location::InFile { offset, .. } => {
            Ok(Place::Strided { file: 0, offset: offset + skip, strides: raw.strides.clone() })
        }
        Location::Held(bytes) if contiguous && skip == 0 && n_bytes == bytes.len() as u64 => {
            Ok(Place::Held(Arc::clone(bytes)))
        }
        Location::Held(bytes) => {
            if held_bytes.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes > HELD_BYTES_MAX {
                return Err(format!("compressed tensors take more than {HELD_BYTES_MAX} bytes of memory"));
            }
            let mut out = vec![0; n_bytes as usize];
            let view = View { offset: skip, shape: &raw.shape, strides: &raw.strides, size: raw.dtype.size() };
            let copied = gather::gather(view, 0, &mut out, &mut |at, piece| {
                piece.copy_from_slice(&bytes[at as usize..at as usize + piece.len()]);
                Ok(())
            });
            copied.map_err(|error| error.to_string())?;
            Ok(Place::Held(Arc::new(out)))
        }
    }
}

/// The bytes of a view, every element of which lies in a storage of `storage_bytes`. `offset` counts elements.
///
/// # Errors
/// Where it leaves its storage, or repeats it into something absurd.
pub(super) fn check_view(
    dtype: Dtype,
    offset: u64,
    shape: &[usize],
    strides: &[usize],
    storage_bytes: u64,
) -> Result<u64, String> {
    let n_bytes = checked_bytes(dtype, shape)?;
    if n_bytes == 0 {
        return Ok(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(offset, |at, (&n, &step)| at.checked_add((n as u64 - 1).checked_mul(step as u64)?));
    let n_elements = storage_bytes / size_of_element(dtype);
    if last.is_none_or(|last| last >= n_elements) {
        return Err(format!(
            "shape {shape:?} with strides {strides:?} from element {offset} on leaves its storage of {n_elements} elements"
        ));
    }
    if n_bytes > storage_bytes && n_bytes > REPEATED_BYTES_MAX {
        return Err(format!("shape {shape:?} repeats a storage of {n_elements} elements into {n_bytes} bytes"));
    }
    Ok(n_bytes)
}

fn size_of_element(dtype: Dtype) -> u64 {
    dtype.size() as u64
}

/// Whether the elements lie row-major without gaps. Strides of dimensions of one element mean nothing.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&n, &step)| {
        let fits = n == 1 || step == expected;
        expected *= n;
        fits
    })
}
