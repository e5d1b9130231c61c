//! How a name from somewhere else is shown. Names of tensors, tasks, files, methods, metrics and jobs, and every other text
//! out of a file or a child process, may hold anything: sequences that drive a terminal, line breaks that forge a line of
//! ours, letters that turn the direction of the text, a spreadsheet's formulas.
//!
//! Every such text goes through here on its way to people. What goes to programs (JSON, safetensors, manifests) holds the
//! name as it is, escaped by its format.

use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;

/// Characters of a name that a message shows.
const CHARS_MAX: usize = 160;
/// Characters of a line: a few paths of the greatest length.
const LINE_CHARS_MAX: usize = 10_000;

/// Whether a character does something instead of being seen: C0 and C1 controls, line and paragraph separators, marks of
/// direction, and what has no width.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` on one line, each control character as Rust writes it: `\n`, `\u{1b}`. Text that was escaped before stays as it is.
///
/// ```
/// assert_eq!(tvb::shown::escaped("a\nerror: b\u{1b}[2J"), r"a\nerror: b\u{1b}[2J");
/// ```
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, |_| false)
}

/// The same for text of several lines: line breaks stay.
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    escaped_but(text, |c| c == '\n')
}

fn escaped_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |c: char| is_control(c) && !stays(c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A line of a message: escaped, and with the end of a very long one left out.
pub(crate) fn line(text: &str) -> String {
    match text.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped(text.get(..end).unwrap_or_default())),
        None => escaped(text).into_owned(),
    }
}

/// A name inside a message: in back quotes, escaped, and with the end of a long one left out.
///
/// ```
/// assert_eq!(tvb::shown::shown("layer.0.weight"), "`layer.0.weight`");
/// ```
pub fn shown(text: &str) -> String {
    let (start, more) = match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => (text.get(..end).unwrap_or_default(), "…"),
        None => (text, ""),
    };
    // A name must not end its quotes, nor look escaped where it is not.
    let start = start.replace('\\', "\\\\").replace('`', "\\`");
    format!("`{}{more}`", escaped(&start))
}

/// A path inside a message. Bytes that are no UTF-8 are shown as `U+FFFD`.
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// A path as a JSON value. JSON is Unicode: of a path that is not, each stretch of other bytes becomes `U+FFFD`, so such a
/// value says which file was meant but does not open it.
pub fn path_json(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// A cell of a CSV file: control characters escaped, quoted as RFC 4180 has it where a comma or a quote asks for it. Text
/// that a spreadsheet would take for a formula (it begins with `=`, `+`, `-` or `@`, and is no number) gets a `'` before it,
/// which spreadsheets read as "this is text".
///
/// ```
/// # use tvb::shown::csv_cell;
/// assert_eq!([csv_cell("a,b"), csv_cell("=cmd()"), csv_cell("-0.5")], ["\"a,b\"", "'=cmd()", "-0.5"]);
/// ```
pub fn csv_cell(text: &str) -> String {
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    // A tab or a carriage return is escaped, but some readers look for the formula after them and after blanks.
    let begins = text.trim_start_matches(|c: char| c.is_whitespace() || is_control(c));
    let is_formula = begins.starts_with(FORMULA) && begins != "-" && text.parse::<f64>().is_err();
    let text = escaped(text);
    let mark = if is_formula { "'" } else { "" };
    match text.contains([',', '"', ';']) || text.starts_with(' ') || text.ends_with(' ') {
        true => format!("\"{mark}{}\"", text.replace('"', "\"\"")),
        false => format!("{mark}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What must reach nobody's terminal as it is.
    const HOSTILE: [char; 14] = [
        '\0', '\u{7}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{200b}', '\u{2028}', '\u{202e}',
        '\u{2066}', '\u{feff}',
    ];

    #[test]
    fn stays_on_one_short_line() {
        assert_eq!(shown("a\nb\u{1b}[2J"), "`a\\nb\\u{1b}[2J`");
        assert_eq!(shown(r"a\nb"), r"`a\\nb`");
        assert_eq!(shown("a` is fine; `b"), "`a\\` is fine; \\`b`");
        assert!(shown(&"x".repeat(10_000)).len() < 200 && shown(&"ü".repeat(10_000)).ends_with("…`"));
    }

    #[test]
    fn no_control_character_is_left() {
        for c in HOSTILE {
            let text = format!("a{c}error: b");
            for shown in [escaped(&text).into_owned(), shown(&text), shown_path(Path::new(&text)), csv_cell(&text)] {
                assert!(!shown.contains(is_control), "{c:?}: {shown:?}");
                assert_eq!(escaped(&shown), shown, "escaped twice");
            }
            assert_eq!(escaped_lines(&text).contains(c), c == '\n', "{c:?}");
        }
        for plain in ["", "größe 0.5", "日本語", "a\\b", "e\u{301}"] {
            assert!(matches!(escaped(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn cells_are_neither_formulas_nor_more_cells() {
        let cases = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "a\\nb"),
            ("=1+1", "'=1+1"),
            ("+x", "'+x"),
            ("-x", "'-x"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\\t=1"),
            (" =1", "\"' =1\""),
            ("=a,\"b\"", "\"'=a,\"\"b\"\"\""),
            ("-", "-"),
            ("-0.25", "-0.25"),
            ("+1e-9", "+1e-9"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(csv_cell(text), expected, "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_unicode_is_shown_and_written() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a/\xff\x1b"));
        assert_eq!(shown_path(path), "/a/\u{fffd}\\u{1b}");
        assert_eq!(path_json(path), "/a/\u{fffd}\u{1b}");
    }
}
