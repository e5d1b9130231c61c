//! Commands by their words: in this process with an answer, or as the program itself.

use crate::memory::{Models, given};
use crate::work::work;
use pyo3::prelude::*;
use std::ffi::OsString;
use tvb::columns::tasks;
use tvb_cli::Invocation;

/// Runs one command in this process; answers what it prints with `--json`. `models` are state dicts in memory and what the words call
/// them in place of a path.
#[pyfunction]
pub(crate) fn answer(words: Vec<OsString>, models: Models, sink: &Bound<'_, PyAny>) -> PyResult<String> {
    work(sink, |heard| Ok(Invocation::parse(words, given(models)?, heard.clone())?.run()?.to_string()))
}

/// Whether a task can be called that.
#[pyfunction]
pub(crate) fn check_name(py: Python<'_>, name: &str) -> PyResult<()> {
    tasks::check_name(name).map_err(|error| crate::errors::exception(py, &error))
}

/// The program itself on the process's terminal and signals; the program's name is the first word. Answers the exit code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| tvb_cli::run(words))
}

/// The variable that keeps a driver from talking on stderr, and its value.
#[pyfunction]
pub(crate) fn quiet_driver() -> Option<(&'static str, &'static str)> {
    tvb_cli::quiet_driver()
}
