//! A tensor's bytes, wherever they are: in one piece, scattered over the file, or in memory.

use super::gather::{self, View};
use super::rescaled::Rescaled;
use super::shown::shown;
use super::widen::f64s;
use super::{DataFile, Place, Tensor};
use crate::error::{Error, Result};

/// Fills `out` with the row-major bytes of `tensor`, one of the tensors in `files`, from `byte_offset` on.
///
/// # Errors
/// Failed where the system cannot read or the piece does not lie in the tensor; names the file, or the tensor.
pub(crate) fn read_tensor(files: &[DataFile], tensor: &Tensor, byte_offset: u64, out: &mut [u8]) -> Result<()> {
    let end = byte_offset.checked_add(out.len() as u64);
    if end.is_none_or(|end| end > tensor.n_bytes()) {
        return Err(Error::failed(format!(
            "tensor {}: asked for {} bytes at {byte_offset}, expected at most {}",
            shown(&tensor.name),
            out.len(),
            tensor.n_bytes()
        )));
    }
    let file = |file: usize| {
        files.get(file).ok_or_else(|| Error::failed(format!("tensor {}: in no open file", shown(&tensor.name))))
    };
    match &tensor.place {
        Place::Contiguous { file: number, offset } | Place::Difference { file: number, offset } => {
            file(*number)?.read_at(offset + byte_offset, out)
        }
        Place::Strided { file: number, offset, strides } => {
            let file = file(*number)?;
            let view = View { offset: *offset, shape: &tensor.shape, strides, size: tensor.dtype.size() };
            gather::gather(view, byte_offset, out, &mut |at, bytes| file.read_at(at, bytes))
        }
        Place::LowRank(factors) => {
            let n_elements = factors.n_rows() as u64 * factors.n_columns() as u64;
            if n_elements != tensor.n_elements() as u64 || !byte_offset.is_multiple_of(4) {
                return Err(Error::failed(format!("tensor {}: its factors are of another size", shown(&tensor.name))));
            }
            factors.read(byte_offset, out);
            Ok(())
        }
        Place::Rescaled { base, by } => read_rescaled(files, tensor, base, by, byte_offset, out),
        Place::Elsewhere { .. } => {
            let name = shown(&tensor.name);
            Err(Error::failed(format!("tensor {name}: it is known from a record only and cannot be read")))
        }
        Place::Zeros | Place::Unmoved => {
            out.fill(0);
            Ok(())
        }
        Place::Lent(bytes) => match bytes.read(byte_offset, out) {
            true => Ok(()),
            false => Err(Error::failed(format!("tensor {}: not all in memory", shown(&tensor.name)))),
        },
        Place::Held(bytes) => {
            let held = bytes.get(byte_offset as usize..).and_then(|rest| rest.get(..out.len()));
            let held =
                held.ok_or_else(|| Error::failed(format!("tensor {}: not all in memory", shown(&tensor.name))))?;
            out.copy_from_slice(held);
            Ok(())
        }
    }
}

/// The base's values are read a piece at a time.
fn read_rescaled(
    files: &[DataFile],
    tensor: &Tensor,
    base: &Tensor,
    by: &Rescaled,
    byte_offset: u64,
    out: &mut [u8],
) -> Result<()> {
    const PIECE: usize = 1 << 16;
    let is_whole = byte_offset.is_multiple_of(4) && out.len().is_multiple_of(4);
    let n = tensor.n_elements();
    if !is_whole || by.n_elements() != n || base.n_elements() != n || matches!(base.place, Place::Rescaled { .. }) {
        return Err(Error::failed(format!("tensor {}: its factors are of another size", shown(&tensor.name))));
    }
    let size = base.dtype.size();
    let mut first = (byte_offset / 4) as usize;
    let (mut bytes, mut values) = (vec![0; PIECE * size], vec![0.0; PIECE]);
    for out in out.chunks_mut(4 * PIECE) {
        let n = out.len() / 4;
        let bytes = bytes.get_mut(..n * size).unwrap_or_default();
        let values = values.get_mut(..n).unwrap_or_default();
        read_tensor(files, base, (first * size) as u64, bytes)?;
        let floats = f64s(bytes, base.dtype)
            .ok_or_else(|| Error::failed(format!("tensor {}: its base is no float", shown(&tensor.name))))?;
        by.form(first, &floats, values);
        for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *out = value.to_le_bytes();
        }
        first += n;
    }
    Ok(())
}
