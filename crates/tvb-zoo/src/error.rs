//! One error type: a one-line message, and whether the machine, the request or an input is to blame.
//!
//! The kinds and exit codes are those of the `tvb` binary, so that a sweep can tell them apart.

use std::fmt;
use std::path::Path;

/// Whose fault an error is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// I/O or arithmetic let us down. Exit code 1.
    Failed,
    /// The request names something that does not exist. Exit code 2.
    Usage,
    /// A checkpoint is malformed or does not fit the model. Exit code 3.
    Rejected,
}

/// An error of the zoo: a kind and a one-line message.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The zoo's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// I/O or arithmetic let us down (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into() }
    }

    /// The request names something that does not exist (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into() }
    }

    /// A checkpoint is malformed or does not fit the model (exit code 3).
    pub fn rejected(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Rejected, message: message.into() }
    }

    /// An operating-system error on `path` while doing `what` ("reading", "writing").
    pub fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::failed(format!("{}: {what} failed: {error}", path.display()))
    }

    /// Puts `context: ` before the message, for a caller that knows which file it was.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The binary's exit code: 1, 2 or 3.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Rejected => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
