//! YAML as a tree of maps, lists and words, each with its line: what recipes are written in.
//!
//! A recipe may come from anybody. Depth and the number of nodes are bounded, aliases counted as what they stand for; tags,
//! merge keys and keys that stand twice are refused.

use crate::jobs::merge::parameters::Wrong;
use crate::shown::escaped;
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A recipe's text is shorter.
pub const MAX_BYTES: u64 = 1 << 20;
/// Lists and maps inside of each other.
const DEPTH_MAX: usize = 16;
/// Words, lists and maps together.
const N_NODES_MAX: usize = 50_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Counted from 1.
    pub line: usize,
    pub value: Value,
}

/// What a value is. Words are shared, so that an alias costs no more than its nodes.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// As written; plain words may be numbers, truth values or nothing.
    Word {
        text: Arc<str>,
        is_plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Arc<str>, Node)>),
}

/// A list or a map that has not ended.
struct Open {
    anchor: usize,
    node: Node,
    /// The key that waits for its value.
    key: Option<Arc<str>>,
    seen: HashSet<Arc<str>>,
    n_nodes: usize,
}

/// Reads the one document of a text.
pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    if text.len() as u64 > MAX_BYTES {
        return Err(Wrong::new(format!("at most {MAX_BYTES} bytes expected, {} found", text.len())));
    }
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text.trim_start_matches('\u{feff}'));
    let mut n_documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| Wrong::new(format!("line {}: no YAML: {}", error.marker().line(), error.info())))?;
        let line = span.start.line();
        let at = |message: &str| Wrong::new(format!("line {line}: {message}"));
        match event {
            Event::DocumentStart(_) => {
                n_documents += 1;
                if n_documents > 1 {
                    return Err(at("one document expected, a second one found"));
                }
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(at("a tag (`!`) found, which a recipe has none of"));
            }
            Event::Scalar(text, style, anchor, None) => {
                let value = Value::Word { text: text.into(), is_plain: style == ScalarStyle::Plain };
                tree.add(Node { line, value }, 1, anchor)?;
            }
            Event::SequenceStart(anchor, None) => tree.open(line, Value::List(Vec::new()), anchor)?,
            Event::MappingStart(anchor, None) => tree.open(line, Value::Map(Vec::new()), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => tree.close()?,
            Event::Alias(anchor) => tree.alias(line, anchor)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    tree.root.ok_or_else(|| Wrong::new("a recipe expected, an empty file found"))
}

#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    /// What anchors name, and how many nodes that is.
    anchors: HashMap<usize, (Node, usize)>,
    n_nodes: usize,
}

