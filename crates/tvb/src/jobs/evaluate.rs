//! Runs the user's evaluator on one checkpoint and reads the metrics it prints.
//!
//! The evaluator is any program: its last line on stdout that is not blank must be a flat JSON object of numbers. It is
//! run in a process group of its own, so that a hanging one is ended with everything it started.

use crate::error::{Error, Result};
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What stands for the checkpoint's path in the evaluator's arguments.
pub const CHECKPOINT: &str = "{checkpoint}";
/// What stands for the scale λ in the evaluator's arguments.
pub const SCALE: &str = "{scale}";
/// Lines of the evaluator's stderr that are shown when it fails.
const STDERR_LINES: usize = 20;
/// A longer line of output is cut.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// How often a running evaluator is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long our own signal may come after the evaluator's.
const SIGNAL_LAG: Duration = Duration::from_millis(500);
/// How long the output of an evaluator that is done may stay open.
const LINGER: Duration = Duration::from_secs(2);

/// The metrics of one checkpoint, by name.
pub type Metrics = BTreeMap<String, f64>;

/// The evaluator's command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluator {
    /// Program and arguments, with [`CHECKPOINT`] (and where wanted [`SCALE`]) to be replaced.
    pub command: Vec<String>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
}

impl Evaluator {
    /// An evaluator; the command must mention [`CHECKPOINT`].
    ///
    /// # Errors
    /// Usage: an empty command, or one that does not mention the checkpoint.
    pub fn new(command: Vec<String>, timeout: Option<Duration>) -> Result<Evaluator> {
        if command.is_empty() || !command.iter().any(|word| word.contains(CHECKPOINT)) {
            return Err(Error::usage(format!("an evaluator command that mentions {CHECKPOINT} expected"))
                .hint(format!("for example: -- python eval.py {CHECKPOINT}")));
        }
        Ok(Evaluator { command, timeout })
    }

