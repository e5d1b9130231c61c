//! Errors that name the PyTorch file they are about.

use super::pickle::PickleError;
use crate::checkpoint::DataFile;
use crate::error::Error;

/// A file that is malformed, or of a kind that is not supported.
pub(super) fn rejected(file: &DataFile, message: impl std::fmt::Display) -> Error {
    Error::rejected(format!("{}: {message}", file.path.display()))
}

/// A pickle's error as one of its file.
pub(super) fn pickle_error(file: &DataFile, error: PickleError) -> Error {
    match error {
        PickleError::Truncated => rejected(file, "truncated: the pickle ends before its last opcode"),
        PickleError::Malformed(why) => rejected(file, format!("malformed pickle: {why}")),
    }
}
