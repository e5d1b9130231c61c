//! Circles of files: files that use each other, straight or by way of others, so that none can be understood alone.
//!
//! An edge is a use of something that another file defines. Re-exports and `mod` lines are none.

use crate::tree::Crate;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// For each file, the files it uses, each with the names it uses of it.
pub(crate) type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Which file of a crate uses which.
pub(crate) fn graph(tree: &Crate<'_>) -> Graph {
    let mut graph = Graph::new();
    for edge in tree.edges() {
        let [from, to] = [edge.from, edge.to].map(|module| &tree.modules[module].file);
        if from != to {
            graph.entry(from.clone()).or_default().entry(to.clone()).or_default().insert(edge.name);
        }
    }
    graph
}

/// Groups of more than one file each of which uses, directly or not, all the others.
pub(crate) fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|file| (file, reached(graph, file))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (&file, used) in reached.iter().filter(|(file, used)| used.contains(*file)) {
        if !found.iter().any(|circle| circle.contains(file)) {
            let uses_back = |other: &&&String| reached.get(*other).is_some_and(|used| used.contains(file));
            found.push(used.iter().filter(uses_back).map(|&other| other.clone()).collect());
        }
    }
    found
}

fn reached<'a>(graph: &'a Graph, from: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&String> = graph[from].keys().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(graph.get(file).into_iter().flat_map(BTreeMap::keys));
        }
    }
    found
}

/// The shortest way round inside a circle, the first file at both ends, with the names that lead from each to the next.
pub(crate) fn shortest(graph: &Graph, circle: &BTreeSet<String>) -> String {
    let ways = circle.iter().filter_map(|file| way_round(graph, file));
    let Some(way) = ways.min_by_key(Vec::len) else { return String::new() };
    let mut text = way[0].to_owned();
    for pair in way.windows(2) {
        let names: Vec<&str> = graph[pair[0]][pair[1]].iter().map(String::as_str).collect();
        text += &format!("\n      uses {} of {}", names.join(", "), pair[1]);
    }
    text
}

/// The shortest way from a file back to it, by breadth.
fn way_round<'a>(graph: &'a Graph, start: &'a str) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([start]);
    let mut ways = VecDeque::from([vec![start]]);
    while let Some(way) = ways.pop_front() {
        for used in graph.get(way[way.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
            let longer = || way.iter().copied().chain([used.as_str()]).collect();
            if used == start {
                return Some(longer());
            }
            if seen.insert(used) {
                ways.push_back(longer());
            }
        }
    }
    None
}

