//! An evaluator's process: in a group of its own, so that it is ended with everything it started.

use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a running evaluator is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long our own signal may come after the evaluator's.
pub(super) const SIGNAL_LAG: Duration = Duration::from_millis(500);
/// How long the output of an evaluator that is done may stay open.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How long a killed evaluator may take to be gone.
const KILL_TIME: Duration = Duration::from_millis(500);
/// Lines of the evaluator's stderr that are shown when it fails.
pub(super) const STDERR_LINES: usize = 20;
/// A longer line of stdout is cut.
pub(super) const STDOUT_LINE_BYTES: usize = 1 << 20;
/// A longer line of stderr is cut.
pub(super) const STDERR_LINE_BYTES: usize = 1 << 13;

/// Starts a command in a group of its own, with its output piped to us.
///
/// # Errors
/// Usage: an empty command. Failed: it cannot be started.
pub(super) fn start<S: AsRef<OsStr>>(words: &[S], stdin: Stdio) -> Result<Child> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::usage("an evaluator command expected, an empty one found"));
    };
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    own_process_group(&mut command);
    command.spawn().map_err(|error| {
        Error::failed(format!("evaluator {}: could not be started: {error}", program.to_string_lossy()))
            .hint("check the path after `--`")
    })
}

#[cfg(unix)]
fn own_process_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_process_group(_command: &mut Command) {}

pub(super) fn end_process_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    // A killed process is gone at once, unless it hangs inside the system.
    let _ = becomes_true(|| !matches!(child.try_wait(), Ok(None)), KILL_TIME);
}

/// Whether a signal that asks to stop ended it: by itself, or as a shell or Python says it.
pub(super) fn was_stopped(status: ExitStatus) -> bool {
    const HANGUP: i32 = 1;
    const INTERRUPT: i32 = 2;
    const TERMINATE: i32 = 15;
    let signals = [HANGUP, INTERRUPT, TERMINATE];
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&status).is_some_and(|signal| signals.contains(&signal)) {
        return true;
    }
    status.code().is_some_and(|code| signals.contains(&(code - 128)))
}

/// Whether something becomes true within a time.
pub(super) fn becomes_true(mut is_true: impl FnMut() -> bool, within: Duration) -> bool {
    let started = Instant::now();
    while !is_true() {
        if started.elapsed() > within {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL.min(within));
    }
    true
}

/// What went wrong with an evaluator, with the end of what it printed to stderr.
pub(super) fn failure(message: String, stderr: &[String]) -> Error {
    match stderr.is_empty() {
        true => Error::failed(message),
        false => Error::failed(format!("{message}; the end of its stderr:")).below(stderr),
    }
}
