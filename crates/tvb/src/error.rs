//! One error type for the whole library: what happened, what to do about it, and whose fault it is.
//!
//! A message is one line that names the file, the tensor and the task where there is one, and gives what was
//! expected and what was found. The hint, where there is something to do, is a second line. The kind decides the
//! exit code of the binary (see the README's table of exit codes).

use std::fmt;
use std::path::Path;

/// Whose fault an error is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The machine let us down: I/O, device, a child process. Exit code 1.
    Failed,
    /// The request makes no sense whatever the inputs hold. Exit code 2.
    Usage,
    /// An input is malformed or does not fit the others. Exit code 3.
    Rejected,
    /// The user asked to stop. Exit code 130.
    Interrupted,
}

impl ErrorKind {
    /// The binary's exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Rejected => 3,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// An error of the library: a kind, a one-line message and, where there is something to do, a hint.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The machine let us down (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// The request makes no sense (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// An input is malformed or does not fit (exit code 3).
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, message)
    }

    /// The user asked to stop (exit code 130).
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// An operating-system error on `path` while doing `what` ("reading", "writing").
    pub fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let made = Self::failed(format!("{}: {what} failed: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull => made.hint("free some space or choose an output on another disk"),
            std::io::ErrorKind::FileTooLarge => made.hint("raise the limit on file sizes with `ulimit -f unlimited`"),
            std::io::ErrorKind::PermissionDenied => made.hint("check the permissions of the file and its folder"),
            std::io::ErrorKind::NotFound => made.hint("check the path"),
            _ => made,
        }
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts `context: ` before the message, for a caller that knows which file or task it was.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The one-line message, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do, where there is something.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
