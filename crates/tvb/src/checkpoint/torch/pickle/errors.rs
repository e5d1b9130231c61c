//! Why a pickle could not be read.

/// Why a pickle could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checkpoint::torch) enum PickleError {
    /// The bytes end before the pickle does.
    Truncated,
    /// One line: what is wrong and where.
    Malformed(String),
}

/// The result of one step of the machine.
pub(super) type Step<T> = Result<T, PickleError>;

/// A step that fails because of `why`, one line.
pub(super) fn malformed<T>(why: impl Into<String>) -> Step<T> {
    Err(PickleError::Malformed(why.into()))
}
