//! Runs the user's evaluator on one checkpoint and reads the metrics it prints.
//!
//! The evaluator is any program: its last line on stdout that is not blank must be a flat JSON object of numbers. It is
//! run in a process group of its own, so that a hanging one is ended with everything it started. A child of it that left the
//! group may live on, and may hold the pipes: nothing here waits for it.

use super::child_output::Lines;
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What stands for the checkpoint's path in the evaluator's arguments.
pub const CHECKPOINT: &str = "{checkpoint}";
/// What stands for the scale λ in the evaluator's arguments.
pub const SCALE: &str = "{scale}";
/// Lines of the evaluator's stderr that are shown when it fails.
const STDERR_LINES: usize = 20;
/// A longer line of stdout is cut.
const STDOUT_LINE_BYTES: usize = 1 << 20;
/// A longer line of stderr is cut.
const STDERR_LINE_BYTES: usize = 1 << 13;
/// How often a running evaluator is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long our own signal may come after the evaluator's.
const SIGNAL_LAG: Duration = Duration::from_millis(500);
/// How long a killed evaluator may take to be gone.
const KILL_TIME: Duration = Duration::from_millis(500);
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
        let words: Vec<OsString> = self.command.iter().map(|word| filled(word, checkpoint, scale)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::usage("an evaluator command expected, an empty one found"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        own_process_group(&mut command);
        let mut child = command.spawn().map_err(|error| {
            Error::failed(format!("evaluator {}: could not be started: {error}", program.to_string_lossy()))
                .hint("check the path after `--`")
        })?;
        let out = Lines::of(child.stdout.take(), 1, STDOUT_LINE_BYTES);
        let err = Lines::of(child.stderr.take(), STDERR_LINES, STDERR_LINE_BYTES);
        let status = self.wait(&mut child, progress, || out.is_at_end() && err.is_at_end());
        if !matches!(status, Ok((_, IsOver(true)))) {
            end_process_group(&mut child);
        }
        let (out, err) = (out.close(), err.close());
        let with_stderr = |message: String| match err.is_empty() {
            true => Error::failed(message),
            false => Error::failed(format!("{message}; the end of its stderr:")).below(&err),
        };
        let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let shown = format!("evaluator `{}` at scale {scale}", line.join(" "));
        let (status, _) = status.map_err(|stop| match stop {
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

    /// Waits until it is done and its output closed. Of one that is done the output may stay open for [`LINGER`]: children
    /// that it left behind hold it.
    fn wait(
        &self,
        child: &mut Child,
        progress: &dyn Progress,
        is_closed: impl Fn() -> bool,
    ) -> std::result::Result<(ExitStatus, IsOver), Stop> {
        let started = Instant::now();
        let mut done: Option<(ExitStatus, Instant)> = None;
        loop {
            if done.is_none()
                && let Some(status) = child.try_wait().map_err(Stop::Lost)?
            {
                done = Some((status, Instant::now()));
            }
            match done {
                Some((status, _)) if is_closed() => return Ok((status, IsOver(true))),
                Some((status, since)) if since.elapsed() > LINGER => return Ok((status, IsOver(false))),
                _ => {}
            }
            if progress.cancelled() {
                return Err(Stop::Interrupted);
            }
            if let Some(limit) = self.timeout.filter(|limit| started.elapsed() > *limit) {
                match done {
                    Some((status, _)) => return Ok((status, IsOver(false))),
                    None => return Err(Stop::TimedOut(limit)),
                }
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Whether nothing of an evaluator is left as far as can be seen: its output is closed.
struct IsOver(bool);

/// A word of the command with what it stands for, in one go: what is put in is not looked at again, and a path is put in
/// byte by byte.
fn filled(word: &str, checkpoint: &Path, scale: f64) -> OsString {
    let scale = scale.to_string();
    let mut out = OsString::new();
    let mut rest = word;
    loop {
        let next = [(CHECKPOINT, checkpoint.as_os_str()), (SCALE, OsStr::new(&scale))]
            .into_iter()
            .filter_map(|(mark, value)| Some((rest.split_once(mark)?, value)))
            .min_by_key(|((before, _), _)| before.len());
        let Some(((before, behind), value)) = next else {
            out.push(rest);
            return out;
        };
        out.push(before);
        out.push(value);
        rest = behind;
    }
}

fn becomes_true(mut is_true: impl FnMut() -> bool, within: Duration) -> bool {
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
    // A killed process is gone at once, unless it hangs inside the system.
    let _ = becomes_true(|| !matches!(child.try_wait(), Ok(None)), KILL_TIME);
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

    #[test]
    fn words_are_filled_in_one_go() {
        let cases = [
            ("{checkpoint}", "/x/{scale}/{checkpoint}"),
            ("--at={scale},{checkpoint}", "--at=0.25,/x/{scale}/{checkpoint}"),
            ("{scale}{scale}", "0.250.25"),
            ("{{scale}}", "{0.25}"),
            ("plain {", "plain {"),
        ];
        for (word, expected) in cases {
            assert_eq!(filled(word, Path::new("/x/{scale}/{checkpoint}"), 0.25), expected, "{word}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_reaches_the_evaluator_byte_by_byte() {
        use std::os::unix::ffi::OsStrExt;
        let script = "test \"$(printf %s \"$1\" | od -An -tx1 | tr -d ' \\n')\" = 2f61ff && echo '{\"is_same\": 1}'";
        let words = ["sh", "-c", script, "eval", CHECKPOINT].map(String::from);
        let evaluator = Evaluator::new(words.to_vec(), None).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a\xff"));
        let metrics = evaluator.run(path, 0.0, &crate::progress::Silent).unwrap();
        assert_eq!(metrics.get("is_same"), Some(&1.0));
    }

    /// What holds the pipes outlives the evaluator, and left its group where it can.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_child_that_holds_the_pipes_is_waited_for() {
        let limit = Some(Duration::from_millis(300));
        let error = shell("setsid sleep 20 & sleep 20", limit).unwrap_err();
        assert!(error.message().contains("took more than 0.3 s"), "{error}");
        let metrics = shell("setsid sleep 20 & echo '{\"a\": 1}'", limit).unwrap();
        assert_eq!(metrics.get("a"), Some(&1.0));
        let words = ["sh", "-c", "setsid sleep 20 & sleep 20", CHECKPOINT].map(String::from);
        let evaluator = Evaluator::new(words.to_vec(), None).unwrap();
        let error = evaluator.run(Path::new("x"), 0.0, &crate::progress::Cancelled).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Interrupted);
    }

    #[cfg(unix)]
    #[test]
    fn names_in_its_output_forge_no_line() {
        let error = shell("printf 'a\\033[2J\\r\\nerror: b\\n' >&2; exit 1", None).unwrap_err();
        let lines: Vec<&str> = error.message().lines().skip(1).collect();
        assert_eq!(lines, ["  a\\u{1b}[2J", "  error: b"]);
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
