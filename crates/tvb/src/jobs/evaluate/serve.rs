//! An evaluator that serves: one process, a path a line on its stdin, one JSON object a line on its stdout as the answer.
//!
//! Lines of its stdout that do not begin with `{` are noise. An answer that comes while nothing is asked is an error, so a
//! second answer to one question is found before the next question is put, or at the end. One that comes just after the next
//! question cannot be told from that one's answer, unless the answers name their checkpoint.

use super::child::{
    LINGER, POLL_INTERVAL, SIGNAL_LAG, STDERR_LINE_BYTES, STDERR_LINES, STDOUT_LINE_BYTES, becomes_true,
    end_process_group, failure, start, was_stopped,
};
use super::metrics::{Metrics, metrics_in};
use crate::error::{Error, Result};
use crate::jobs::child_output::Lines;
use crate::progress::Progress;
use crate::shown::{escaped, shown_path};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Answers that are kept to be looked at; more than one is wrong already.
const ANSWERS: usize = 4;
/// The key under which an answer may name its checkpoint.
const CHECKPOINT_KEY: &str = "checkpoint";
/// What a user is told of the protocol.
const HINT: &str =
    "let it print one line such as {\"metric\": 0.5} for each path that it reads from its stdin, and flush it";

/// A process that serves; dropped, it is ended with everything it started.
pub(super) struct Server {
    shown: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Both are there until the process is ended.
    out: Option<Lines>,
    err: Option<Lines>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.shown)
    }
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// Usage: an empty command. Failed: it cannot be started.
    pub(super) fn start(words: &[String]) -> Result<Server> {
        let mut child = start(words, Stdio::piped())?;
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            never_block(stdin);
        }
        let out = Lines::beginning(child.stdout.take(), '{', ANSWERS, STDOUT_LINE_BYTES);
        let err = Lines::of(child.stderr.take(), STDERR_LINES, STDERR_LINE_BYTES);
        let shown = format!("evaluator `{}`", words.join(" "));
        Ok(Server { shown, child, stdin, out: Some(out), err: Some(err) })
    }

    /// Asks for the metrics of one checkpoint.
    ///
    /// # Errors
    /// Failed: a path that is no line, an answer that is none or that nobody asked for, an end, a silence that is too long.
    /// Interrupted.
    pub(super) fn ask(
        &mut self,
        checkpoint: &Path,
        timeout: Option<Duration>,
        progress: &dyn Progress,
    ) -> Result<Metrics> {
        let line = line_of(checkpoint)?;
        if let Some(answer) = self.answers(Duration::ZERO).first() {
            let what =
                format!("no answer expected before {} was asked for, {} found", shown_path(checkpoint), cut(answer));
            return Err(self.fail(&what).hint("one line that begins with { for each path, and no other"));
        }
        let started = Instant::now();
        let (mut n_sent, mut is_shut, mut ended) = (0, false, None);
        loop {
            if n_sent < line.len() && !is_shut {
                match self.send(line.get(n_sent..).unwrap_or_default()) {
                    Some(n) => n_sent += n,
                    None => is_shut = true,
                }
            }
            // In this order: what was there before its end is taken.
            let is_at_end = self.out.as_ref().is_none_or(Lines::is_at_end);
            let answers = self.answers(POLL_INTERVAL);
            if !answers.is_empty() {
                return self.metrics_of(&answers, checkpoint);
            }
            if progress.cancelled() {
                return Err(Error::interrupted());
            }
            let status = self.child.try_wait().ok().flatten();
            let since = *ended.get_or_insert_with(Instant::now);
            match status {
                Some(status) if is_at_end || since.elapsed() > LINGER => {
                    return Err(self.ended(status, checkpoint, progress));
                }
                // It may be about to exit.
                None if (is_at_end || is_shut) && since.elapsed() > SIGNAL_LAG => {
                    let pipe = if is_at_end { "stdout" } else { "stdin" };
                    let what =
                        format!("an answer for {} expected, it closed its {pipe} instead", shown_path(checkpoint));
                    return Err(self.fail(&what).hint(HINT));
                }
                None if !(is_at_end || is_shut) => ended = None,
                _ => {}
            }
            if is_at_end {
                std::thread::sleep(POLL_INTERVAL);
            }
            if let Some(limit) = timeout.filter(|limit| started.elapsed() > *limit) {
                return Err(self.took_too_long(limit, checkpoint));
            }
        }
    }

    /// Writes what its stdin takes now, and answers how much that was; `None` where it takes no more.
    fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.stdin.as_mut()?.write(bytes) {
            Ok(0) => None,
            Ok(n) => Some(n),
            Err(error) if is_for_later(&error) => Some(0),
            Err(_) => None,
        }
    }

    /// Lets it end by itself, for a moment.
    ///
    /// # Errors
    /// Failed: an answer that nobody asked for.
    pub(super) fn finish(mut self, progress: &dyn Progress) -> Result<()> {
        self.stdin = None;
        let child = &mut self.child;
        let _ = becomes_true(|| progress.cancelled() || !matches!(child.try_wait(), Ok(None)), LINGER);
        let out = &self.out;
        let _ = becomes_true(|| out.as_ref().is_none_or(Lines::is_at_end), SIGNAL_LAG);
        match self.answers(Duration::ZERO).first() {
            Some(answer) => {
                let what = format!("no answer expected after the last checkpoint, {} found", cut(answer));
                Err(self.fail(&what).hint("one line that begins with { for each path, and no other"))
            }
            None => Ok(()),
        }
    }

    fn answers(&self, moment: Duration) -> Vec<String> {
        self.out.as_ref().map_or_else(Vec::new, |out| out.take(moment))
    }

    fn metrics_of(&mut self, answers: &[String], checkpoint: &Path) -> Result<Metrics> {
        let parsed = match answers {
            [answer] => parse_answer(answer, checkpoint),
            _ => Err(format!("one answer expected, {} found", answers.len())),
        };
        parsed.map_err(|what| self.fail(&format!("at {}: {what}", shown_path(checkpoint))).hint(HINT))
    }

    /// It exited without an answer.
    fn ended(&mut self, status: ExitStatus, checkpoint: &Path, progress: &dyn Progress) -> Error {
        // A signal for both of us may reach the evaluator first.
        if was_stopped(status) && becomes_true(|| progress.cancelled(), SIGNAL_LAG) {
            return Error::interrupted();
        }
        self.fail(&format!("an answer for {} expected, it ended instead ({status})", shown_path(checkpoint))).hint(HINT)
    }

    /// It was silent, or never ended its line.
    fn took_too_long(&mut self, limit: Duration, checkpoint: &Path) -> Error {
        let begun = self.out.as_ref().map_or(String::new(), Lines::unfinished);
        let begun = match begun.is_empty() {
            true => String::new(),
            false => format!(", with a line begun and not ended: {}", cut(&begun)),
        };
        let (limit, checkpoint) = (limit.as_secs_f64(), shown_path(checkpoint));
        self.fail(&format!("took more than {limit} s for {checkpoint} and was ended{begun}"))
            .hint("--timeout gives it longer; an answer must be flushed")
    }

    /// Ends it, for what its stderr says.
    fn fail(&mut self, what: &str) -> Error {
        failure(format!("{}: {what}", self.shown), &self.end())
    }

    /// Ends the process and the reading of its output; answers the end of its stderr.
    fn end(&mut self) -> Vec<String> {
        self.stdin = None;
        if self.out.is_none() {
            return Vec::new();
        }
        end_process_group(&mut self.child);
        let _ = self.out.take().map(Lines::close);
        let err = self.err.take();
        let _ = becomes_true(|| err.as_ref().is_none_or(Lines::is_at_end), SIGNAL_LAG);
        err.map_or_else(Vec::new, Lines::close)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The metrics in an answer; what is wrong with it otherwise.
fn parse_answer(answer: &str, checkpoint: &Path) -> std::result::Result<Metrics, String> {
    if answer.len() >= STDOUT_LINE_BYTES {
        return Err(format!("an answer of less than {STDOUT_LINE_BYTES} bytes expected, a longer one found"));
    }
    let value: Value = serde_json::from_str(answer)
        .map_err(|error| format!("a JSON object of metrics expected, {} found ({error})", cut(answer)))?;
    for (name, value) in value.as_object().into_iter().flatten() {
        let kind = match value {
            Value::Object(_) => "an object",
            Value::Array(_) => "a list",
            Value::Null => "null",
            Value::Bool(_) | Value::Number(_) | Value::String(_) => continue,
        };
        return Err(format!("a flat JSON object of numbers expected, {kind} at {} found", cut(name)));
    }
    if let Some(named) = value.get(CHECKPOINT_KEY).and_then(Value::as_str)
        && named != checkpoint.to_string_lossy()
    {
        return Err(format!("the answer for this checkpoint expected, one for {} found", cut(named)));
    }
    metrics_in(&value).ok_or_else(|| format!("at least one metric that is a number expected, {} found", cut(answer)))
}

/// A text of the evaluator's as a message shows it.
fn cut(text: &str) -> String {
    let text: String = text.chars().take(80).collect();
    format!("`{}`", escaped(&text))
}

/// The path as a line, byte by byte.
fn line_of(checkpoint: &Path) -> Result<Vec<u8>> {
    #[cfg(unix)]
    let bytes = Some(std::os::unix::ffi::OsStrExt::as_bytes(checkpoint.as_os_str()));
    #[cfg(not(unix))]
    let bytes = checkpoint.to_str().map(str::as_bytes);
    match bytes.filter(|bytes| !bytes.contains(&b'\n') && !bytes.contains(&b'\r')) {
        Some(bytes) => Ok([bytes, b"\n"].concat()),
        None => Err(Error::usage(format!(
            "{}: a path that can be one line expected, since an evaluator that serves reads it as one",
            shown_path(checkpoint)
        ))
        .hint("choose another output folder")),
    }
}

/// An evaluator that does not read must not hang us once the pipe is full.
fn never_block(stdin: &ChildStdin) {
    #[cfg(unix)]
    if let Ok(flags) = rustix::fs::fcntl_getfl(stdin) {
        let _ = rustix::fs::fcntl_setfl(stdin, flags | rustix::fs::OFlags::NONBLOCK);
    }
    #[cfg(not(unix))]
    let _ = stdin;
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::jobs::evaluate::Evaluator;
    use crate::progress::{Cancelled, Silent};

    fn serving(script: &str) -> Evaluator {
        let words = ["sh", "-c", script].map(String::from);
        Evaluator::serving(words.to_vec(), Some(Duration::from_secs(2))).unwrap()
    }

    /// What it says to so many checkpoints, and then at the end.
    fn talk(script: &str, n_checkpoints: usize) -> Result<Vec<Metrics>> {
        let evaluator = serving(script);
        let mut session = evaluator.session();
        let answers =
            (0..n_checkpoints).map(|_| session.run(Path::new("/a b/c"), None, &Silent)).collect::<Result<_>>()?;
        session.finish(&Silent).map(|()| answers)
    }

    #[test]
    fn one_process_answers_all() {
        let script =
            "n=0; while IFS= read -r x; do n=$((n+1)); echo noise; echo \"{\\\"n\\\": $n, \\\"len\\\": ${#x}}\"; done";
        let answers = talk(script, 3).unwrap();
        assert_eq!(answers.iter().map(|answer| answer["n"]).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        assert!(answers.iter().all(|answer| answer["len"] == 6.0));
    }

    #[test]
    fn a_bad_one_is_one_line_with_the_end_of_its_stderr() {
        let cases = [
            ("true", 1, "it ended instead (exit status: 0)"),
            ("echo boom >&2; exit 3", 1, "it ended instead (exit status: 3); the end of its stderr:\n  boom"),
            ("read x; echo '{\"a\": 1}'", 2, "it ended instead"),
            ("exec >&-; sleep 60", 1, "it closed its stdout instead"),
            ("read x; exec <&-; echo '{\"a\": 1}'; sleep 60", 2, "it closed its stdin instead"),
            ("sleep 60 & sleep 60", 1, "took more than 2 s"),
            ("printf '{\"a\": '; sleep 60", 1, "a line begun and not ended: `{\"a\": `"),
            ("while read x; do printf '{\"a\": 1}\\n{\"a\": 2}\\n'; done", 1, "one answer expected, 2 found"),
            ("while read x; do echo '{\"a\": NaN}'; done", 1, "a JSON object of metrics expected"),
            ("while read x; do echo '{\"a\": 1e999}'; done", 1, "a JSON object of metrics expected"),
            ("while read x; do echo '{\"a\": 1, \"b\": {}}'; done", 1, "an object at `b` found"),
            ("while read x; do echo '{\"a\": 1, \"b\": null}'; done", 1, "null at `b` found"),
            ("while read x; do echo '{}'; done", 1, "at least one metric"),
            ("while read x; do echo '{\"a\": 1, \"checkpoint\": \"/other\"}'; done", 1, "one for `/other` found"),
            ("read x; printf '{'; head -c 3000000 /dev/zero | tr '\\0' a; echo; sleep 60", 1, "a longer one found"),
            ("read x; echo '{\"a\": 1}'; read x; echo '{\"late\": 1}'", 1, "after the last checkpoint"),
        ];
        for (script, n_checkpoints, expected) in cases {
            let error = talk(script, n_checkpoints).expect_err(script);
            assert!(error.message().contains(expected), "{script}: {error}");
        }
    }

    #[test]
    fn long_noise_is_ignored() {
        let script = "read x; head -c 30000000 /dev/zero | tr '\\0' a; echo; echo '{\"a\": 1}'";
        assert_eq!(talk(script, 1).unwrap()[0]["a"], 1.0);
    }

    #[test]
    fn an_answer_before_the_question_is_refused() {
        let evaluator = serving("read x; echo '{\"a\": 1}'; sleep 0.2; echo '{\"a\": 2}'; sleep 60");
        let mut session = evaluator.session();
        session.run(Path::new("x"), None, &Silent).unwrap();
        std::thread::sleep(Duration::from_millis(600));
        let error = session.run(Path::new("y"), None, &Silent).unwrap_err();
        assert!(error.message().contains("no answer expected before y was asked for"), "{error}");
    }

    #[test]
    fn a_path_goes_over_byte_by_byte_and_a_line_break_not_at_all() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(line_of(Path::new(std::ffi::OsStr::from_bytes(b"/a\xff b"))).unwrap(), b"/a\xff b\n");
        let error = line_of(Path::new("/a\nb")).unwrap_err();
        assert!(error.message().contains("a path that can be one line"), "{error}");
    }

    #[test]
    fn nothing_of_it_is_left_when_it_is_dropped_or_stopped() {
        // What `ps` says of one that is dead begins with Z until its parent has fetched it.
        let is_gone = |pid: f64| {
            let said = std::process::Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
            said.stdout.is_empty() || said.stdout.starts_with(b"Z")
        };
        let evaluator = serving("sleep 60 >&- 2>&- & read x; echo \"{\\\"pid\\\": $!}\"; read x; sleep 60");
        let ask = || {
            let mut session = evaluator.session();
            let pid = session.run(Path::new("x"), None, &Silent).unwrap()["pid"];
            assert!(!is_gone(pid));
            (session, pid)
        };
        let (session, dropped) = ask();
        drop(session);
        let (mut session, stopped) = ask();
        let error = session.run(Path::new("y"), None, &Cancelled).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Interrupted);
        for pid in [dropped, stopped] {
            assert!(becomes_true(|| is_gone(pid), Duration::from_secs(5)));
        }
    }

    #[test]
    fn what_is_not_known_at_the_start_is_refused() {
        for mark in ["{checkpoint}", "--at={scale}"] {
            let error = Evaluator::serving(vec!["eval".into(), mark.into()], None).unwrap_err();
            assert!(error.message().contains("with --serve"), "{error}");
        }
        assert!(Evaluator::serving(Vec::new(), None).is_err());
    }
}