    /// Runs it on one checkpoint.
    ///
    /// # Errors
    /// Failed: it cannot be started, exits with an error, takes too long, or prints no metrics. Interrupted.
    pub fn run(&self, checkpoint: &Path, scale: f64, progress: &dyn Progress) -> Result<Metrics> {
        let words = self.command.iter().map(|word| {
            word.replace(CHECKPOINT, &checkpoint.display().to_string()).replace(SCALE, &format!("{scale}"))
        });
        let words: Vec<String> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        own_process_group(&mut command);
        let mut child = command.spawn().map_err(|error| {
            Error::failed(format!("evaluator {}: could not be started: {error}", words[0]))
                .hint("check the path after `--`")
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, out, err) = std::thread::scope(|scope| {
            let out = scope.spawn(|| last_lines(stdout, 1));
            let err = scope.spawn(|| last_lines(stderr, STDERR_LINES));
            let status = self.wait(&mut child, progress);
            // One that is done may have left children behind that hold its output open.
            let is_closed = || out.is_finished() && err.is_finished();
            if status.is_err() || !becomes_true(is_closed, LINGER) {
                end_process_group(&mut child);
            }
            (status, out.join().unwrap_or_default(), err.join().unwrap_or_default())
        });
        let with_stderr = |message: String| match err.is_empty() {
            true => Error::failed(message),
            false => Error::failed(format!("{message}; the end of its stderr:")).below(&err),
        };
        let shown = format!("evaluator `{}` at scale {scale}", words.join(" "));
        let status = status.map_err(|stop| match stop {
            Stop::Interrupted => Error::interrupted(),
            Stop::TimedOut(limit) => {
                with_stderr(format!("{shown}: took more than {} s and was ended", limit.as_secs_f64()))
                    .hint("--timeout gives it longer")
            }
            Stop::Lost(error) => with_stderr(format!("{shown}: {error}")),
        })?;
        if !status.success() {
            // A signal for both of us may reach the evaluator first.
            if was_stopped(status) && becomes_true(|| progress.cancelled(), SIGNAL_LAG) {
                return Err(Error::interrupted());
            }
            return Err(with_stderr(format!("{shown}: {status}")));
        }
        let line = out.last().map_or("", String::as_str);
        parse_metrics(line).map_err(|what| {
            with_stderr(format!("{shown}: {what}"))
                .hint("let it print {\"metric\": 0.5, …} as the last line of its stdout")
        })
    }

    fn wait(&self, child: &mut Child, progress: &dyn Progress) -> std::result::Result<ExitStatus, Stop> {
        let started = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(Stop::Lost(error)),
            }
            if progress.cancelled() {
                return Err(Stop::Interrupted);
            }
            if let Some(limit) = self.timeout.filter(|limit| started.elapsed() > *limit) {
                return Err(Stop::TimedOut(limit));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn becomes_true(is_true: impl Fn() -> bool, within: Duration) -> bool {
    let started = Instant::now();
    while !is_true() {
        if started.elapsed() > within {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL.min(within));
    }
    true
}

/// Why an evaluator was not waited for to its end.
enum Stop {
    Interrupted,
    TimedOut(Duration),
    Lost(std::io::Error),
}

/// Whether a signal that asks to stop ended it: by itself, or as a shell or Python says it.
fn was_stopped(status: ExitStatus) -> bool {
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

/// The metrics on an evaluator's last line.
///
/// # Errors
/// One line that says what is wrong with the line.
pub fn parse_metrics(line: &str) -> std::result::Result<Metrics, String> {
    let found = || match line.trim() {
        "" => "nothing found".to_owned(),
        text => format!("{:?} found", text.chars().take(80).collect::<String>()),
    };
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|_| format!("a JSON object of metrics on the last line of its stdout expected, {}", found()))?;
    let object = value.as_object().ok_or_else(|| format!("a JSON object of metrics expected, {}", found()))?;
    let metrics: Metrics = object.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    if metrics.is_empty() {
        return Err(format!("at least one metric that is a number expected, {}", found()));
    }
    Ok(metrics)
}

/// The last `n_lines` lines that are not blank; everything else is read and thrown away.
fn last_lines(stream: Option<impl Read>, n_lines: usize) -> Vec<String> {
    let Some(stream) = stream else { return Vec::new() };
    let mut reader = BufReader::new(stream);
    let mut kept = std::collections::VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            kept.push_back(text);
            if kept.len() > n_lines {
                kept.pop_front();
            }
        }
    }
}

#[cfg(unix)]
fn own_process_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_process_group(_command: &mut Command) {}

fn end_process_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_a_flat_object_of_numbers() {
        let cases: [(&str, Option<usize>); 6] = [
            ("{\"mean\": 0.5, \"digits\": 1}", Some(2)),
            ("{\"mean\": 0.5, \"name\": \"x\", \"nested\": {}}", Some(1)),
            ("{}", None),
            ("[1]", None),
            ("accuracy: 0.5", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_metrics(line).ok().map(|metrics| metrics.len()), expected, "{line}");
        }
    }

    #[cfg(unix)]
    fn shell(script: &str, timeout: Option<Duration>) -> Result<Metrics> {
        let words = ["sh", "-c", script, "eval", CHECKPOINT, SCALE].map(String::from);
        Evaluator::new(words.to_vec(), timeout)?.run(Path::new("/x/y"), 0.25, &crate::progress::Silent)
    }

    #[cfg(unix)]
    #[test]
    fn an_evaluator_is_run_and_its_last_line_read() {
        let metrics = shell("echo progress; echo \"{\\\"scale\\\": $2, \\\"n\\\": ${#1}}\"; echo", None).unwrap();
        assert_eq!(metrics.get("scale"), Some(&0.25));
        assert_eq!(metrics.get("n"), Some(&4.0));
    }

    #[cfg(unix)]
    #[test]
    fn failures_say_what_happened() {
        let cases = [
            ("echo boom >&2; exit 3", "boom"),
            ("echo boom >&2; exit 3", "exit status: 3"),
            ("echo no json", "a JSON object of metrics on the last line"),
            ("true", "nothing found"),
            ("kill -9 $$", "signal: 9"),
        ];
        for (script, expected) in cases {
            let error = shell(script, None).unwrap_err();
            assert!(error.message().contains(expected), "{script}: {error}");
        }
        let error = shell("sleep 60 & sleep 60", Some(Duration::from_millis(200))).unwrap_err();
        assert!(error.message().contains("took more than 0.2 s"), "{error}");
        assert!(Evaluator::new(vec!["true".into()], None).is_err());
        let missing = Evaluator::new(vec!["/no/such/program".into(), CHECKPOINT.into()], None).unwrap();
        assert!(
            missing
                .run(Path::new("x"), 0.0, &crate::progress::Silent)
                .unwrap_err()
                .message()
                .contains("could not be started")
        );
    }
}
