//! Signals. Ctrl-C: the first asks the running stage to stop cleanly, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};
use tvb::{Error, ErrorKind, Result};

/// Set by the first Ctrl-C (or SIGTERM, SIGHUP); read by the stages through `Progress::cancelled`.
static ASKED_TO_STOP: AtomicBool = AtomicBool::new(false);

/// Whether the user asked to stop.
pub(crate) fn asked_to_stop() -> bool {
    ASKED_TO_STOP.load(Ordering::Relaxed)
}

/// Starts to listen; who listens already goes on.
pub(crate) fn listen() -> Result<()> {
    outlive_the_file_size_limit();
    let set = ctrlc::set_handler(|| {
        if ASKED_TO_STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()));
        }
        tracing::warn!("stopping cleanly; once more stops at once");
    });
    match set {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(error) => Err(Error::failed(format!("cannot listen for Ctrl-C: {error}"))),
    }
}

/// A write past the limit on file sizes (`ulimit -f`) shall be an error that is said and cleaned up after, not the end of
/// the process.
fn outlive_the_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler, so no code of ours ever runs inside one.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
