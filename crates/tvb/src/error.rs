//! One error type for the whole library: what happened, what to do about it, and whose fault it is.
//!
//! A message is one line that names the file, the tensor and the task where there is one, and gives what was
//! expected and what was found. The hint, where there is something to do, is a second line. The variant decides
//! the exit code of the binary (see the README's table of exit codes).
//!
//! Messages hold names from files. Whatever a caller puts into one, it stays one line without control characters; what shall
//! stand below it is added with [`Error::below`].

use crate::shown::line;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

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

/// An error of the library. Each variant carries a one-line message, a hint where there is something to do, and the cause
/// where another error was at the bottom of it (see [`source`](std::error::Error::source)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The machine let us down: I/O, a device, a child process. Exit code 1.
    Failed(Details),
    /// The request makes no sense whatever the inputs hold. Exit code 2.
    Usage(Details),
    /// An input is malformed or does not fit the others. Exit code 3.
    Rejected(Details),
    /// The user asked to stop. Exit code 130.
    Interrupted(Details),
}

/// What every error carries, whosever fault it is.
#[derive(Clone, Debug)]
pub struct Details {
    message: String,
    hint: Option<String>,
    /// Shared, so that an error can be told to several.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The machine let us down (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Details::new(message))
    }

    /// The request makes no sense (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(Details::new(message))
    }

    /// An input is malformed or does not fit (exit code 3).
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::Rejected(Details::new(message))
    }

    /// The user asked to stop (exit code 130).
    pub fn interrupted() -> Self {
        Self::Interrupted(Details::new("interrupted"))
    }

    /// An operating-system error on `path` while doing `what` ("reading", "writing"); the cause is an [`std::io::Error`] of
    /// the same kind and text.
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let made = Self::failed(format!("{}: {what} failed: {error}", path.display())).caused_by(same_as(error));
        match error.kind() {
            io::ErrorKind::StorageFull => made.hint("free some space or choose an output on another disk"),
            io::ErrorKind::FileTooLarge => made.hint("raise the limit on file sizes with `ulimit -f unlimited`"),
            io::ErrorKind::PermissionDenied => made.hint("check the permissions of the file and its folder"),
            io::ErrorKind::NotFound => made.hint("check the path"),
            _ => made,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.details_mut().hint = Some(line(&hint.into()));
        self
    }

    /// Puts `context: ` before the message, for a caller that knows which file or task it was.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        let details = self.details_mut();
        details.message = format!("{}: {}", line(&context.to_string()), details.message);
        self
    }

    /// Adds lines below the message, two blanks in from the left: a list of mismatches, the end of a child's output.
    #[must_use]
    pub fn below<T: AsRef<str>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        let message = &mut self.details_mut().message;
        for text in lines {
            message.push_str("\n  ");
            message.push_str(&line(text.as_ref()));
        }
        self
    }

    /// Keeps the error that was the cause, for whoever walks the chain of sources. The message stays as it is.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.details_mut().source = Some(Arc::new(cause));
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(_) => ErrorKind::Failed,
            Self::Usage(_) => ErrorKind::Usage,
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Interrupted(_) => ErrorKind::Interrupted,
        }
    }

    /// The message, without the hint. One line, but for what was put [below](Error::below) it.
    pub fn message(&self) -> &str {
        &self.details().message
    }

    /// What the user can do, where there is something.
    pub fn hint_text(&self) -> Option<&str> {
        self.details().hint.as_deref()
    }

    fn details(&self) -> &Details {
        match self {
            Self::Failed(details) | Self::Usage(details) | Self::Rejected(details) | Self::Interrupted(details) => {
                details
            }
        }
    }

    fn details_mut(&mut self) -> &mut Details {
        match self {
            Self::Failed(details) | Self::Usage(details) | Self::Rejected(details) | Self::Interrupted(details) => {
                details
            }
        }
    }
}

impl Details {
    fn new(message: impl Into<String>) -> Details {
        Details { message: line(&message.into()), hint: None, source: None }
    }
}

/// An I/O error cannot be cloned; its code, or its kind and text, can.
fn same_as(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.details().source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn kinds_exit_codes_and_texts() {
        let cases = [
            (Error::failed("f"), ErrorKind::Failed, 1),
            (Error::usage("u"), ErrorKind::Usage, 2),
            (Error::rejected("r"), ErrorKind::Rejected, 3),
            (Error::interrupted(), ErrorKind::Interrupted, 130),
        ];
        for (error, kind, code) in cases {
            assert_eq!((error.kind(), error.kind().exit_code()), (kind, code));
            assert!(error.hint_text().is_none() && error.source().is_none());
            let text = error.message().to_owned();
            let told = error.hint("try").context("a.pt");
            assert_eq!((told.kind(), told.hint_text()), (kind, Some("try")));
            assert_eq!(told.to_string(), format!("a.pt: {text}"));
        }
    }

    #[test]
    fn no_name_forges_a_line_or_drives_a_terminal() {
        let hostile = "a\nerror: b\u{1b}[2J\u{202e}";
        let error = Error::rejected(hostile).context(hostile).hint(hostile).below([hostile, "c"]);
        let shown = r"a\nerror: b\u{1b}[2J\u{202e}";
        assert_eq!(error.message(), format!("{shown}: {shown}\n  {shown}\n  c"));
        assert_eq!(error.hint_text(), Some(shown));
        let path = Path::new(hostile);
        assert!(Error::io("reading", path, &io::Error::from_raw_os_error(2)).message().starts_with(shown));
        assert!(Error::rejected("x".repeat(1 << 20)).message().len() < 1 << 14);
    }

    #[test]
    fn the_cause_is_kept_below_every_context() {
        let missing = io::Error::from_raw_os_error(2);
        let error = Error::io("reading", Path::new("a.pt"), &missing).context("task cars");
        assert_eq!(error.message(), format!("task cars: a.pt: reading failed: {missing}"));
        assert_eq!(error.hint_text(), Some("check the path"));
        let outer = Error::rejected("a basis").caused_by(error);
        let inner = outer.source().expect("a cause").downcast_ref::<Error>().expect("the library's own");
        assert_eq!(inner.kind(), ErrorKind::Failed);
        let root = inner.source().expect("a cause").downcast_ref::<io::Error>().expect("the system's");
        assert_eq!((root.kind(), root.raw_os_error()), (io::ErrorKind::NotFound, Some(2)));
        assert!(root.source().is_none());
    }

    #[test]
    fn an_error_without_a_code_keeps_its_kind_and_text() {
        let short = io::Error::new(io::ErrorKind::UnexpectedEof, "too short");
        let error = Error::io("reading", Path::new("a"), &short);
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).expect("an I/O error");
        assert_eq!((cause.kind(), cause.to_string()), (io::ErrorKind::UnexpectedEof, "too short".to_owned()));
    }
}
