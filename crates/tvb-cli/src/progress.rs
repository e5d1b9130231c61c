//! How far long work is: a bar on a terminal, a plain line every ten seconds elsewhere, nothing with `-q`.

use crate::interrupt;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tvb::progress::Progress;
use tvb::units;

/// Every bar is drawn through this one, so that log lines can be put above it.
static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Time between two plain lines where there is no terminal to draw on.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Warnings that are kept for `--json`: more are shown, but not kept.
const WARNINGS_MAX: usize = 1_000;

/// Runs `write` while no bar is on the screen; the bar comes back afterwards.
pub(crate) fn above_the_bar(write: impl FnOnce()) {
    SCREEN.suspend(write);
}

/// Whoever hears of a command's progress in place of a terminal, and says when it shall stop.
pub(crate) type Listener = Arc<dyn Progress + Send + Sync>;

/// The command line's progress display.
pub(crate) struct Display {
    is_quiet: bool,
    listener: Option<Listener>,
    stage: RwLock<Option<Arc<Stage>>>,
    warnings: Mutex<Vec<String>>,
}

/// The stage that runs now.
struct Stage {
    name: &'static str,
    total_bytes: u64,
    done_bytes: AtomicU64,
    started: Instant,
    /// Milliseconds after `started` at which the next plain line is due.
    next_line_ms: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Display {
    /// Shows bars (on a terminal) or lines unless `is_quiet`.
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self { is_quiet, listener: None, stage: RwLock::new(None), warnings: Mutex::default() }
    }

    /// Shows nothing and tells `listener` all.
    pub(crate) fn heard_by(listener: Listener) -> Self {
        Self { is_quiet: true, listener: Some(listener), stage: RwLock::new(None), warnings: Mutex::default() }
    }

    /// The warnings so far, for `--json`.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stage(&self) -> Option<Arc<Stage>> {
        self.stage.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn replace_stage(&self, stage: Option<Arc<Stage>>) -> Option<Arc<Stage>> {
        std::mem::replace(&mut *self.stage.write().unwrap_or_else(|poisoned| poisoned.into_inner()), stage)
    }
}

impl Progress for Display {
    fn begin(&self, stage: &'static str, total_bytes: u64) {
        if let Some(listener) = &self.listener {
            return listener.begin(stage, total_bytes);
        }
        self.finish();
        let bar = (!self.is_quiet && !SCREEN.is_hidden()).then(|| new_bar(stage, total_bytes));
        self.replace_stage(Some(Arc::new(Stage {
            name: stage,
            total_bytes,
            done_bytes: AtomicU64::new(0),
            started: Instant::now(),
            next_line_ms: AtomicU64::new(LINE_INTERVAL.as_millis() as u64),
            bar,
        })));
    }

    fn advance(&self, n_bytes: u64) {
        if let Some(listener) = &self.listener {
            return listener.advance(n_bytes);
        }
        let Some(stage) = self.stage() else { return };
        let done_bytes = stage.done_bytes.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes;
        match &stage.bar {
            Some(bar) => bar.inc(n_bytes),
            None => {
                let elapsed = stage.started.elapsed();
                let due_ms = stage.next_line_ms.load(Ordering::Relaxed);
                let next_ms = (elapsed + LINE_INTERVAL).as_millis() as u64;
                let is_due = elapsed.as_millis() as u64 >= due_ms;
                // Of several threads that find the line due, one writes it.
                let update = stage.next_line_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed);
                if is_due && update.is_ok() {
                    tracing::info!("{}", line(stage.name, done_bytes, stage.total_bytes, elapsed));
                }
            }
        }
    }

    fn finish(&self) {
        if let Some(listener) = &self.listener {
            return listener.finish();
        }
        let Some(stage) = self.replace_stage(None) else { return };
        if let Some(bar) = &stage.bar {
            bar.finish_and_clear();
            SCREEN.remove(bar);
        }
        let done_bytes = stage.done_bytes.load(Ordering::Relaxed);
        let elapsed = stage.started.elapsed();
        let (size, time, rate) = (units::bytes(done_bytes), units::duration(elapsed), units::rate(done_bytes, elapsed));
        if elapsed >= LINE_INTERVAL {
            tracing::info!("{}: {size} in {time} ({rate})", stage.name);
        } else {
            tracing::debug!("{}: {size} in {time} ({rate})", stage.name);
        }
    }

    fn note(&self, line: &str) {
        match &self.listener {
            Some(listener) => listener.note(line),
            None => tracing::info!("{line}"),
        }
    }

    fn warn(&self, line: &str) {
        match &self.listener {
            Some(listener) => listener.warn(line),
            None => tracing::warn!("{line}"),
        }
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(line.to_owned());
        }
    }

    fn cancelled(&self) -> bool {
        match &self.listener {
            Some(listener) => listener.cancelled(),
            None => interrupt::asked_to_stop(),
        }
    }
}

/// A stage left open by an error must not leave its bar on the screen.
impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = self.replace_stage(None).as_deref().and_then(|stage| stage.bar.as_ref()) {
            bar.finish_and_clear();
        }
    }
}

/// `reading: 45 % of 1.41 GB, 812 MB/s, 12.3 s left`
fn line(stage: &str, done_bytes: u64, total_bytes: u64, elapsed: Duration) -> String {
    let rate = units::rate(done_bytes, elapsed);
    if total_bytes == 0 || done_bytes == 0 {
        return format!("{stage}: {}, {rate}", units::bytes(done_bytes));
    }
    let done = (done_bytes as f64 / total_bytes as f64).min(1.0);
    let left = units::duration(elapsed.mul_f64(1.0 / done - 1.0));
    format!("{stage}: {:.0} % of {}, {rate}, {left} left", 100.0 * done, units::bytes(total_bytes))
}

fn new_bar(stage: &'static str, total_bytes: u64) -> ProgressBar {
    let template = match total_bytes {
        0 => "{prefix} {done} {rate}",
        _ => "{prefix} [{wide_bar}] {done} of {total} {rate} {left} left",
    };
    // A template that does not parse costs the looks, not the work.
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("done", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&units::bytes(state.pos()));
        })
        .with_key("total", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&units::bytes(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{}/s", units::bytes(state.per_sec() as u64));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&units::duration(state.eta()));
        });
    let bar = match total_bytes {
        0 => ProgressBar::no_length(),
        _ => ProgressBar::new(total_bytes),
    };
    SCREEN.add(bar).with_style(style).with_prefix(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines() {
        let cases = [
            (0, 1_000, 10, "reading: 0 B, 0 B/s"),
            (450_000_000, 1_000_000_000, 9, "reading: 45 % of 1.00 GB, 50.0 MB/s, 11.0 s left"),
            (2_000, 1_000, 10, "reading: 100 % of 1.00 kB, 200 B/s, 0 ms left"),
            (5_000, 0, 10, "reading: 5.00 kB, 500 B/s"),
        ];
        for (done_bytes, total_bytes, seconds, expected) in cases {
            assert_eq!(line("reading", done_bytes, total_bytes, Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn stages_follow_each_other_and_stray_calls_are_ignored() {
        let display = Display::new(true);
        display.advance(1);
        display.finish();
        display.begin("first", 10);
        display.advance(4);
        display.begin("second", 0);
        display.advance(7);
        let stage = display.stage().unwrap();
        assert_eq!((stage.name, stage.done_bytes.load(Ordering::Relaxed)), ("second", 7));
        display.finish();
        assert!(display.stage().is_none());
    }
}
