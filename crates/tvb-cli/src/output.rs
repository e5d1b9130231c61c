//! What the user sees at the end: text or one JSON object on stdout, `error:` and `hint:` lines on stderr, exit codes.
//!
//! This is the only file of the program that writes to the terminal (logs and bars go through `logging.rs` and
//! `progress.rs`, to stderr). Whatever text it is given, what it writes to people holds no control character but the ends of
//! its lines.

use clap::error::ContextValue;
use serde_json::{Map, Value, json};
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind as IoErrorKind, Write as _};
use tvb::shown::{escaped, escaped_lines, is_control};
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

    /// More text, and one more member of the JSON object.
    pub(crate) fn extend(&mut self, text: &str, name: &str, value: Value) {
        self.text.push_str(text);
        Answer::add(&mut self.json, name, value);
    }

    /// One more member of the JSON object.
    pub(crate) fn add(json: &mut Value, name: &str, value: impl Into<Value>) {
        if let Some(object) = json.as_object_mut() {
            object.insert(name.to_owned(), value.into());
        }
    }

    /// What `--json` prints, or the problem that the command fails with.
    pub(crate) fn into_json(self) -> Result<Value> {
        match self.problem {
            Some(problem) => Err(problem),
            None => Ok(self.json),
        }
    }

    /// The answer is shown, and the command fails with `problem` all the same.
    pub(crate) fn with_problem(self, problem: Error) -> Self {
        Self { problem: Some(problem), ..self }
    }
}

/// Shows an answer or an error and returns the exit code. With `is_json`, stdout gets exactly one object either way:
/// an error's is `{"error": {"kind", "message", "hint"}}`, and an answer with a problem has that key among its own. Warnings,
/// which stderr has shown already, are a list in it.
pub(crate) fn show(answer: Result<Answer>, warnings: &[String], is_json: bool) -> u8 {
    let (text, mut json, problem) = match answer {
        Ok(answer) => (answer.text, answer.json, answer.problem),
        Err(error) => (String::new(), Value::Object(Map::new()), Some(error)),
    };
    Answer::add(&mut json, "warnings", warnings);
    let out = if is_json { with_error(json, problem.as_ref()) } else { escaped_lines(&text).into_owned() };
    let written = write_stdout(&out);
    if let Some(error) = problem {
        write_stderr(&error_lines(&error));
        return error.kind().exit_code();
    }
    match written {
        Ok(()) => 0,
        // Whoever read the answer has seen enough of it (`tvb inspect … | head`).
        Err(error) if error.kind() == IoErrorKind::BrokenPipe => 0,
        Err(error) => {
            write_stderr(&error_lines(&Error::failed(format!("standard output: writing failed: {error}"))));
            ErrorKind::Failed.exit_code()
        }
    }
}

/// Shows clap's message: help and version on stdout (exit 0), usage errors on stderr (exit 2).
pub(crate) fn show_usage(error: clap::Error) -> u8 {
    let error = with_escaped_words(error);
    // A closed pipe under a help page is no failure.
    let _ = error.print();
    if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 }
}

/// The same message with what was typed on one line of it: a shell's `*` types the names of files.
pub(crate) fn with_escaped_words(mut error: clap::Error) -> clap::Error {
    let words: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in words {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(escaped(&text).into_owned()),
            ContextValue::Strings(texts) => {
                ContextValue::Strings(texts.iter().map(|text| escaped(text).into_owned()).collect())
            }
            other => other,
        };
        error.insert(kind, value);
    }
    error
}

/// A panic is a bug: say so in two lines and ask for a report, instead of a backtrace nobody asked for.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        write_stderr(&format!(
            "error: internal error{place}: {}\nhint: this is a bug in tvb {}; please report this line and the command\n",
            escaped(what.unwrap_or("no message")),
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
    with_escapes(&format!("{json:#}\n"))
}

/// JSON with an escape for every control character. serde_json leaves those that are no ASCII, which a terminal obeys too;
/// outside of strings there is none.
fn with_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c != '\n' && is_control(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
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

/// Characters of a cell: more than the paths people have.
const CELL_CHARS_MAX: usize = 1_000;

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
        Self {
            columns: columns.map(|(heading, align)| (escaped(heading).into_owned(), align)).into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as there are columns, and each stays on its line.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.iter().map(|text| cell(text)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let mut widths = vec![0; headings.len()];
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                // A width in a format string has an end that text from a file may pass.
                let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => write!(line, "{cell}{blanks}  ")?,
                    Align::Right => write!(line, "{blanks}{cell}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell on one line, with the end of a very long one left out: every row is as wide as the widest.
fn cell(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped(text.get(..end).unwrap_or_default())),
        None => escaped(text).into_owned(),
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
    fn foreign_names_stay_in_their_cells() {
        let mut table = Table::new([("a\nb", Align::Left)]);
        table.row(["x\nerror: y\u{1b}[2J".into()]);
        assert_eq!(table.to_string(), "a\\nb\nx\\nerror: y\\u{1b}[2J\n");
        table.row(["x".repeat(300_000)]);
        assert!(table.to_string().len() < 4_000);
    }

    #[test]
    fn completion_scripts_are_written_as_they_are() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let (mut command, mut script) = (clap::Command::new("tvb").arg(clap::arg!(--flag "f")), Vec::new());
            clap_complete::generate(*shell, &mut command, "tvb", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert_eq!(escaped_lines(&script), script, "{shell}");
        }
    }

    #[test]
    fn usage_errors_repeat_no_control_character() {
        let command = clap::Command::new("tvb").arg(clap::arg!(--number <N>).value_parser(["one"]));
        for words in [["tvb", "x\u{1b}[2J\nerror: y"], ["tvb", "--number=\u{1b}\u{202e}"]] {
            let error = command.clone().try_get_matches_from(words).unwrap_err();
            let shown = with_escaped_words(error.with_cmd(&command)).to_string();
            assert!(!shown.contains(['\u{1b}', '\u{202e}']) && shown.contains("\\u{1b}"), "{shown}");
            assert_eq!(shown.matches("error:").count(), 1 + shown.matches("\\nerror:").count(), "{shown}");
        }
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
    fn json_drives_no_terminal_and_holds_the_true_name() {
        let name = "a\nb\u{1b}\u{7f}\u{9b}2J\u{202e}\u{e0001}ü";
        let text = with_error(json!({ "name": name }), None);
        assert!(!text.contains(|c| c != '\n' && is_control(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["name"].as_str(), Some(name));
    }

    #[test]
    fn errors_are_one_line_and_a_hint() {
        assert_eq!(error_lines(&Error::failed("a: b")), "error: a: b\n");
        assert_eq!(error_lines(&Error::failed("a: b").hint("c")), "error: a: b\nhint: c\n");
    }
}
