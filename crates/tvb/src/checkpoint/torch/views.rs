//! From a tensor that a pickle describes to the bytes it means: storage, offset and strides, all checked.

use super::errors::Fault;
use super::pickle::{RawTensor, StorageKind, StorageRef};
use crate::checkpoint::gather::{self, View};
use crate::checkpoint::limits::{REPEATED_BYTES_MAX, SHARED_TIMES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::tensor::checked_bytes;
use crate::checkpoint::{DataFile, Dtype, HeldBytes, Place, Tensor};

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
    Held(HeldBytes),
}

impl Location {
    /// Bytes that are there.
    fn n_bytes(&self) -> u64 {
        match self {
            Location::InFile { n_bytes, .. } => *n_bytes,
            Location::Held(bytes) => bytes.len() as u64,
        }
    }
}

/// The place of a tensor in `file`, which is file number 0. What has to be rearranged in memory is charged to it.
///
/// # Errors
/// Why the tensor cannot be read: an unknown type, a storage that is too short, a view outside its storage.
pub(super) fn place(
    raw: &RawTensor,
    storage: &StorageRef,
    location: &Location,
    file: &DataFile,
) -> Result<Place, Fault> {
    let key = || shown(&storage.key);
    let storage_bytes = match (&storage.kind, storage.n_bytes()) {
        (StorageKind::Unknown(name), _) => {
            return Err(format!("a tensor in {}, which is not supported", shown(name)).into());
        }
        (_, None) => return Err(format!("storage {} has {} elements, more than any", key(), storage.n_elements).into()),
        (_, Some(n_bytes)) => n_bytes,
    };
    let found = location.n_bytes();
    if found < storage_bytes {
        return Err(format!("storage {}: expected {storage_bytes} bytes, found {found}", key()).into());
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
        Location::Held(bytes) if contiguous => match bytes.part(skip, n_bytes) {
            Some(part) => Ok(Place::Held(part)),
            None => Err(format!("storage {}: expected {n_bytes} bytes at {skip}, found fewer", key()).into()),
        },
        Location::Held(bytes) => {
            let charge = file.charge("its rearranged tensors", n_bytes)?;
            let mut out = vec![0; n_bytes as usize];
            let view = View { offset: skip, shape: &raw.shape, strides: &raw.strides, size: raw.dtype.size() };
            gather::gather(view, 0, &mut out, &mut |at, piece| {
                let found = bytes.get(at as usize..).and_then(|rest| rest.get(..piece.len()));
                piece.copy_from_slice(found.ok_or_else(|| crate::Error::failed("a tensor reaches past its storage"))?);
                file.budget().check()
            })?;
            Ok(Place::Held(HeldBytes::new(out, charge)))
        }
    }
}

/// Tensors may share a storage and repeat its elements, but all of them together are not out of all proportion to the
/// `storage_bytes` that there are: whoever works on them goes through every element.
///
/// # Errors
/// That they are.
pub(crate) fn check_total(storage_bytes: u64, tensors: &[Tensor]) -> Result<(), String> {
    let most = storage_bytes.saturating_mul(SHARED_TIMES_MAX).saturating_add(REPEATED_BYTES_MAX);
    let total = tensors.iter().fold(0u64, |total, tensor| total.saturating_add(tensor.n_bytes()));
    if total > most {
        return Err(format!(
            "{} tensors of {total} bytes share the same {storage_bytes}, expected at most {most}",
            tensors.len()
        ));
    }
    Ok(())
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
