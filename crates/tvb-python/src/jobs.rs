//! Jobs: their options are the words of the command, read by its own parser, so that they mean and refuse the same.

use crate::basis::Basis;
use crate::inputs::{Input, Inputs, NamedInput};
use crate::work::{Heard, work};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use tvb::Result;
use tvb::jobs::compress::compress_work;
use tvb::jobs::gram::{gram_work, make_gram_file};
use tvb_cli::Invocation;

/// A command of inputs that Python names: for its parser they have a name like any, which nothing opens.
fn invocation(command: &str, output: &PathBuf, flags: Vec<OsString>, heard: &Arc<Heard>) -> Result<Invocation> {
    let mut words: Vec<OsString> = [command, "--base", "base", "task", "--output"].map(OsString::from).into();
    words.push(output.into());
    words.extend(flags);
    Invocation::parse(words, heard.clone())
}

/// Compresses tasks into the basis folder `output`.
#[pyfunction]
pub(crate) fn compress(
    base: Input,
    tasks: Vec<NamedInput>,
    output: PathBuf,
    flags: Vec<OsString>,
    sink: &Bound<'_, PyAny>,
) -> PyResult<Basis> {
    let made = work(sink, |heard| {
        let asked = invocation("compress", &output, flags, heard)?;
        let plan = Inputs { base, tasks }.plan(asked.open_options(), asked.selection()?, asked.progress())?;
        let options = asked.compress_options(&plan)?;
        let runtime = asked.runtime_for(|| Ok(compress_work(&plan, &options)))?;
        tvb::compress(&plan, &options, &runtime, asked.progress())
    })?;
    Ok(Basis::new(made.basis))
}

/// Forms the Gram file `output`.
#[pyfunction]
pub(crate) fn gram(
    base: Input,
    tasks: Vec<NamedInput>,
    output: PathBuf,
    flags: Vec<OsString>,
    sink: &Bound<'_, PyAny>,
) -> PyResult<()> {
    work(sink, |heard| {
        let asked = invocation("gram", &output, flags, heard)?;
        let plan = Inputs { base, tasks }.plan(asked.open_options(), asked.selection()?, asked.progress())?;
        let runtime = asked.runtime_for(|| Ok(gram_work(&plan)))?;
        make_gram_file(&plan, &output, asked.existing(), &runtime, asked.progress()).map(drop)
    })
}

/// Runs one command in this process; answers what it prints with `--json`.
#[pyfunction]
pub(crate) fn answer(words: Vec<OsString>, sink: &Bound<'_, PyAny>) -> PyResult<String> {
    work(sink, |heard| Ok(Invocation::parse(words, heard.clone())?.run()?.to_string()))
}

/// The command itself on the process's signals and terminal; the program's name is the first word. Answers the exit code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| tvb_cli::run(words))
}

/// The variable that keeps a driver from talking on stderr, and its value.
#[pyfunction]
pub(crate) fn quiet_driver() -> Option<(&'static str, &'static str)> {
    tvb_cli::quiet_driver()
}
