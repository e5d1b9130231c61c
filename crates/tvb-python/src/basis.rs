//! An open basis: what it holds, and edits from it in memory.

use crate::matrices::{Packed, packed};
use crate::memory::{Memory, model};
use crate::work::work;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use tvb::arithmetic::{expression, find_task};
use tvb::jobs::edit::{Edit, Source, edit_work};
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place, edit_tensors, form};
use tvb::{Error, Result};
use tvb_cli::Setup;

/// A basis whose small files were read and checked.
#[pyclass(frozen, module = "tvb._tvb")]
pub(crate) struct Basis {
    inner: tvb::Basis,
}

/// An edit as Python says it.
#[derive(FromPyObject)]
pub(crate) enum Words {
    /// A linear expression in the tasks' names.
    Expression(String),
    /// Weights of tasks by their names.
    Weights(Vec<(String, f64)>),
}

/// Opens a basis folder.
#[pyfunction]
pub(crate) fn open(path: PathBuf, sink: &Bound<'_, PyAny>) -> PyResult<Basis> {
    Ok(Basis { inner: work(sink, |_| tvb::Basis::open(&path))? })
}

impl Basis {
    fn edit(&self, words: &Words, scale: f64) -> Result<Edit> {
        if !scale.is_finite() {
            return Err(Error::usage(format!("scale: a finite number expected, {scale} found")));
        }
        let names = self.inner.task_names();
        let alpha = match words {
            Words::Expression(text) => expression(&names, text)?,
            Words::Weights(weights) => {
                let mut alpha = vec![0.0; names.len()];
                for (name, weight) in weights {
                    if !weight.is_finite() {
                        return Err(Error::usage(format!("task {name}: a finite weight expected, {weight} found")));
                    }
                    if let Some(of_task) = alpha.get_mut(find_task(&names, name)?) {
                        *of_task = *weight;
                    }
                }
                alpha
            }
        };
        Ok(Edit::new(alpha, scale))
    }
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

    /// Names and shapes of the tensors that an edit has, and second names of some with their first.
    fn edit_tensors(&self, sink: &Bound<'_, PyAny>) -> PyResult<(Vec<(String, Vec<usize>)>, Vec<(String, String)>)> {
        let twins = &self.inner.manifest.fit.twins;
        let twins = twins.iter().map(|twin| (twin.name.clone(), twin.of.clone())).collect();
        Ok((work(sink, |_| edit_tensors(&self.inner))?, twins))
    }

    /// Weights over the tasks that these words mean, [n_tasks].
    fn weights(&self, words: Words, sink: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
        work(sink, |_| Ok(self.edit(&words, 1.0)?.alpha))
    }

    /// Forms an edit in the memory of `targets`.
    fn form(
        &self,
        words: Words,
        scale: f64,
        targets: Vec<Memory>,
        clip: bool,
        flags: Vec<OsString>,
        sink: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        work(sink, |heard| {
            let setup = Setup::parse(flags, heard.clone())?;
            let edit = self.edit(&words, scale)?;
            let targets = targets.into_iter().map(Memory::writable).collect::<Result<Vec<_>>>()?;
            let runtime = setup.runtime_for(|| Ok(edit_work(Source::Basis(&self.inner), None, 1, 1, None)))?;
            let options = InMemoryOptions::default().clip(clip);
            form(&self.inner, &edit, &targets, &options, &runtime, setup.progress()).map(drop)
        })
    }

    /// Adds an edit to a model in place; answers how many tensors were edited.
    fn apply(
        &self,
        words: Words,
        scale: f64,
        tensors: Vec<Memory>,
        clip: bool,
        flags: Vec<OsString>,
        sink: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        work(sink, |heard| {
            let setup = Setup::parse(flags, heard.clone())?;
            let (edit, model) = (self.edit(&words, scale)?, model(tensors)?);
            let source = Source::Basis(&self.inner);
            let runtime = setup.runtime_for(|| Ok(edit_work(source, Some(&model), 1, 1, None)))?;
            let options = InMemoryOptions::default().clip(clip);
            Ok(apply_in_place(&self.inner, &edit, &model, &options, &runtime, setup.progress())?.n_tensors)
        })
    }
}
