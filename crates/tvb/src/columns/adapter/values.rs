//! A tensor's values as f32, for those that are small or read a piece at a time.

use crate::checkpoint::{Checkpoint, Dtype, Tensor, shown};
use crate::error::{Error, Result};

/// The values of a float tensor.
pub(super) fn read(file: &Checkpoint, tensor: &Tensor) -> Result<Vec<f32>> {
    read_part(file, tensor, 0, tensor.n_elements() as u64)
}

/// Elements `first..end` of a float tensor. Those of f64 are rounded to f32, the others are exact in it.
pub(super) fn read_part(file: &Checkpoint, tensor: &Tensor, first: u64, end: u64) -> Result<Vec<f32>> {
    let size = tensor.dtype.size() as u64;
    let n = end.saturating_sub(first);
    let _charge = file.budget().charge(file.path(), "the factors of an adapter", n.saturating_mul(size + 4))?;
    let mut bytes = vec![0; (n * size) as usize];
    file.read(tensor, first * size, &mut bytes)?;
    let two = |b: &[u8]| u16::from_le_bytes(b.try_into().unwrap_or_default());
    Ok(match tensor.dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_bits(two(b)).to_f32()).collect(),
        Dtype::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_bits(two(b)).to_f32()).collect(),
        other => {
            let (path, name) = (file.path().display(), shown(&tensor.name));
            return Err(Error::rejected(format!("{path}: tensor {name}: a float type expected, {other} found")));
        }
    })
}