impl Tree {
    fn open(&mut self, line: usize, value: Value, anchor: usize) -> Result<(), Wrong> {
        if self.open.len() == DEPTH_MAX {
            return Err(Wrong::new(format!("line {line}: lists and maps deeper than {DEPTH_MAX}")));
        }
        self.count(line, 1)?;
        let node = Node { line, value };
        self.open.push(Open { anchor, node, key: None, seen: HashSet::new(), n_nodes: 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let Some(Open { anchor, node, n_nodes, .. }) = self.open.pop() else { return Ok(()) };
        self.place(node, n_nodes, anchor)
    }

    fn alias(&mut self, line: usize, anchor: usize) -> Result<(), Wrong> {
        let (node, n_nodes) = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| Wrong::new(format!("line {line}: an alias of what it stands in")))?;
        let n_nodes = *n_nodes;
        // Counted before it is copied.
        let deepest = self.open.len() + depth(node);
        if deepest > DEPTH_MAX {
            return Err(Wrong::new(format!("line {line}: lists and maps deeper than {DEPTH_MAX}")));
        }
        let total = self.n_nodes.saturating_add(n_nodes);
        if total > N_NODES_MAX {
            return Err(too_many(line));
        }
        let copy = Node { line, value: node.value.clone() };
        self.add(copy, n_nodes, 0)
    }

    fn count(&mut self, line: usize, n_nodes: usize) -> Result<(), Wrong> {
        self.n_nodes = self.n_nodes.saturating_add(n_nodes);
        if self.n_nodes > N_NODES_MAX { Err(too_many(line)) } else { Ok(()) }
    }

    fn add(&mut self, node: Node, n_nodes: usize, anchor: usize) -> Result<(), Wrong> {
        self.count(node.line, n_nodes)?;
        self.place(node, n_nodes, anchor)
    }

    /// Puts a whole value where it belongs: a list's next, a map's next key or that key's value.
    fn place(&mut self, node: Node, n_nodes: usize, anchor: usize) -> Result<(), Wrong> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), n_nodes));
        }
        let Some(above) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        above.n_nodes = above.n_nodes.saturating_add(n_nodes);
        match (&mut above.node.value, above.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (Value::Map(_), None) => {
                let Value::Word { text, .. } = node.value else {
                    return Err(Wrong::new(format!(
                        "line {}: a word as key expected, {} found",
                        node.line,
                        node.found()
                    )));
                };
                if &*text == "<<" {
                    return Err(Wrong::new(format!("line {}: `<<` is not read", node.line)).hint("write the keys out"));
                }
                if !above.seen.insert(text.clone()) {
                    let text: String = text.chars().take(60).collect();
                    return Err(Wrong::new(format!("line {}: the key {text:?} stands twice", node.line)));
                }
                above.key = Some(text);
            }
            (Value::Word { .. }, _) => {}
        }
        Ok(())
    }
}

fn too_many(line: usize) -> Wrong {
    Wrong::new(format!("line {line}: more than {N_NODES_MAX} values, aliases counted as what they stand for"))
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Word { .. } => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}

impl Node {
    /// What it is, for messages.
    pub(super) fn found(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Word { text, .. } => format!("\"{}\"", escaped(&text.chars().take(60).collect::<String>())),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// Whether nothing stands there.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Word { text, is_plain: true } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What is wrong here.
    pub(super) fn wrong(&self, place: &str, expected: &str) -> Wrong {
        Wrong::new(format!("line {}: {place}: {expected} expected, {} found", self.line, self.found()))
    }

    /// The word that stands there.
    pub(super) fn word(&self, place: &str, expected: &str) -> Result<&str, Wrong> {
        match &self.value {
            Value::Word { text, .. } if !self.is_null() && !text.is_empty() => Ok(text),
            _ => Err(self.wrong(place, expected)),
        }
    }

    pub(super) fn list(&self, place: &str, expected: &str) -> Result<&[Node], Wrong> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.wrong(place, expected)),
        }
    }

    /// Keys and values that are there.
    pub(super) fn map(&self, place: &str, expected: &str) -> Result<impl Iterator<Item = (&str, &Node)>, Wrong> {
        match &self.value {
            Value::Map(entries) => {
                Ok(entries.iter().filter(|(_, node)| !node.is_null()).map(|(key, node)| (&**key, node)))
            }
            _ => Err(self.wrong(place, expected)),
        }
    }

    /// A truth value, in the words of YAML 1.1 and of pydantic.
    pub(super) fn flag(&self, place: &str) -> Result<bool, Wrong> {
        let word = self.word(place, "true or false")?;
        flag_of(word).ok_or_else(|| self.wrong(place, "true or false"))
    }
}

/// A truth value in words.
pub(super) fn flag_of(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" | "1.0" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" | "0.0" => Some(false),
        _ => None,
    }
}

