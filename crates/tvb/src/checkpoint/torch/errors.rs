//! Errors that name the PyTorch file they are about.

use super::pickle::PickleError;
use crate::checkpoint::DataFile;
use crate::error::Error;

/// Why something of a file could not be made, before it is said which file and which tensor.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is to blame: one line.
    Input(String),
    /// Reading has to stop for another reason, which names the file itself: memory, the disk, the user.
    Stop(Error),
}

impl Fault {
    /// As an error about that file.
    pub(super) fn of(self, file: &DataFile) -> Error {
        match self {
            Fault::Input(why) => rejected(file, why),
            Fault::Stop(error) => error,
        }
    }

    /// Puts `context: ` before what the file is to blame for.
    pub(super) fn context(self, context: impl std::fmt::Display) -> Fault {
        match self {
            Fault::Input(why) => Fault::Input(format!("{context}: {why}")),
            stop => stop,
        }
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Fault {
        Fault::Input(why)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Stop(error)
    }
}

/// A file that is malformed, or of a kind that is not supported.
pub(super) fn rejected(file: &DataFile, message: impl std::fmt::Display) -> Error {
    Error::rejected(format!("{}: {message}", file.path.display()))
}

/// A pickle's error as one of its file.
pub(super) fn pickle_error(file: &DataFile, error: PickleError) -> Error {
    match error {
        PickleError::Truncated => rejected(file, "truncated: the pickle ends before its last opcode"),
        PickleError::Malformed(why) => rejected(file, format!("malformed pickle: {why}")),
        PickleError::Stop(error) => *error,
    }
}
