//! The last lines of what a child process prints, read on a thread beside it.
//!
//! A pipe stays open as long as any process holds it, so its end may never come. Reading can be given up at any time: our
//! end is then closed and the thread is over, whatever others do with theirs.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a silent pipe's reader looks whether it is to give up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A pipe that is being read.
pub(super) struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    tail: Mutex<Tail>,
    /// Told of all that comes.
    has_come: Condvar,
    is_given_up: AtomicBool,
}

/// A pipe of a child.
#[cfg(unix)]
pub(super) trait Pipe: Read + std::os::fd::AsFd + Send + 'static {}
#[cfg(unix)]
impl<T: Read + std::os::fd::AsFd + Send + 'static> Pipe for T {}
/// A pipe of a child.
#[cfg(not(unix))]
pub(super) trait Pipe: Read + Send + 'static {}
#[cfg(not(unix))]
impl<T: Read + Send + 'static> Pipe for T {}

impl Lines {
    /// Begins to read; of all lines that are not blank the last `n_lines` are kept, each cut after `max_line_bytes`.
    pub(super) fn of(pipe: Option<impl Pipe>, n_lines: usize, max_line_bytes: usize) -> Lines {
        Lines::begin(pipe, Tail { n_lines, max_line_bytes, ..Tail::default() })
    }

    /// The same for the lines alone that begin with `first`.
    pub(super) fn beginning(pipe: Option<impl Pipe>, first: char, n_lines: usize, max_line_bytes: usize) -> Lines {
        Lines::begin(pipe, Tail { n_lines, max_line_bytes, first: Some(first), ..Tail::default() })
    }

    fn begin(pipe: Option<impl Pipe>, tail: Tail) -> Lines {
        let shared =
            Arc::new(Shared { tail: Mutex::new(tail), has_come: Condvar::new(), is_given_up: AtomicBool::new(false) });
        let reads = shared.clone();
        let thread = pipe.and_then(|pipe| std::thread::Builder::new().spawn(move || reads.read(pipe)).ok());
        Lines { shared, thread }
    }

    /// Whether all was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes the lines that are whole, waiting a moment for one.
    pub(super) fn take(&self, moment: Duration) -> Vec<String> {
        let mut tail = self.shared.tail();
        if tail.lines.is_empty() && !moment.is_zero() && !self.is_at_end() {
            let waited = self.shared.has_come.wait_timeout(tail, moment);
            tail = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut tail.lines).into()
    }

    /// The beginning of a line that has no end yet; empty where there is none.
    pub(super) fn unfinished(&self) -> String {
        let tail = self.shared.tail();
        String::from_utf8_lossy(&tail.line).chars().take(80).collect()
    }

    /// Gives up what was not read, and answers the last lines of what was.
    pub(super) fn close(self) -> Vec<String> {
        self.shared.is_given_up.store(true, Ordering::Relaxed);
        // Elsewhere than on Unix a reader cannot be called back from a pipe in which nothing comes.
        if let Some(thread) = self.thread.filter(|thread| cfg!(unix) || thread.is_finished()) {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.shared.tail()).into_lines()
    }
}

impl Shared {
    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, mut pipe: impl Pipe) {
        let mut buffer = vec![0; 1 << 16];
        while !self.is_given_up.load(Ordering::Relaxed) {
            if !has_something(&pipe) {
                continue;
            }
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(n_read) => {
                    self.tail().add(buffer.get(..n_read).unwrap_or_default());
                    self.has_come.notify_all();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether a read would return at once, waiting a moment for it.
#[cfg(unix)]
fn has_something(pipe: &impl Pipe) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&moment)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => false,
        // A pipe that cannot be waited for is read: the read says what is wrong with it.
        Ok(_) | Err(_) => true,
    }
}

#[cfg(not(unix))]
fn has_something(_pipe: &impl Pipe) -> bool {
    let _ = LOOK_EVERY;
    true
}

/// The last lines of a text that comes in pieces.
#[derive(Default)]
struct Tail {
    n_lines: usize,
    max_line_bytes: usize,
    /// What a line must begin with to be kept.
    first: Option<char>,
    lines: VecDeque<String>,
    /// What came since the last line break.
    line: Vec<u8>,
}

impl Tail {
    fn add(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.grow(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.grow(bytes);
    }

    fn grow(&mut self, bytes: &[u8]) {
        let room = self.max_line_bytes.saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if !text.is_empty() && self.first.is_none_or(|first| text.starts_with(first)) {
            self.lines.push_back(text);
            if self.lines.len() > self.n_lines {
                self.lines.pop_front();
            }
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        self.end_line();
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_however_they_come() {
        let text = "a\n\n  \nb \r\nlonger than eight\nend";
        for piece in [1, 2, 3, 7, 100] {
            let mut tail = Tail { n_lines: 3, max_line_bytes: 8, ..Tail::default() };
            text.as_bytes().chunks(piece).for_each(|bytes| tail.add(bytes));
            assert!(tail.line.capacity() < 64);
            assert_eq!(tail.into_lines(), ["b", "longer t", "end"], "{piece}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_that_others_hold_is_given_up() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut writer, b"one\ntwo").expect("written");
        let lines = Lines::of(Some(reader), 5, 100);
        while lines.shared.tail().line.is_empty() {
            std::thread::yield_now();
        }
        assert!(!lines.is_at_end());
        assert_eq!(lines.close(), ["one", "two"]);
        assert!(std::io::Write::write_all(&mut writer, b"x").is_err(), "our end is closed");
    }
}
