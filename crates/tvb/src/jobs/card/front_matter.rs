//! What is taken over from the front matter of the base's own model card: plain words and lists of them, under a few keys.
//!
//! A card may come from others. This reads the small part of YAML that such keys are written in and nothing else: no anchors
//! or aliases, no tags, no nesting, no blocks of text. What it cannot read, and what does not look as the key's values do, is left out.

/// Lines of a front matter that are looked at; one that is longer is taken for none.
const LINES_MAX: usize = 5_000;
/// Values of a list that are kept.
const VALUES_MAX: usize = 200;
/// Characters of a value.
const CHARS_MAX: usize = 200;

/// The keys that are taken over.
pub(super) const KEYS: [&str; 6] =
    ["license", "license_name", "license_link", "language", "library_name", "pipeline_tag"];

/// The values of one key: one word, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    One(String),
    List(Vec<String>),
}

/// The keys of [`KEYS`] that the front matter of a card has, in their order there, each once.
pub(super) fn read(card: &str) -> Vec<(&'static str, Value)> {
    let mut lines = card.trim_start_matches('\u{feff}').lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return Vec::new();
    }
    let mut found: Vec<(&'static str, Option<Value>)> = Vec::new();
    // The key whose list goes on; none where what stands below a key is not for us.
    let mut open = false;
    for line in lines.by_ref().take(LINES_MAX) {
        if line == "---" || line == "..." {
            let values = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
            return values.filter(|(key, value)| is_meant(key, value)).collect();
        }
        if line.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t', '-']) {
            let Some((_, value)) = found.last_mut().filter(|_| open) else { continue };
            let item = line.trim_start().strip_prefix("- ").and_then(scalar);
            match (value, item) {
                (Some(Value::List(values)), Some(item)) if values.len() < VALUES_MAX => values.push(item),
                (value, _) => {
                    *value = None;
                    open = false;
                }
            }
            continue;
        }
        open = false;
        let Some((key, rest)) = line.split_once(':') else { continue };
        let Some(key) = KEYS.into_iter().find(|known| *known == key) else { continue };
        if found.iter().any(|(known, _)| *known == key) {
            continue;
        }
        let rest = rest.trim();
        open = rest.is_empty();
        let list = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let value = match list {
            _ if rest.is_empty() => Some(Value::List(Vec::new())),
            Some(items) => items.split(',').take(VALUES_MAX).map(scalar).collect::<Option<Vec<_>>>().map(Value::List),
            None => scalar(rest).map(Value::One),
        };
        found.push((key, value));
    }
    Vec::new()
}

/// A word in plain or quoted style, without what YAML gives a meaning to.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    let text = match quoted {
        Some(inner) => inner,
        None => text.split(" #").next().unwrap_or_default().trim_end(),
    };
    let is_plain = quoted.is_some() || !text.starts_with(['&', '*', '!', '|', '>', '{', '[', '%', '@', '`', '"', '\'']);
    let is_word = !text.is_empty() && text.chars().take(CHARS_MAX + 1).count() <= CHARS_MAX;
    (is_plain && is_word && !text.contains(['"', '\'', '\\'])).then(|| text.to_owned())
}

/// Whether a value looks as the key's do: identifiers, and for a licence's place an address or a file.
fn is_meant(key: &str, value: &Value) -> bool {
    let is_identifier = |text: &String| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte)) && text.len() <= 64
    };
    let is_place = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>`|".contains(&byte));
    match (key, value) {
        ("license_link", Value::One(text)) => is_place(text),
        ("language" | "license", Value::List(values)) => !values.is_empty() && values.iter().all(is_identifier),
        (_, Value::One(text)) => is_identifier(text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        Value::One(text.into())
    }

    #[test]
    fn words_and_lists_are_read() {
        let card = "\u{feff}---\r\nlanguage:\r\n- en\r\n  - \"no\"  \r\n# a remark\r\nlicense: apache-2.0 # really\r\n\
                    tags:\r\n- license: mit\r\nlicense_name: 'x'\r\nlicense_link: https://example.org/LICENSE?a=b#c\r\n\
                    model-index:\r\n- name: x\r\n  results:\r\n  - task: {}\r\npipeline_tag: text-generation\r\n---\r\nlicense: gpl\r\n";
        let expected = [
            ("language", Value::List(vec!["en".into(), "no".into()])),
            ("license", one("apache-2.0")),
            ("license_name", one("x")),
            ("license_link", one("https://example.org/LICENSE?a=b#c")),
            ("pipeline_tag", one("text-generation")),
        ];
        assert_eq!(read(card), expected);
        assert_eq!(read("---\nlanguage: [en, 'de']\n---"), [("language", Value::List(vec!["en".into(), "de".into()]))]);
        assert_eq!(read("---\nlicense: mit\nlicense: gpl\n---\n"), [("license", one("mit"))]);
    }

    #[test]
    fn hostile_front_matter_is_left_out() {
        let long = "x".repeat(CHARS_MAX + 1);
        let values = [
            "&a mit",
            "*a",
            "!!python/object:os.system x",
            "|",
            ">-",
            "{a: b}",
            "[[a]]",
            "[a, *b]",
            "\"a\\nb\"",
            "'a",
            "a b",
            "<script>",
            "a\u{202e}b",
            "`x`",
            &long,
            "é",
        ];
        for value in values {
            for key in ["license", "library_name", "pipeline_tag", "language"] {
                assert_eq!(read(&format!("---\n{key}: {value}\n---\n")), [], "{key}: {value}");
            }
        }
        for body in
            ["license: |\n  mit\n  apache", "language:\n- en\n- [de]", "language:\n- a: b", "license:\n  name: mit"]
        {
            assert_eq!(read(&format!("---\n{body}\n---\n")), [], "{body}");
        }
        for card in ["", "---", "---\nlicense: mit\n", "license: mit\n---\n", "--- x\nlicense: mit\n---\n"] {
            assert_eq!(read(card), [], "{card}");
        }
        assert_eq!(read(&format!("---\n{}license: mit\n---\n", "a: b\n".repeat(LINES_MAX))), []);
        let many = format!("---\nlanguage:\n{}license: mit\n---\n", "- en\n".repeat(VALUES_MAX + 1));
        assert_eq!(read(&many), [("license", one("mit"))]);
        let nested = format!("---\nlicense: {}mit\n---\n", "[".repeat(100_000));
        assert_eq!(read(&nested), []);
    }
}
