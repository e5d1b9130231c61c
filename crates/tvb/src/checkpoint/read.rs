//! A tensor's bytes, wherever they are: in one piece, scattered over the file, or in memory.

use super::gather::{self, View};
use super::shown::shown;
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
    match &tensor.place {
        Place::Contiguous { file, offset } => files[*file].read_at(offset + byte_offset, out),
        Place::Strided { file, offset, strides } => {
            let view = View { offset: *offset, shape: &tensor.shape, strides, size: tensor.dtype.size() };
            gather::gather(view, byte_offset, out, &mut |at, bytes| files[*file].read_at(at, bytes))
        }
        Place::Held(bytes) => {
            let begin = byte_offset as usize;
            out.copy_from_slice(&bytes[begin..begin + out.len()]);
            Ok(())
        }
    }
}
