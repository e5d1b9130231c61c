//! What the user sees at the end: text or one JSON object on stdout, `error:` and `hint:` lines on stderr, exit codes.
//!
//! This is the only file of the program that writes to the terminal (logs and bars go through `logging.rs` and
//! `progress.rs`, to stderr).

use serde_json::{Map, Value, json};
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind as IoErrorKind, Write as _};
use std::process::ExitCode;
use tvb::{Error, ErrorKind, Result};

/// What a command found out: the same content as text for people and as JSON for programs.
#[derive(Debug)]
pub(crate) struct Answer {
    text: String,
    json: Value,
    problem: Option<Error>,
}

impl Answer {
    /// `json` is an object; it is all that `--json` prints.
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        debug_assert!(json.is_object(), "an answer is one JSON object");
        Self { text: text.into(), json, problem: None }
    }

    /// The answer is shown, and the command fails with `problem` all the same.
    pub(crate) fn with_problem(self, problem: Error) -> Self {
        Self { problem: Some(problem), ..self }
    }
}

/// Shows an answer or an error and returns the exit code. With `is_json`, stdout gets exactly one object either way:
/// an error's is `{"error": {"kind", "message", "hint"}}`, and an answer with a problem has that key among its own.
pub(crate) fn show(answer: Result<Answer>, is_json: bool) -> ExitCode {
    let (text, json, problem) = match answer {
        Ok(answer) => (answer.text, answer.json, answer.problem),
        Err(error) => (String::new(), Value::Object(Map::new()), Some(error)),
    };
    let out = if is_json { with_error(json, problem.as_ref()) } else { text };
    let written = write_stdout(&out);
    if let Some(error) = problem {
        write_stderr(&error_lines(&error));
        return ExitCode::from(error.kind().exit_code());
    }
    match written {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the answer has seen enough of it (`tvb inspect … | head`).
        Err(error) if error.kind() == IoErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            write_stderr(&error_lines(&Error::failed(format!("standard output: writing failed: {error}"))));
            ExitCode::from(ErrorKind::Failed.exit_code())
        }
    }
}

/// Shows clap's message: help and version on stdout (exit 0), usage errors on stderr (exit 2).
pub(crate) fn show_usage(error: &clap::Error) -> ExitCode {
    // A closed pipe under a help page is no failure.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 })
}

/// A panic is a bug: say so in two lines and ask for a report, instead of a backtrace nobody asked for.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        write_stderr(&format!(
            "error: internal error{place}: {}\nhint: this is a bug in tvb {}; please report this line and the command\n",
            what.unwrap_or("no message"),
            env!("CARGO_PKG_VERSION"),
        ));
    }));
}

/// The JSON text of an answer, with its problem under `error`.
fn with_error(mut json: Value, problem: Option<&Error>) -> String {
    if let (Some(object), Some(error)) = (json.as_object_mut(), problem) {
        let kind = match error.kind() {
            ErrorKind::Failed => "failed",
            ErrorKind::Usage => "usage",
            ErrorKind::Rejected => "rejected",
            ErrorKind::Interrupted => "interrupted",
        };
        let report = json!({ "kind": kind, "message": error.message(), "hint": error.hint_text() });
        object.insert("error".into(), report);
    }
    format!("{json:#}\n")
}

/// `error: …` and, where there is something to do, `hint: …`.
fn error_lines(error: &Error) -> String {
    let mut lines = format!("error: {}\n", error.message());
    if let Some(hint) = error.hint_text() {
        let _ = writeln!(lines, "hint: {hint}");
    }
    lines
}

fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Nothing can be said about a stderr that cannot be written.
fn write_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// On which side of its column a cell is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Aligned columns under a heading, two blanks apart, without lines: as easy to read as to cut with awk.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self { columns: columns.map(|(heading, align)| (heading.to_owned(), align)).into(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let widths: Vec<usize> = (0..headings.len())
            .map(|c| std::iter::once(&headings).chain(&self.rows).map(|row| row[c].chars().count()).max().unwrap_or(0))
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => write!(line, "{cell:<width$}  ")?,
                    Align::Right => write!(line, "{cell:>width$}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A JSON value where the number is finite, null otherwise.
pub(crate) fn finite(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new([("task", Align::Left), ("error", Align::Right)]);
        table.row(["MNIST".into(), "0.1".into()]);
        table.row(["é".into(), "0.25".into()]);
        assert_eq!(table.to_string(), "task   error\nMNIST    0.1\né       0.25\n");
    }

    #[test]
    fn json_is_one_object_with_the_problem_inside() {
        let error = Error::rejected("a.safetensors: too short").hint("fetch it again");
        let cases =
            [(json!({}), Some(&error)), (json!({ "n_tasks": 8 }), Some(&error)), (json!({ "n_tasks": 8 }), None)];
        for (answer, problem) in cases {
            let read: Value = serde_json::from_str(&with_error(answer.clone(), problem)).unwrap();
            assert_eq!(read.get("n_tasks"), answer.get("n_tasks"));
            assert_eq!(read["error"]["message"].as_str(), problem.map(Error::message));
            assert_eq!(read["error"]["kind"].as_str(), problem.map(|_| "rejected"));
        }
    }

    #[test]
    fn errors_are_one_line_and_a_hint() {
        assert_eq!(error_lines(&Error::failed("a: b")), "error: a: b\n");
        assert_eq!(error_lines(&Error::failed("a: b").hint("c")), "error: a: b\nhint: c\n");
    }
}
