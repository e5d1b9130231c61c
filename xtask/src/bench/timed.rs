//! A child process, its time and the most memory it held.

use crate::process::{Result, typed};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One run of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// From start to exit.
    pub(super) seconds: f64,
    /// The most resident memory that was seen, in bytes; `None` where the system does not say.
    pub(super) resident_bytes: Option<u64>,
    /// Processor time in the program itself, of all its threads; `None` where the system does not say.
    pub(super) user_seconds: Option<f64>,
}

/// What `/proc/PID/stat` counts in: a hundredth of a second on every Linux that we measure on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs a command whose output nobody needs.
pub(super) fn run(command: &mut Command) -> Result<Run> {
    let typed = typed(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("{typed}: cannot start: {error}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let stat_file = format!("/proc/{}/stat", child.id());
    let (mut resident_bytes, mut user_seconds) = (None, None);
    loop {
        // The high-water mark only grows, so the last look counts; a child that has ended shows none any more.
        resident_bytes = resident_peak(&status_file).or(resident_bytes);
        user_seconds = user_time(&stat_file).or(user_seconds);
        if let Some(status) = child.try_wait().map_err(|error| format!("{typed}: {error}"))? {
            let seconds = started.elapsed().as_secs_f64();
            return if status.success() {
                Ok(Run { seconds, resident_bytes, user_seconds })
            } else {
                Err(format!("{typed}: {status}"))
            };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `VmHWM:    12345 kB`
fn resident_peak(status_file: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status_file).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// `12345 (a name) S …`: user time is the 14th number; the name may hold spaces.
fn user_time(stat_file: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(stat_file).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(11)?.parse::<u64>().ok().map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// The median of what runs took, and the most memory of any.
pub(super) fn summary(runs: &[Run]) -> (f64, Option<u64>) {
    (
        median(runs.iter().map(|run| run.seconds)).unwrap_or(f64::NAN),
        runs.iter().filter_map(|run| run.resident_bytes).max(),
    )
}

/// The middle one; `None` of none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
