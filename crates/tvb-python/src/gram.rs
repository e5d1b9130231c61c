//! A Gram file.

use crate::matrices::{Packed, packed};
use crate::work::work;
use pyo3::prelude::*;
use std::path::PathBuf;
use tvb::Grams;
use tvb::basis::gram_file;

/// A Gram file that was read and checked.
#[pyclass(frozen, module = "tvb._tvb")]
pub(crate) struct Gram {
    inner: Grams,
}

/// Reads a Gram file.
#[pyfunction]
pub(crate) fn read_gram(path: PathBuf, sink: &Bound<'_, PyAny>) -> PyResult<Gram> {
    Ok(Gram { inner: work(sink, |_| gram_file::read(&path))? })
}

#[pymethods]
impl Gram {
    /// The tasks' names, in column order.
    fn tasks(&self) -> Vec<String> {
        self.inner.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// G, the sum over all tensors.
    fn matrix<'py>(&self, py: Python<'py>) -> Packed<'py> {
        packed(py, &self.inner.total())
    }

    /// Name, type, shape and whether it is frozen, of every tensor that took part.
    fn tensors(&self) -> Vec<(String, &'static str, Vec<usize>, bool)> {
        let tensors = self.inner.tensors.iter();
        tensors
            .map(|tensor| (tensor.name.clone(), tensor.dtype.safetensors_name(), tensor.shape.clone(), tensor.frozen))
            .collect()
    }
}
