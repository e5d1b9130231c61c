//! A tensor's values as f32, for those that are small or read a piece at a time.

use crate::checkpoint::{Checkpoint, Tensor, f32s, f64s, shown};
use crate::error::{Error, Result};

/// The values of a float tensor.
pub(super) fn read(file: &Checkpoint, tensor: &Tensor) -> Result<Vec<f32>> {
    read_part(file, tensor, 0, tensor.n_elements() as u64)
}

/// Elements `first..end` of a float tensor. Those of f64 are rounded to f32, the others are exact in it.
pub(super) fn read_part(file: &Checkpoint, tensor: &Tensor, first: u64, end: u64) -> Result<Vec<f32>> {
    let bytes = bytes(file, tensor, first, end)?;
    f32s(&bytes, tensor.dtype).ok_or_else(|| no_float(file, tensor))
}

/// The same in f64.
pub(super) fn read_part_f64(file: &Checkpoint, tensor: &Tensor, first: u64, end: u64) -> Result<Vec<f64>> {
    let bytes = bytes(file, tensor, first, end)?;
    f64s(&bytes, tensor.dtype).ok_or_else(|| no_float(file, tensor))
}

fn bytes(file: &Checkpoint, tensor: &Tensor, first: u64, end: u64) -> Result<Vec<u8>> {
    let size = tensor.dtype.size() as u64;
    let n_bytes = end.saturating_sub(first).saturating_mul(size);
    // Twice for the values, which are made beside them and may be wider.
    let _charge = file.budget().charge(file.path(), "the factors of an adapter", n_bytes.saturating_mul(3))?;
    let mut bytes = vec![0; n_bytes as usize];
    file.read(tensor, first * size, &mut bytes)?;
    Ok(bytes)
}

fn no_float(file: &Checkpoint, tensor: &Tensor) -> Error {
    let (path, name) = (file.path().display(), shown(&tensor.name));
    Error::rejected(format!("{path}: tensor {name}: a float type expected, {} found", tensor.dtype))
}
