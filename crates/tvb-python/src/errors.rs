//! Errors as exceptions: a class for each kind, with the message and the hint. The classes are Python's own (`tvb/_errors.py`).

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use tvb::{Error, ErrorKind};

/// The exception for an error.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error.kind() {
        ErrorKind::Failed => "FailedError",
        ErrorKind::Usage => "UsageError",
        ErrorKind::Rejected => "InputError",
        ErrorKind::Interrupted => return PyKeyboardInterrupt::new_err(()),
    };
    let made = || py.import("tvb._errors")?.getattr(class)?.call1((error.message(), error.hint_text()));
    match made() {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}

/// What a panic of a job's thread says: a bug of ours.
pub(crate) fn of_panic(payload: &(dyn std::any::Any + Send)) -> Error {
    let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
    Error::failed(format!("internal error: {}", what.unwrap_or("no message")))
        .hint(format!("this is a bug in {}; please report this line and the call", tvb::TOOL))
}
