//! Tensors that Python holds: their memory is read and written where it is.

use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor};
use tvb::{Error, Result};
use tvb_cli::Given;

/// What a checkpoint in memory is called in messages and records.
const LABEL: &str = "state dict in memory";

/// The memory of one tensor, as `Lent` of `tvb/_arrays.py` says it.
#[derive(FromPyObject)]
pub(crate) struct Memory {
    name: String,
    /// As safetensors spells it.
    dtype: String,
    shape: Vec<usize>,
    address: usize,
    n_bytes: usize,
    /// Keeps the memory alive.
    owner: Py<PyAny>,
}

/// Checkpoints in memory by the words that stand for them.
pub(crate) type Models = Vec<(PathBuf, Vec<Memory>)>;

impl Memory {
    fn dtype(&self) -> Result<Dtype> {
        Dtype::from_safetensors_name(&self.dtype)
            .ok_or_else(|| Error::rejected(format!("{LABEL}, tensor {}: unknown type {}", self.name, self.dtype)))
    }

    /// To be read.
    pub(crate) fn readable(self) -> Result<LentTensor> {
        let dtype = self.dtype()?;
        let Memory { name, shape, address, n_bytes, owner, .. } = self;
        // SAFETY: the package gives address and size of an array that `owner` holds, and keeps to arrays whose memory does not move.
        let bytes = unsafe { Lent::new(address as *const u8, n_bytes, Arc::new(owner)) };
        Ok(LentTensor { name, dtype, shape, bytes })
    }

    /// To be written.
    pub(crate) fn writable(self) -> Result<LentTensor> {
        let dtype = self.dtype()?;
        let Memory { name, shape, address, n_bytes, owner, .. } = self;
        // SAFETY: as above; the package gives arrays that may be written, and no reference to their bytes is held in Rust.
        let bytes = unsafe { Lent::writable(address as *mut u8, n_bytes, Arc::new(owner)) };
        Ok(LentTensor { name, dtype, shape, bytes })
    }
}

/// Every model as a checkpoint.
pub(crate) fn given(models: Models) -> Result<Given> {
    let checkpoint = |(word, tensors): (PathBuf, Vec<Memory>)| {
        let tensors = tensors.into_iter().map(Memory::readable).collect::<Result<_>>()?;
        Ok((word, Checkpoint::in_memory(LABEL, tensors)?))
    };
    Ok(Given::new(models.into_iter().map(checkpoint).collect::<Result<Vec<_>>>()?))
}

/// A model whose tensors may be written.
pub(crate) fn model(tensors: Vec<Memory>) -> Result<Checkpoint> {
    Checkpoint::in_memory(LABEL, tensors.into_iter().map(Memory::writable).collect::<Result<_>>()?)
}
