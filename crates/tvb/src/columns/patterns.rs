//! Regular expressions that users write, with errors of one line.

use crate::error::{Error, Result};
use regex::Regex;

/// A parsed pattern takes a hundred times its length.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// A pattern as it was written. The message is one line: the library's own draws the pattern over several.
///
/// # Errors
/// Usage: not a regular expression, or a very long one.
pub fn regex(pattern: &str) -> Result<Regex> {
    if pattern.len() > PATTERN_BYTES_MAX {
        let n_bytes = pattern.len();
        return Err(Error::usage(format!("a pattern of at most {PATTERN_BYTES_MAX} bytes expected, {n_bytes} found")));
    }
    Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
        Error::usage(format!("not a regular expression: {pattern:?}: {reason}")).caused_by(error)
    })
}
