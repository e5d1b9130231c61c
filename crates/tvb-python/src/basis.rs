//! An open basis.

use crate::matrices::{Packed, packed};
use crate::work::work;
use pyo3::prelude::*;
use std::path::PathBuf;

/// A basis whose small files were read and checked.
#[pyclass(frozen, module = "tvb._tvb")]
pub(crate) struct Basis {
    inner: tvb::Basis,
}

impl Basis {
    pub(crate) fn new(inner: tvb::Basis) -> Basis {
        Basis { inner }
    }
}

/// Opens a basis folder.
#[pyfunction]
pub(crate) fn open(path: PathBuf, sink: &Bound<'_, PyAny>) -> PyResult<Basis> {
    work(sink, |_| tvb::Basis::open(&path)).map(Basis::new)
}

#[pymethods]
impl Basis {
    /// The folder.
    fn path(&self) -> PathBuf {
        self.inner.folder.clone()
    }

    /// The tasks' names, in column order.
    fn tasks(&self) -> Vec<String> {
        self.inner.task_names()
    }

    /// `basis.json` as text.
    fn manifest(&self) -> PyResult<String> {
        serde_json::to_string(&self.inner.manifest)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// The Gram matrix of all tensors together, where it is known.
    fn gram<'py>(&self, py: Python<'py>) -> Option<Packed<'py>> {
        self.inner.total_gram().map(|gram| packed(py, &gram))
    }

    /// B and W; B has no rows where it is unknown.
    fn coefficients<'py>(&self, py: Python<'py>) -> (Packed<'py>, Packed<'py>) {
        let stored = &self.inner.coefficients;
        (packed(py, &stored.encode), packed(py, &stored.decode))
    }

    /// What it is, in a line.
    fn in_words(&self) -> String {
        self.inner.in_words()
    }
}
