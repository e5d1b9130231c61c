//! What the readers of one run may take of memory, all files together, and how they hear that they should stop.
//!
//! A few hundred bytes of a hostile file can stand for gigabytes: a module that is shared a thousand times, a compressed
//! entry, a header of names. So every reader charges what it is about to keep before it keeps it, and what is let go of is
//! given back. A bound for each file would not do, since a run opens hundreds of them.

use crate::error::{Error, Result};
use crate::units;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for what readers keep of files: headers, names, pickles, compressed tensors. Clones share it.
///
/// ```
/// use tvb::checkpoint::{Budget, Checkpoint, OpenOptions};
///
/// let options = OpenOptions { budget: Budget::new(64 << 20), ..OpenOptions::default() };
/// let opened = Checkpoint::open_with("../tvb-zoo/checkpoints/base.safetensors".as_ref(), &options)?;
/// assert!(options.budget.left() < options.budget.limit());
/// drop(opened);
/// assert_eq!(options.budget.left(), options.budget.limit());
/// # Ok::<(), tvb::Error>(())
/// ```
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    limit: u64,
    left: AtomicU64,
    is_cancelled: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Budget {
    /// What readers may take where nothing else is said.
    pub const DEFAULT_BYTES: u64 = 512 << 20;

    /// What the headers of an ordinary run need: a cap on memory below this is one on other things.
    pub const LEAST_BYTES: u64 = 64 << 20;

    /// At most `n_bytes`.
    pub fn new(n_bytes: u64) -> Budget {
        Budget { shared: Arc::new(Shared { limit: n_bytes, left: AtomicU64::new(n_bytes), is_cancelled: None }) }
    }

    /// At most `n_bytes`, and readers leave with [`Error::interrupted`] soon after `is_cancelled` says so.
    pub fn cancelled_by(n_bytes: u64, is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Budget {
        let is_cancelled: Option<Box<dyn Fn() -> bool + Send + Sync>> = Some(Box::new(is_cancelled));
        Budget { shared: Arc::new(Shared { limit: n_bytes, left: AtomicU64::new(n_bytes), is_cancelled }) }
    }

    /// Bytes that it began with.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.shared.left.load(Ordering::Relaxed)
    }

    /// [`Error::interrupted`] once the user asked to stop; for long loops of readers.
    ///
    /// # Errors
    /// Interrupted.
    pub fn check(&self) -> Result<()> {
        match &self.shared.is_cancelled {
            Some(is_cancelled) if is_cancelled() => Err(Error::interrupted()),
            _ => Ok(()),
        }
    }

    /// An open account for one thing of the file at `path`; `what` names it in messages: "its header".
    pub(crate) fn account(&self, path: &Path, what: &'static str) -> Charge {
        Charge { budget: self.clone(), path: path.to_owned(), what, n_bytes: 0, n_ahead: 0 }
    }

    /// Takes `n_bytes` for one thing of the file at `path`.
    ///
    /// # Errors
    /// Rejected: there are fewer left. Interrupted.
    pub(crate) fn charge(&self, path: &Path, what: &'static str, n_bytes: u64) -> Result<Charge> {
        let mut charge = self.account(path, what);
        charge.take_exactly(n_bytes)?;
        Ok(charge)
    }

    fn try_take(&self, n_bytes: u64) -> bool {
        self.shared.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n_bytes)).is_ok()
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(Budget::DEFAULT_BYTES)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {} left)", self.left(), self.limit())
    }
}

/// What one reader has taken of a [`Budget`]; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    path: PathBuf,
    what: &'static str,
    /// Bytes that were taken.
    n_bytes: u64,
    /// How many of them are not needed yet: small amounts are taken from the budget many at a time.
    n_ahead: u64,
}

impl Charge {
    /// Takes `n_bytes` more. Asks whether to stop from time to time.
    ///
    /// # Errors
    /// As [`Budget::charge`].
    pub(crate) fn take(&mut self, n_bytes: u64) -> Result<()> {
        const STEP_BYTES: u64 = 64 << 10;
        if let Some(n_ahead) = self.n_ahead.checked_sub(n_bytes) {
            self.n_ahead = n_ahead;
            return Ok(());
        }
        if n_bytes < STEP_BYTES && self.budget.try_take(STEP_BYTES) {
            self.n_bytes += STEP_BYTES;
            self.n_ahead += STEP_BYTES - n_bytes;
            return self.budget.check();
        }
        self.take_exactly(n_bytes - self.n_ahead)?;
        self.n_ahead = 0;
        Ok(())
    }

    fn take_exactly(&mut self, n_bytes: u64) -> Result<()> {
        self.budget.check()?;
        if !self.budget.try_take(n_bytes) {
            let limit = units::bytes(self.budget.limit());
            return Err(Error::rejected(format!(
                "{}: more memory needed than the {limit} for everything that is read, for {}",
                self.path.display(),
                self.what
            ))
            .hint("--memory raises it, if the file is to be trusted"));
        }
        self.n_bytes += n_bytes;
        Ok(())
    }

    /// Raises what is taken to `n_bytes` where it is less.
    ///
    /// # Errors
    /// As [`Budget::charge`].
    pub(crate) fn raise_to(&mut self, n_bytes: u64) -> Result<()> {
        self.take(n_bytes.saturating_sub(self.n_bytes - self.n_ahead))
    }

    /// Gives back what was taken ahead; for what will be kept.
    pub(crate) fn settled(mut self) -> Charge {
        self.give_back(self.n_ahead);
        self.n_bytes -= self.n_ahead;
        self.n_ahead = 0;
        self
    }

    /// The budget it was taken from.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    fn give_back(&self, n_bytes: u64) {
        self.budget.shared.left.fetch_add(n_bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.n_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(1 << 20);
        let mut charge = budget.account(Path::new("a.pt"), "its pickle");
        for _ in 0..1000 {
            charge.take(100).unwrap();
        }
        let kept = charge.settled();
        assert_eq!(budget.left(), (1 << 20) - 100_000);
        let error = budget.charge(Path::new("b.pt"), "its names", 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert_eq!(
            error.message(),
            "b.pt: more memory needed than the 1.05 MB for everything that is read, for its names"
        );
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--memory")));
        drop(kept);
        assert_eq!(budget.left(), budget.limit());
    }

    #[test]
    fn the_last_byte_can_be_taken() {
        let budget = Budget::new(100_000);
        let mut charge = budget.account(Path::new("a.pt"), "its names");
        for _ in 0..1000 {
            charge.take(100).unwrap();
        }
        assert!(charge.take(1).is_err());
        charge.raise_to(100_000).unwrap();
        assert!(charge.raise_to(100_001).is_err());
    }

    #[test]
    fn readers_hear_that_they_should_stop() {
        let asked = Arc::new(AtomicBool::new(false));
        let heard = asked.clone();
        let budget = Budget::cancelled_by(1 << 30, move || heard.load(Ordering::Relaxed));
        let mut charge = budget.account(Path::new("a.pt"), "its names");
        charge.take(1).unwrap();
        asked.store(true, Ordering::Relaxed);
        assert_eq!(charge.take(1 << 20).unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(budget.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
