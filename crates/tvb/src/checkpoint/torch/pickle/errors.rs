//! Why a pickle could not be read.

use crate::error::Error;

/// Why a pickle could not be read.
#[derive(Debug)]
pub(in crate::checkpoint::torch) enum PickleError {
    /// The bytes end before the pickle does.
    Truncated,
    /// One line: what is wrong and where.
    Malformed(String),
    /// Too little memory for what it makes, or the user asked to stop.
    Stop(Box<Error>),
}

impl From<Error> for PickleError {
    fn from(error: Error) -> PickleError {
        PickleError::Stop(Box::new(error))
    }
}

/// The result of one step of the machine.
pub(super) type Step<T> = Result<T, PickleError>;

/// A step that fails because of `why`, one line.
pub(super) fn malformed<T>(why: impl Into<String>) -> Step<T> {
    Err(PickleError::Malformed(why.into()))
}