/// Made-up crates, and the circles in them: files of one circle with a space between.
#[test]
fn circles_are_found_however_names_are_written() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    const B: (&str, &str) = ("b.rs", "use crate::a::A; pub struct B;");
    let cases: &[Case] = &[
        ("use", &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), B], &["a.rs b.rs"]),
        ("one way", &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub struct A;"), B], &[]),
        (
            "nested",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::{b::{B as C}}; pub struct A;"), B],
            &["a.rs b.rs"],
        ),
        (
            "super",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use super::b::{self, B}; pub struct A;"), B],
            &["a.rs b.rs"],
        ),
        ("inline path", &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub fn A() { crate::b::B }"), B], &["a.rs b.rs"]),
        (
            "imported module",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b; pub fn A(x: &[b::B]) {}"), B],
            &["a.rs b.rs"],
        ),
        (
            "a module that is only imported",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b; pub fn A() {}"), B],
            &[],
        ),
        (
            "in a macro call",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub fn A() { vec![1, x.f(super::b::B)] }"), B],
            &["a.rs b.rs"],
        ),
        (
            "re-export",
            &[("lib.rs", "mod a; mod b; pub use b::B;"), ("a.rs", "pub fn A(x: crate::B) {}"), B],
            &["a.rs b.rs"],
        ),
        (
            "re-export of a re-export by another name",
            &[
                ("lib.rs", "mod a; mod b; pub use a::D;"),
                ("a.rs", "pub use crate::b::B as D; pub struct A;"),
                ("b.rs", "use crate::c::C; pub struct B;"),
                ("c.rs", ""),
            ],
            &[],
        ),
        (
            "a re-export that is also used",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub use crate::b::B; pub fn A(b: B) {}"), B],
            &["a.rs b.rs"],
        ),
        ("glob", &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::*; pub fn A(b: B) {}"), B], &["a.rs b.rs"]),
        (
            "a glob that is only written",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::*; pub fn A() {}"), B],
            &[],
        ),
        (
            "glob through a parent",
            &[("lib.rs", "mod a; mod b; use b::B;"), ("a.rs", "use super::*; pub fn A() { B::new() }"), B],
            &["a.rs b.rs"],
        ),
        (
            "glob of an enum",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B::*; pub struct A;"), B],
            &["a.rs b.rs"],
        ),
        (
            "parent and child",
            &[
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "mod c; pub struct P; pub fn f() { c::run() }"),
                ("a/c.rs", "use super::P; pub fn run() {}"),
            ],
            &["a/c.rs a/mod.rs"],
        ),
        (
            "parent and child beside each other",
            &[
                ("lib.rs", "mod a;"),
                ("a.rs", "mod c; use c::run; pub struct P;"),
                ("a/c.rs", "pub fn run(p: super::P) {}"),
            ],
            &["a.rs a/c.rs"],
        ),
        (
            "a parent that only declares",
            &[
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "mod c; mod d; pub use c::run;"),
                ("a/c.rs", "use super::d::D; pub fn run() {}"),
                ("a/d.rs", "pub struct D; "),
            ],
            &[],
        ),
        (
            "a module and a function of one name",
            &[
                ("lib.rs", "mod check; mod a; pub use check::check;"),
                ("check.rs", "use crate::a::A; pub fn check() {}"),
                ("a.rs", "pub fn A() { crate::check(1) }"),
            ],
            &["a.rs check.rs"],
        ),
        (
            "what a macro defines",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "shared! { pub struct A { x: u32 } } fn f(b: crate::b::B) {}"), B],
            &["a.rs b.rs"],
        ),
        (
            "serde's attributes",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b; #[derive(Serialize)] pub struct A { #[serde(with = \"b\")] x: u8 }"),
                B,
            ],
            &["a.rs b.rs"],
        ),
        (
            "inline modules",
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub struct A; mod inner { use super::super::b::B; }"), B],
            &["a.rs b.rs"],
        ),
        (
            "a `#[path]`",
            &[
                ("lib.rs", "#[path = \"../src/deep/a.rs\"] mod a; mod b;"),
                ("deep/a.rs", "pub struct A; use crate::b::B;"),
                B,
            ],
            &["b.rs deep/a.rs"],
        ),
        (
            "three files",
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::c::C; pub struct A;"),
                B,
                ("c.rs", "use crate::b::B; pub struct C;"),
            ],
            &["a.rs b.rs c.rs"],
        ),
        (
            "two circles, and one that looks on",
            &[
                ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
                ("a.rs", "use crate::b::B; use crate::c::C; pub struct A;"),
                B,
                ("c.rs", "use crate::d::D; pub struct C;"),
                ("d.rs", "use crate::c::C; pub struct D;"),
                ("e.rs", "use crate::a::A;"),
            ],
            &["a.rs b.rs", "c.rs d.rs"],
        ),
        (
            "tests",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; } #[test] fn t() { crate::b::B }"),
                B,
            ],
            &[],
        ),
        (
            "a file of tests",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "pub struct A; #[cfg(all(test, unix))] mod tests;"),
                ("a/tests.rs", "use super::A; use crate::b::B;"),
                B,
            ],
            &[],
        ),
        (
            "comments, strings and links",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "/// [`crate::b::B`]\npub fn A() { \"crate::b::B\"; /* crate::b::B */ }"),
                B,
            ],
            &[],
        ),
        (
            "names of other crates and of locals",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use ::b::B; pub fn A(b: u8) { other::b::B; b; x.b(); y { b: 1 } }"),
                B,
            ],
            &[],
        ),
    ];
    for (what, files, expected) in cases {
        let parsed = files.iter().map(|(path, text)| {
            let source = crate::source::Source::new(&format!("src/{path}"), text);
            (source.path.clone(), crate::names::Module::of_file(&source.syntax()))
        });
        let parsed = parsed.collect();
        let graph = graph(&Crate::new(&parsed, "src/lib.rs").expect("a root"));
        let found = circles(&graph);
        for circle in &found {
            let text = shortest(&graph, circle);
            assert!(circle.iter().any(|file| text.ends_with(file.as_str())), "{what}: {text}");
        }
        let found: Vec<String> =
            found.iter().map(|circle| Vec::from_iter(circle.iter().map(|file| &file[4..])).join(" ")).collect();
        assert_eq!(found, *expected, "{what}: {graph:?}");
    }
}
