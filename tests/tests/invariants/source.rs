//! Source files as the invariants see them: code apart from comments, strings and tests.

use std::path::{Path, PathBuf};

/// One file of the repository.
pub(crate) struct Source {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The same lines with comments, the insides of strings, and everything from `#[cfg(test)]` on blanked out.
    pub code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut code = blank_comments_and_strings(text);
        if let Some(tests_at) = code.find("#[cfg(test)]\nmod ") {
            code.truncate(tests_at);
        }
        Self { path: path.into(), text: text.into(), code }
    }

    /// The file's syntax; panics where it is not Rust.
    pub(crate) fn syntax(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    /// Whether the path begins with one of these.
    pub(crate) fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// Line numbers (from 1) at which the code has `word`, not as a part of a longer identifier.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(_, line)| has_word(line, word)).map(|(index, _)| index + 1).collect()
    }

    /// `path:line` for every use of any of these words.
    pub(crate) fn uses(&self, words: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for word in words {
            found.extend(self.lines_with(word).iter().map(|line| format!("{}:{line}: {word}", self.path)));
        }
        found
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let elsewhere = std::env::var_os("TVB_INVARIANTS_ROOT").map(PathBuf::from);
    let root = elsewhere.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    root.canonicalize().expect("the repository's root")
}

/// Every file of the repository with one of these endings, sorted by path; build outputs and dot-folders left out.
pub(crate) fn files(endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).expect("UTF-8 text");
                let relative = path.strip_prefix(&root).expect("a path under the root");
                found.push(Source::new(&relative.to_string_lossy().replace('\\', "/"), &text));
            }
        }
    }
    assert!(!found.is_empty(), "no {endings:?} under {}", root.display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Whether `line` has `word` with no identifier character beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Replaces comments and the insides of string and char literals by blanks; lines stay where they are.
fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let n_blank = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment_len(rest),
            ['r', '"' | '#', ..] if !is_identifier_end(&chars[..at]) => raw_string_len(rest),
            ['"', ..] => string_len(rest, '"'),
            ['\'', '\\', ..] => string_len(rest, '\''),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if n_blank == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..n_blank].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at += n_blank;
        }
    }
    out
}

fn is_identifier_end(before: &[char]) -> bool {
    before.last().is_some_and(|&c| (c.is_alphanumeric() && c != 'b') || c == '_')
}

/// Length of the nested block comment at the start of `rest`.
fn block_comment_len(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the quoted literal at the start of `rest`, both quotes included.
fn string_len(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the raw string at the start of `rest`; 0 if it is a raw identifier.
fn raw_string_len(rest: &[char]) -> usize {
    let n_hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + n_hashes) != Some(&'"') {
        return 0;
    }
    let body = 2 + n_hashes;
    let is_end = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= n_hashes;
    (body..rest.len()).find(is_end).map_or(rest.len(), |end| end + 1 + n_hashes)
}

#[test]
fn comments_strings_and_tests_are_blanked() {
    let cases = [
        ("let a = 1; // wgpu", "let a = 1;        "),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x \" // y") + 1"#, "f(           ) + 1"),
        (r##"f(r#"a " b"#, 'c', '\'', b'd')"##, "f(          ,    ,     , b   )"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("\"a\nb\"", "  \n  "),
        ("r#type + attr\"x\"", "r#type + attr   "),
        ("a\n#[cfg(test)]\nmod tests {\n}", "a\n"),
    ];
    for (text, expected) in cases {
        assert_eq!(Source::new("x.rs", text).code, expected, "{text:?}");
    }
    let source = Source::new("x.rs", "use wgpu::Device;\nlet my_wgpu = 1;\nwgpu");
    assert_eq!(source.lines_with("wgpu"), [1, 3]);
}
