//! How long work tells whoever started it how far it is, and hears that it should stop.
//!
//! A stage announces its bytes once, counts them off as they are done and finishes. The library never prints: the
//! command line shows a bar or plain lines, another program may feed its own display, and [`Silent`] shows nothing.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

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

/// How often a wait looks whether the user asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long work that was asked to stop may take over it before it is left behind.
const GRACE: Duration = Duration::from_millis(300);
/// As much stack as the main thread has.
const STACK_BYTES: usize = 8 << 20;

/// Does work that makes no output, and stops waiting for it once the user asked to stop. The work hears of that through its
/// argument, which answers false from then on. Some cannot look in time (a decomposition of a large matrix, a linear
/// program, a disk that does not answer): such work is left to end by itself, on its own thread.
///
/// # Errors
/// Those of `work`. Interrupted, once the user asked to stop. Failed: the system gives no thread.
pub fn unless_cancelled<T: Send + 'static>(
    progress: &dyn Progress,
    work: impl FnOnce(&dyn Fn(f64) -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    progress.check()?;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let (send, receive) = sync_channel(1);
    let stopped = is_stopped.clone();
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let result = work(&|_| !stopped.load(Ordering::Relaxed));
            // Nobody listens to work that was left behind.
            let _ = send.send(result);
        })
        .map_err(|error| Error::failed(format!("no thread to work on: {error}")).caused_by(error))?;
    let mut asked: Option<Instant> = None;
    loop {
        match receive.recv_timeout(LOOK_EVERY) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => {}
            // Only a panic sends nothing.
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(Error::failed("the work ended without a result")),
            },
        }
        if progress.cancelled() {
            is_stopped.store(true, Ordering::Relaxed);
            if asked.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Err(Error::interrupted());
            }
        }
    }
}

/// The user has asked to stop already.
#[cfg(test)]
pub(crate) struct Cancelled;

#[cfg(test)]
impl Progress for Cancelled {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Asked to stop once the work has begun.
    #[derive(Clone, Default)]
    struct Later(Arc<AtomicBool>);

    impl Progress for Later {
        fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
        fn advance(&self, _n_bytes: u64) {}
        fn finish(&self) {}
        fn note(&self, _line: &str) {}
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn work_is_waited_for_unless_the_user_asks_to_stop() {
        assert_eq!(unless_cancelled(&Silent, |_| Ok(3)).unwrap(), 3);
        assert_eq!(unless_cancelled(&Silent, |go_on| Ok(go_on(0.0))).map_err(|e| e.kind()), Ok(true));
        let failed = unless_cancelled(&Silent, |_| Err::<(), _>(Error::rejected("x"))).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Rejected);
        assert!(std::panic::catch_unwind(|| unless_cancelled(&Silent, |_| -> Result<()> { panic!("bug") })).is_err());

        // Work that looks, and work that never does: both are answered.
        let later = Later::default();
        let asks = later.clone();
        let looked = unless_cancelled(&later, move |go_on| {
            asks.0.store(true, Ordering::Relaxed);
            while go_on(0.5) {
                std::thread::yield_now();
            }
            Err::<(), _>(Error::interrupted())
        });
        assert_eq!(looked.unwrap_err().kind(), ErrorKind::Interrupted);
        let later = Later::default();
        let asks = later.clone();
        let (forever, never) = sync_channel::<()>(1);
        let deaf = unless_cancelled(&later, move |_| {
            asks.0.store(true, Ordering::Relaxed);
            let _ = never.recv();
            Ok(())
        });
        assert_eq!(deaf.unwrap_err().kind(), ErrorKind::Interrupted);
        drop(forever);
        let begun = unless_cancelled(&later, |_| -> Result<()> { panic!("begun after the user asked to stop") });
        assert_eq!(begun.unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn check_fails_exactly_when_cancelled() {
        assert!(Silent.check().is_ok());
        assert_eq!(Cancelled.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
