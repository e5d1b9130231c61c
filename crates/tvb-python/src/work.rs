//! A job on a thread of its own. The thread that asked for it lets go of the interpreter and waits; from time to time it looks
//! for signals, tells Python of the progress and writes the log. So whatever is Python's runs where the user called, an
//! exception in it stops the job and is raised there, and Ctrl-C is heard where Python hears it.

use crate::errors::{exception, of_panic};
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tvb::progress::Progress;
use tvb::{Error, Result};

/// How often the waiting thread looks up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// As much stack as a main thread has.
const STACK_BYTES: usize = 8 << 20;

/// Does `job`, tells `sink` (`tvb/_progress.py`) of it, and stops it where the user asks to or the sink raises.
pub(crate) fn work<T: Send>(sink: &Bound<'_, PyAny>, job: impl FnOnce(&Arc<Heard>) -> Result<T> + Send) -> PyResult<T> {
    let py = sink.py();
    let heard = Arc::new(Heard::default());
    let worker = heard.clone();
    let (result, raised) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tvb".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, move || {
            let _over = Over(&worker);
            job(&worker)
        });
        let handle = match spawned {
            Ok(handle) => handle,
            Err(error) => {
                return (Err(Error::failed(format!("no thread to work on: {error}")).caused_by(error)), None);
            }
        };
        let mut raised = None;
        loop {
            let is_over = py.detach(|| heard.wait());
            let told = heard.tell(sink);
            if raised.is_none()
                && let Err(error) = told.and_then(|()| py.check_signals())
            {
                heard.is_stopped.store(true, Ordering::Relaxed);
                raised = Some(error);
            }
            if is_over {
                break;
            }
        }
        (py.detach(|| handle.join()).unwrap_or_else(|panic| Err(of_panic(&*panic))), raised)
    });
    if result.is_err() || raised.is_some() {
        // A stage that an error has cut short is over, too.
        sink.call_method0("finish")?;
    }
    match (result, raised) {
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(exception(py, &error)),
        (result, Some(raised)) => {
            // Such as that the same call resumes.
            if let Err(error) = result
                && let Some(hint) = error.hint_text()
            {
                sink.call_method1("note", (hint,))?;
            }
            Err(raised)
        }
    }
}

/// What a job says while it runs, kept until the waiting thread looks.
#[derive(Default)]
pub(crate) struct Heard {
    said: Mutex<Said>,
    /// Bytes that were done since the last event.
    n_bytes: AtomicU64,
    over: Condvar,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct Said {
    events: Vec<Event>,
    is_over: bool,
}

enum Event {
    Begin(&'static str, u64),
    Advance(u64),
    Finish,
    Note(String),
    Warn(String),
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        let mut said = self.said();
        let n_bytes = self.n_bytes.swap(0, Ordering::Relaxed);
        if n_bytes > 0 {
            said.events.push(Event::Advance(n_bytes));
        }
        said.events.push(event);
    }

    /// Waits a little, or until the job is over; answers whether it is.
    fn wait(&self) -> bool {
        let waited = self.over.wait_timeout_while(self.said(), LOOK_EVERY, |said| !said.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    /// Tells the sink what was said since the last time.
    fn tell(&self, sink: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut events = std::mem::take(&mut self.said().events);
        let n_bytes = self.n_bytes.swap(0, Ordering::Relaxed);
        if n_bytes > 0 {
            events.push(Event::Advance(n_bytes));
        }
        for event in events {
            match event {
                Event::Begin(stage, n_bytes) => sink.call_method1("begin", (stage, n_bytes))?,
                Event::Advance(n_bytes) => sink.call_method1("advance", (n_bytes,))?,
                Event::Finish => sink.call_method0("finish")?,
                Event::Note(line) => sink.call_method1("note", (line,))?,
                Event::Warn(line) => sink.call_method1("warn", (line,))?,
            };
        }
        Ok(())
    }
}

impl Progress for Heard {
    fn begin(&self, stage: &'static str, total_bytes: u64) {
        self.push(Event::Begin(stage, total_bytes));
    }

    fn advance(&self, n_bytes: u64) {
        self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.push(Event::Finish);
    }

    fn note(&self, line: &str) {
        self.push(Event::Note(line.to_owned()));
    }

    fn warn(&self, line: &str) {
        self.push(Event::Warn(line.to_owned()));
    }

    fn cancelled(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Wakes the waiting thread when the job ends, however it does.
struct Over<'a>(&'a Heard);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.said().is_over = true;
        self.0.over.notify_all();
    }
}
