//! An evaluator that is started for each checkpoint: its last line on stdout that is not blank is its answer.

use super::child::{
    LINGER, POLL_INTERVAL, SIGNAL_LAG, STDERR_LINE_BYTES, STDERR_LINES, STDOUT_LINE_BYTES, becomes_true,
    end_process_group, failure, start, was_stopped,
};
use super::evaluator::{CHECKPOINT, Evaluator, SCALE};
use super::metrics::{Metrics, parse_metrics};
use crate::error::{Error, Result};
use crate::jobs::child_output::Lines;
use crate::progress::Progress;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs it on one checkpoint.
///
/// # Errors
/// Usage: a command that mentions a scale where there is none. Failed: it cannot be started, exits with an error, takes too
/// long, or prints no metrics. Interrupted.
pub(super) fn run(
    evaluator: &Evaluator,
    checkpoint: &Path,
    scale: Option<f64>,
    progress: &dyn Progress,
) -> Result<Metrics> {
    if scale.is_none() && evaluator.command.iter().any(|word| word.contains(SCALE)) {
        return Err(Error::usage(format!(
            "an evaluator command without {SCALE} expected: candidates here have no scale"
        )));
    }
    let words: Vec<OsString> = evaluator.command.iter().map(|word| filled(word, checkpoint, scale)).collect();
    let mut child = start(&words, Stdio::null())?;
    let out = Lines::of(child.stdout.take(), 1, STDOUT_LINE_BYTES);
    let err = Lines::of(child.stderr.take(), STDERR_LINES, STDERR_LINE_BYTES);
    let status = wait(evaluator.timeout, &mut child, progress, || out.is_at_end() && err.is_at_end());
    if !matches!(status, Ok((_, IsOver(true)))) {
        end_process_group(&mut child);
    }
    let (out, err) = (out.close(), err.close());
    let with_stderr = |message: String| failure(message, &err);
    let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let at = scale.map_or(String::new(), |scale| format!(" at scale {scale}"));
    let shown = format!("evaluator `{}`{at}", line.join(" "));
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
        with_stderr(format!("{shown}: {what}")).hint("let it print {\"metric\": 0.5, …} as the last line of its stdout")
    })
}

/// Waits until it is done and its output closed. Of one that is done the output may stay open for [`LINGER`]: children
/// that it left behind hold it.
fn wait(
    timeout: Option<Duration>,
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
        if let Some(limit) = timeout.filter(|limit| started.elapsed() > *limit) {
            match done {
                Some((status, _)) => return Ok((status, IsOver(false))),
                None => return Err(Stop::TimedOut(limit)),
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether nothing of an evaluator is left as far as can be seen: its output is closed.
struct IsOver(bool);

/// A word of the command with what it stands for, in one go: what is put in is not looked at again, and a path is put in
/// byte by byte.
fn filled(word: &str, checkpoint: &Path, scale: Option<f64>) -> OsString {
    let scale = scale.map_or_else(|| SCALE.to_owned(), |scale| scale.to_string());
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

/// Why an evaluator was not waited for to its end.
enum Stop {
    Interrupted,
    TimedOut(Duration),
    Lost(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::progress::Silent;

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
            assert_eq!(filled(word, Path::new("/x/{scale}/{checkpoint}"), Some(0.25)), expected, "{word}");
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
        let metrics = run(&evaluator, path, None, &Silent).unwrap();
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
        let error = run(&evaluator, Path::new("x"), None, &crate::progress::Cancelled).unwrap_err();
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
        run(&Evaluator::new(words.to_vec(), timeout)?, Path::new("/x/y"), Some(0.25), &Silent)
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
        assert!(run(&missing, Path::new("x"), None, &Silent).unwrap_err().message().contains("could not be started"));
    }
}
