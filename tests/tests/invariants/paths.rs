//! A path that is no Unicode has no text: `json!` of one panics, and serde refuses a struct that holds one, mostly after all
//! the work is done. Paths go into JSON through `tvb::shown::path_json`.
//!
//! Types cannot be read off the source, but names can: a value inside `json!` that ends in a word for a path is taken for one.

use crate::source::Source;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What fields, variables and methods with a path are called.
const NAMES: &[&str] = &["path", "paths", "output", "folder", "dir", "directory", "target", "parent", "work"];
/// Types that serde writes only where they are Unicode.
const TYPES: &[&str] = &["Path", "PathBuf", "OsStr", "OsString"];

/// Values inside `json!` that look like paths, and serialised fields that are.
pub(crate) fn paths_in_json(source: &Source) -> Vec<String> {
    if !source.text.contains("json!") && !source.text.contains("Serialize") {
        return Vec::new();
    }
    let tokens = source.code.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut found = Vec::new();
    walk(tokens, &mut found);
    found.into_iter().map(|what| format!("{}: {what}", source.path)).collect()
}

fn walk(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut is_serialized = false;
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            is_serialized &= !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
            continue;
        };
        let before = |n: usize| at.checked_sub(n).and_then(|at| tokens.get(at)).map(ToString::to_string);
        if before(1).as_deref() == Some("!") && before(2).as_deref() == Some("json") {
            values(group.stream(), found);
        }
        if before(1).as_deref() == Some("#") {
            let attribute = group.stream().to_string();
            is_serialized |= attribute.starts_with("derive") && has_word(&group.stream(), &["Serialize"]);
        } else if is_serialized && group.delimiter() != Delimiter::Bracket {
            if has_word(&group.stream(), TYPES) {
                found.push("a path in what derives Serialize".to_owned());
            }
            // The fields of a tuple come before its `;`.
            is_serialized = group.delimiter() == Delimiter::Parenthesis;
        }
        walk(group.stream(), found);
    }
}

/// The values of an object, an array, or one alone.
fn values(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    for member in tokens.split(is_comma) {
        match member {
            [.., TokenTree::Group(inner)] if inner.delimiter() != Delimiter::Parenthesis => {
                values(inner.stream(), found)
            }
            [.., TokenTree::Ident(name)] if is_path(name) => found.push(format!("json! of `{name}`")),
            [.., TokenTree::Ident(name), TokenTree::Group(call)] if call.stream().is_empty() && is_path(name) => {
                found.push(format!("json! of `{name}()`"));
            }
            _ => {}
        }
    }
}

fn is_path(name: &proc_macro2::Ident) -> bool {
    let name = name.to_string();
    NAMES.iter().any(|known| name == *known || name.ends_with(&format!("_{known}")))
}

fn has_word(tokens: &TokenStream, words: &[&str]) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => has_word(&group.stream(), words),
        TokenTree::Ident(ident) => words.contains(&ident.to_string().as_str()),
        _ => false,
    })
}

#[test]
fn paths_and_other_values_are_told_apart() {
    let cases = [
        ("fn f() { json!({ \"a\": args.output, \"b\": 1 }) }", true),
        ("fn f() { json!({ \"a\": { \"b\": [x, best_path] } }) }", true),
        ("fn f() { json!(checkpoint.path()) }", true),
        ("fn f() { rows.push(serde_json::json!({ \"a\": &path })) }", true),
        ("fn f() { json!({ \"a\": path_json(&args.output), \"path\": text, \"b\": x.map(path_json) }) }", false),
        ("fn f() { json!({ \"a\": path.to_string_lossy(), \"n\": path.len() }) }", false),
        ("fn f() { let output = json!(1); g(output, path) }", false),
        ("#[derive(Clone, Serialize)]\npub struct A { a: u8, b: Option<PathBuf> }", true),
        ("#[derive(Serialize)] struct A(PathBuf);", true),
        ("#[derive(Clone)] struct A { b: PathBuf }", false),
        ("#[derive(Serialize)] struct A { b: String }\nstruct B { c: PathBuf }", false),
        ("#[cfg(test)]\nmod tests { fn f() { json!(path) } }", false),
    ];
    for (text, is_wrong) in cases {
        assert_eq!(!paths_in_json(&Source::new("a.rs", text)).is_empty(), is_wrong, "{text}");
    }
}
