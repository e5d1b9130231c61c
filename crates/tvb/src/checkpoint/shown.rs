//! Names from files inside messages: a hostile name must not break the one line a message has.

/// `text` in back quotes, with control characters escaped and the middle of a long one left out.
pub(crate) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let escaped: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    // Quotes need no escape between back quotes.
    let escaped = escaped.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(CHARS_MAX).is_some() { format!("`{escaped}…`") } else { format!("`{escaped}`") }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn stays_on_one_short_line() {
        assert_eq!(shown("layer.0.weight"), "`layer.0.weight`");
        assert_eq!(shown("a\nb\u{1b}[2J"), "`a\\nb\\u{1b}[2J`");
        assert!(shown(&"x".repeat(10_000)).len() < 200);
    }
}
