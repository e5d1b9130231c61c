//! Rust's `Debug` text is for people who read an error: it may change with the compiler and with every renamed variant, so
//! nothing that is written to a file, compared with one or digested may hold it.
//!
//! Which text goes where cannot be read off the source, but it can be told what each looks like: an error is a sentence,
//! or made inside `Error::…(…)`. So `{:?}` stands in sentences only, and never in what `write!` adds to a text.

use crate::source::Source;
use proc_macro2::{TokenStream, TokenTree};

/// Macros whose text is for people or the log, whatever it is.
const FOR_PEOPLE: &[&str] = &[
    "panic",
    "unreachable",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "trace",
    "debug",
    "info",
    "warn",
    "error",
];

/// The format strings of a file with `Debug` text outside errors.
pub(crate) fn debug_texts(source: &Source) -> Vec<String> {
    if !source.text.contains("?}") {
        return Vec::new();
    }
    let tokens = source.text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut found = Vec::new();
    walk(tokens, false, &mut found);
    found.into_iter().map(|text| format!("{}: {text}", source.path)).collect()
}

fn walk(tokens: TokenStream, is_error: bool, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut is_test_item = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let caller = caller(&tokens[..at]);
                let is_brace = group.delimiter() == proc_macro2::Delimiter::Brace;
                if is_test_item {
                    is_test_item = !is_brace;
                } else if caller == "#" {
                    is_test_item = group.stream().to_string().replace(' ', "") == "cfg(test)";
                } else {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    if !is_error && let Some(text) = debug_text(&caller, &inner) {
                        found.push(text);
                    }
                    let name = caller.strip_suffix('!').unwrap_or_default();
                    let is_error_here = caller == "Err" || caller.contains("Error::") || FOR_PEOPLE.contains(&name);
                    walk(group.stream(), is_error || is_error_here, found);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_test_item = false,
            _ => {}
        }
    }
}

/// What stands before a group without a space: `Error::rejected`, `format!`, `#`.
fn caller(before: &[TokenTree]) -> String {
    let is_part = |token: &&TokenTree| match token {
        TokenTree::Ident(_) => true,
        TokenTree::Punct(punct) => [':', '!', '#'].contains(&punct.as_char()),
        _ => false,
    };
    let mut parts: Vec<String> = before.iter().rev().take_while(is_part).map(TokenTree::to_string).collect();
    parts.reverse();
    let joined = parts.join(" ").replace(" :", ":").replace(": ", ":").replace(" !", "!");
    // The colon of `key: format!(…)` is not the macro's.
    joined.rsplit(' ').next().unwrap_or_default().trim_start_matches(':').to_owned()
}

/// The format string of a call of `format!`, `write!` or `writeln!` that makes `Debug` text that is no error's.
fn debug_text(caller: &str, arguments: &[TokenTree]) -> Option<String> {
    let is_write = ["write!", "writeln!"].contains(&caller);
    if !is_write && caller != "format!" {
        return None;
    }
    let literal = arguments.iter().find(|token| matches!(token, TokenTree::Literal(_)))?.to_string();
    let text = syn::parse_str::<syn::LitStr>(&literal).ok()?.value();
    let (plain, has_debug) = without_placeholders(&text);
    // `f` is the formatter of a `Display`: an error's, where it makes a sentence.
    let is_formatter = arguments.first().is_some_and(|token| token.to_string() == "f");
    let is_sentence = is_sentence(&plain) && (!is_write || is_formatter);
    (has_debug && !is_sentence).then(|| format!("{caller}({literal})"))
}

/// A format string without its `{…}`, and whether any of them asks for `Debug`.
fn without_placeholders(text: &str) -> (String, bool) {
    let text = text.replace("{{", "").replace("}}", "");
    let mut parts = text.split('{');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    let mut has_debug = false;
    for part in parts {
        let (placeholder, after) = part.split_once('}').unwrap_or((part, ""));
        has_debug |= placeholder.contains(':') && placeholder.ends_with('?');
        plain += after;
    }
    (plain, has_debug)
}

/// Whether there is a word among other things.
fn is_sentence(plain: &str) -> bool {
    let is_word = |part: &str| part.len() > 1 && part.chars().all(char::is_alphabetic);
    let words = plain.split_whitespace().map(|part| part.trim_matches([',', ':', ';', '.', '?', '(', ')', '"']));
    plain.contains(' ') && words.into_iter().any(is_word)
}

#[test]
fn sentences_and_values_are_told_apart() {
    let cases = [
        (r#"format!("{:?}", x)"#, true),
        (r#"format!("{x:?}").to_lowercase()"#, true),
        (r#"format!("{} {x:#?}\n", y)"#, true),
        (r#"format!("{kind:?}.json")"#, true),
        (r#"writeln!(text, "stamp {:?}", x)"#, true),
        (r#"json!({ "a": format!("{x:?}") })"#, true),
        (r#"format!("{x}")"#, false),
        (r#"format!("{{:?}}")"#, false),
        (r#"format!("{x:?} found")"#, false),
        (r#"Error::usage(format!("{a}: {b:?}"))"#, false),
        (r#"serde::de::Error::custom(format!("{b:?}"))"#, false),
        (r#"let e = Err(format!("{b:?}"));"#, false),
        (r#"panic!("{b:?}")"#, false),
        (r#"write!(f, "no adapter for {b:?}")"#, false),
        (r#"write!(f, "{b:?}")"#, true),
        (r#"#[cfg(test)] mod tests { fn f() { format!("{x:?}"); } }"#, false),
        (r#"#[cfg(test)] mod tests; fn f() { format!("{x:?}"); }"#, true),
    ];
    for (text, is_wrong) in cases {
        assert_eq!(!debug_texts(&Source::new("a.rs", text)).is_empty(), is_wrong, "{text}");
    }
}
