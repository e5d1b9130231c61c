//! `--rename 's/REGEX/REPLACEMENT/'`: names of a task's tensors as the user says they go, as `sed` has it.

use super::patterns::regex;
use crate::error::{Error, Result};
use regex::Regex;
use std::borrow::Cow;

/// One rule for names.
#[derive(Clone, Debug)]
pub struct Rename {
    /// The only task whose names it changes; all of them where there is none.
    task: Option<String>,
    pattern: Regex,
    /// As the regex library writes it.
    replacement: String,
    is_global: bool,
    text: String,
}

impl Rename {
    /// Reads `s/REGEX/REPLACEMENT/` with any character in the place of `/`, `g` behind it for every match, and in the replacement
    /// `\1` to `\9` for groups and `&` for all that matched; `NAME:s/…/…/` is about the task of that name alone.
    ///
    /// # Errors
    /// Usage: another form, or not a regular expression.
    pub fn parse(text: &str) -> Result<Rename> {
        let wrong = |what: &str| {
            Err(Error::usage(format!("--rename {text:?}: {what}"))
                .hint("for example --rename 's/^model\\.//', or NAME:s/^encoder/backbone/ for one task"))
        };
        let (task, rule) = match rule_of(text) {
            Some((task, rule)) => (task, rule),
            None => return wrong("s/REGEX/REPLACEMENT/ expected"),
        };
        let mut characters = rule.chars();
        let Some(mark) = characters.next() else { return wrong("s/REGEX/REPLACEMENT/ expected") };
        let parts = split(characters.as_str(), mark);
        let [pattern, replacement, flags] = parts.as_slice() else {
            return wrong(&format!("three `{mark}` expected, {} found", parts.len()));
        };
        if !matches!(flags.as_str(), "" | "g") {
            return wrong(&format!("`g` or nothing expected at its end, {flags:?} found"));
        }
        let Some(replacement) = library_replacement(replacement) else {
            return wrong("`\\1` to `\\9`, `\\&` or `\\\\` expected after a backslash of the replacement");
        };
        Ok(Rename {
            task: task.map(str::to_owned),
            pattern: regex(pattern)?,
            replacement,
            is_global: flags == "g",
            text: text.to_owned(),
        })
    }

    /// Whether it is about the task of this name.
    pub fn is_about(&self, task: &str) -> bool {
        self.task.as_ref().is_none_or(|own| own == task)
    }

    /// The task that it is about, where it is about one.
    pub fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name as the rule has it.
    pub fn apply<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.pattern.replacen(name, usize::from(!self.is_global), self.replacement.as_str())
    }
}

/// The task, where one is named, and what follows the `s`.
fn rule_of(text: &str) -> Option<(Option<&str>, &str)> {
    let behind_s = |rule: &str| {
        let mark = rule.strip_prefix('s')?.chars().next()?;
        (!mark.is_alphanumeric() && !mark.is_whitespace() && mark != '\\' && mark != ':').then_some(())?;
        rule.get(1..).map(str::len)
    };
    if let Some(n_bytes) = behind_s(text) {
        return Some((None, text.get(text.len() - n_bytes..)?));
    }
    let (at, n_bytes) = text.match_indices(':').find_map(|(at, _)| Some((at, behind_s(text.get(at + 1..)?)?)))?;
    let task = text.get(..at).filter(|task| !task.is_empty())?;
    Some((Some(task), text.get(text.len() - n_bytes..)?))
}

/// Parts between marks; a mark behind a backslash is one of the text's own.
fn split(text: &str, mark: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        if character == mark {
            parts.push(String::new());
        } else if character == '\\' {
            match characters.next() {
                Some(next) if next == mark => part.push(mark),
                Some(next) => part.extend(['\\', next]),
                None => part.push('\\'),
            }
        } else {
            part.push(character);
        }
    }
    parts
}

/// `\1` and `&` as the library writes them.
fn library_replacement(text: &str) -> Option<String> {
    let mut replacement = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next()? {
                digit @ '0'..='9' => replacement.extend(["${", &digit.to_string(), "}"]),
                plain @ ('&' | '\\' | '.') => replacement.push(plain),
                _ => return None,
            },
            '&' => replacement.push_str("${0}"),
            '$' => replacement.push_str("$$"),
            plain => replacement.push(plain),
        }
    }
    Some(replacement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_are_changed_as_sed_does() {
        for (rule, name, expected) in [
            ("s/^model\\.//", "model.a.model.w", "a.model.w"),
            ("s/model\\.//g", "model.a.model.w", "a.w"),
            ("s|a/b|c|", "a/b.w", "c.w"),
            ("s/a\\/b/c/", "a/b.w", "c.w"),
            ("s/^(\\w+)\\.(\\d+)/\\2.\\1/", "layer.3.w", "3.layer.w"),
            ("s/^/[&$1]/", "w", "[$1]w"),
            ("s/x/y/", "w", "w"),
        ] {
            assert_eq!(Rename::parse(rule).unwrap().apply(name), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_may_be_about_one_task() {
        let rule = Rename::parse("cars:s/a:s/b/").unwrap();
        assert_eq!((rule.task(), rule.apply("a:s")), (Some("cars"), "b".into()));
        assert!(rule.is_about("cars") && !rule.is_about("dogs") && Rename::parse("s/a/b/").unwrap().is_about("dogs"));
    }

    #[test]
    fn other_texts_are_usage_errors() {
        for text in
            ["", "s", "s/a", "s/a/b", "s/a/b/i", "y/a/b/", "sxaxbx", "s/(/b/", "s/a/\\q/", ":s/a/b/", "s/a/b/c/"]
        {
            assert_eq!(Rename::parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text:?}");
        }
    }
}
