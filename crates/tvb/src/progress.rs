//! How long work tells whoever started it how far it is, and hears that it should stop.
//!
//! A stage announces its bytes once, counts them off as they are done and finishes. The library never prints: the
//! command line shows a bar or plain lines, another program may feed its own display, and [`Silent`] shows nothing.

use crate::error::{Error, Result};

/// Receives the progress of one stage after another. Called from several threads at once, so implementations must not
/// block for long.
pub trait Progress: Sync {
    /// A stage begins: a short verb phrase such as `"reading for the Gram"`, and the bytes it will go through.
    /// `total_bytes` = 0 stands for "unknown".
    fn begin(&self, stage: &'static str, total_bytes: u64);

    /// `n_bytes` more bytes of the running stage are done.
    fn advance(&self, n_bytes: u64);

    /// The running stage is over, whether or not every byte was counted.
    fn finish(&self);

    /// One line worth knowing while the work runs.
    fn note(&self, line: &str);

    /// One line about something that went wrong and does not stop the work, for example that the device was lost.
    fn warn(&self, line: &str) {
        self.note(line);
    }

    /// Whether the user asked to stop. Stages look between chunks, clean up and leave with [`Error::interrupted`].
    fn cancelled(&self) -> bool {
        false
    }

    /// [`Error::interrupted`] once the user asked to stop: `progress.check()?` between chunks.
    ///
    /// # Errors
    /// Interrupted, once the user asked to stop.
    fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Shows nothing and is never cancelled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    struct Cancelled;

    impl Progress for Cancelled {
        fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
        fn advance(&self, _n_bytes: u64) {}
        fn finish(&self) {}
        fn note(&self, _line: &str) {}
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn check_fails_exactly_when_cancelled() {
        assert!(Silent.check().is_ok());
        assert_eq!(Cancelled.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