/// A finite number in words: digits with a point or an exponent, quoted or not. What YAML 1.1 would read to another base is
/// none.
pub(super) fn number_of(word: &str) -> Option<f64> {
    let word = word.trim();
    let digits = word.trim_start_matches(['+', '-']);
    let is_octal = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && !is_octal;
    word.parse().ok().filter(|value: &f64| is_number && value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text).expect_err(text).rejected().message().to_owned()
    }

    #[test]
    fn maps_lists_words_and_aliases() {
        let node = parse("\u{feff}# remark\na: &x [1, 'two', ~]\nb: {c: *x}\n").unwrap();
        let entries: Vec<(&str, &Node)> = node.map("top", "a map").unwrap().collect();
        assert_eq!((entries[0].0, entries[0].1.line, entries[1].1.line), ("a", 2, 3));
        let inner: Vec<(&str, &Node)> = entries[1].1.map("b", "a map").unwrap().collect();
        let items = inner[0].1.list("c", "a list").unwrap();
        assert_eq!(
            (items[0].word("", "").unwrap(), items[1].word("", "").unwrap(), items[2].is_null()),
            ("1", "two", true)
        );
        assert!(!parse("a: ''").unwrap().map("", "").unwrap().next().unwrap().1.is_null());
    }

    #[test]
    fn hostile_text_is_refused_in_one_line() {
        let bomb =
            (0..20).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| text + &format!("a{}: &a{} [*a{n}]\n", n + 1, n + 1));
        let wide = format!("a: &a {:?}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(100_000));
        let many = "- x\n".repeat(100_000);
        let cases = [
            (bomb.as_str(), "deeper than 16"),
            (&wide, "more than 50000 values"),
            (&many, "more than 50000 values"),
            ("a: 1\na: 2", "line 2: the key \"a\" stands twice"),
            ("a: &x [*x]", "an alias of what it stands in"),
            ("a: *x", "line 1: no YAML"),
            ("a: !!python/object:os.system x", "a tag"),
            ("b: &b {a: 1}\nc: {<<: *b}", "`<<` is not read"),
            ("? [a]\n: b", "a word as key expected, a list of 1 found"),
            ("a: [", "no YAML"),
            ("a: 1\n---\nb: 2", "line 2: one document"),
            ("", "an empty file"),
            ("# only a remark\n", "an empty file"),
        ];
        for (text, expected) in cases {
            let message = message(text);
            assert!(message.contains(expected) && !message.contains('\n'), "{expected:?} expected, {message:?} found");
        }
        for deep in ["[", "{a: ", "- ", "? "] {
            assert!(!message(&deep.repeat(200_000)).contains('\n'));
        }
        let flat_bomb = (0..9).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
            text + &format!("a{}: &a{} [{}]\n", n + 1, n + 1, format!("*a{n}, ").repeat(10))
        });
        assert!(message(&flat_bomb).contains("more than 50000 values"));
        assert!(message(&"x".repeat(2 << 20)).contains("at most 1048576 bytes"));
    }

    #[test]
    fn numbers_and_truths_are_those_of_yaml_and_pydantic() {
        let numbers = [
            ("1", Some(1.0)),
            ("1e-3", Some(0.001)),
            (" -.5 ", Some(-0.5)),
            ("+2.", Some(2.0)),
            ("010", None),
            ("0x10", None),
            ("1:30", None),
            (".inf", None),
            ("nan", None),
            ("1e999", None),
            ("", None),
            ("--1", None),
        ];
        for (word, expected) in numbers {
            assert_eq!(number_of(word), expected, "{word}");
        }
        assert_eq!((flag_of("Yes"), flag_of("off"), flag_of("2")), (Some(true), Some(false), None));
    }

    #[test]
    fn damaged_recipes_never_panic() {
        let text = "merge_method: ties\nbase_model: &b base\nmodels:\n  - model: 'a'\n    parameters: {weight: [0, 1e-1]}\n  - model: *b\n";
        let bytes = text.as_bytes();
        for at in 0..bytes.len() {
            for byte in [b'*', b'&', b'[', b'{', b'!', b'|', b'"', b'\n', b'\t', b':', b'-', b'?', b'%', 0, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] = byte;
                let _ = parse(&String::from_utf8_lossy(&damaged));
                damaged.truncate(at + 1);
                let _ = parse(&String::from_utf8_lossy(&damaged));
            }
        }
    }
}
