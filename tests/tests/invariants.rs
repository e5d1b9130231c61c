//! The architecture's invariants (ARCHITECTURE.md), checked on the source text.
//!
//! Each rule is a function from source files to violations. One test runs every rule on the repository, another runs
//! every rule on a made-up file that breaks it, so that a rule that no longer finds anything is noticed.

#[path = "invariants/source.rs"]
mod source;

use source::{Source, files, root};

/// Files that may be longer than [`MAX_CODE_LINES`], each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Lines of a file up to its tests.
const MAX_CODE_LINES: usize = 500;

/// The library's modules in the order in which data passes through them: a module uses earlier ones only.
const STAGES: &[&str] = &[
    "error",
    "units",
    "progress",
    "tasks",
    "checkpoint",
    "digest",
    "kept",
    "plan",
    "chunks",
    "stream",
    "bookmark",
    "gram",
    "solve",
    "basis",
    "project",
    "random_atoms",
    "compress",
    "arithmetic",
    "reconstruct",
];

type Rule = fn(&[Source]) -> Vec<String>;

/// What is asked for, the rule that asks, and a file that breaks it.
const RULES: &[(&str, Rule, (&str, &str))] = &[
    (
        "only the kernels crate knows wgpu",
        |sources| uses(sources, |s| !s.is_under(&["crates/tvb-kernels/"]), &["wgpu", "naga"]),
        ("crates/tvb/src/a.rs", "use wgpu::Device;"),
    ),
    (
        "the kernels know no files, names, formats or flags",
        |sources| uses(sources, |s| s.is_under(&["crates/tvb-kernels/src/"]), FORBIDDEN_IN_KERNELS),
        ("crates/tvb-kernels/src/a.rs", "use std::path::PathBuf;"),
    ),
    (
        "the library never prints; in the binary only cli/ touches the terminal",
        |sources| {
            let library = |s: &Source| s.is_under(&["crates/tvb/src/", "crates/tvb-kernels/src/"]);
            let mut found = uses(sources, library, &["println!", "print!", "eprintln!", "eprint!", "dbg!"]);
            found.extend(uses(
                sources,
                |s| library(s) && !s.is_under(&["crates/tvb/src/cli/"]),
                &["io::stdout", "io::stderr"],
            ));
            found
        },
        ("crates/tvb/src/a.rs", "fn f() { eprintln!(\"x\") }"),
    ),
    (
        "solving and arithmetic are pure",
        |sources| {
            uses(sources, |s| s.is_under(&["crates/tvb/src/solve", "crates/tvb/src/arithmetic"]), FORBIDDEN_IN_PURE)
        },
        ("crates/tvb/src/solve/a.rs", "fn f(c: &Checkpoint) {}"),
    ),
    (
        "only the stages at both ends touch the file system",
        |sources| {
            uses(sources, |s| s.is_under(&["crates/tvb/src/"]) && !s.is_under(MAY_TOUCH_FILES), &["std::fs", "File"])
        },
        ("crates/tvb/src/plan.rs", "let x = std::fs::read(path);"),
    ),
    (
        "a stage uses earlier stages only",
        later_stages,
        ("crates/tvb/src/plan.rs", "use crate::{error::Result, solve::x};"),
    ),
    ("a file opens by saying what it is", without_head, ("crates/tvb/src/a.rs", "use std::fmt;")),
    ("a file is short enough to be read", too_long, ("crates/tvb/src/a.rs", LONG)),
    ("unsafe code says why it is sound", unexplained_unsafe, ("crates/tvb/src/a.rs", "fn f() { unsafe { g() } }")),
    (
        "nothing is left to do",
        |sources| uses(sources, |_| true, &["todo!", "unimplemented!", "dbg!"]),
        ("crates/tvb/src/a.rs", "fn f() { todo!() }"),
    ),
];

const FORBIDDEN_IN_KERNELS: &[&str] =
    &["serde", "serde_json", "clap", "safetensors", "indicatif", "std::fs", "std::path", "Path", "PathBuf", "File"];

const FORBIDDEN_IN_PURE: &[&str] = &["std::fs", "std::path", "std::env", "Path", "PathBuf", "File", "Checkpoint"];

/// The first and the last stages, and what runs whole jobs.
const MAY_TOUCH_FILES: &[&str] = &[
    "crates/tvb/src/checkpoint/",
    "crates/tvb/src/tasks.rs",
    "crates/tvb/src/basis/",
    "crates/tvb/src/cli/",
    "crates/tvb/src/interop/",
    "crates/tvb/src/batch",
    "crates/tvb/src/sweep",
];

/// A file of two lines too many.
const LONG: &str = {
    const BYTES: [u8; MAX_CODE_LINES + 2] = [b'\n'; MAX_CODE_LINES + 2];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Uses of any of these words in the code of the chosen files.
fn uses(sources: &[Source], is_meant: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    let meant = sources.iter().filter(|source| is_meant(source));
    meant.filter(|source| !is_test(source)).flat_map(|source| source.uses(words)).collect()
}

/// Integration tests and benches are not the product: they may print, and look behind the scenes.
fn is_test(source: &Source) -> bool {
    source.is_under(&["tests/", "benches/"]) || source.path.contains("/tests/") || source.path.contains("/examples/")
}

fn later_stages(sources: &[Source]) -> Vec<String> {
    let position = |module: &str| STAGES.iter().position(|&stage| stage == module);
    let mut found = Vec::new();
    for source in sources {
        let Some(inside) = source.path.strip_prefix("crates/tvb/src/") else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = position(module) else { continue };
        for used in crate_modules(&source.code) {
            if position(used).is_some_and(|used| used > own) {
                found.push(format!("{}: crate::{used}", source.path));
            }
        }
    }
    found
}

/// `a` and `b` of `crate::a::…` and `crate::{a::…, b}`.
fn crate_modules(code: &str) -> Vec<&str> {
    let identifier = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(&rest[..identifier(rest)]);
            continue;
        };
        let mut depth = 0;
        let mut is_item_start = true;
        for (offset, c) in list.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => is_item_start = true,
                c if depth == 0 && is_item_start && !c.is_whitespace() => {
                    found.push(&list[offset..][..identifier(&list[offset..])]);
                    is_item_start = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn without_head(sources: &[Source]) -> Vec<String> {
    let head = |source: &Source| if source.path.ends_with(".rs") { "//! " } else { "// " };
    let headless = sources.iter().filter(|source| !source.text.starts_with(head(source)));
    headless.map(|source| format!("{}: does not begin with `{}`", source.path, head(source))).collect()
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let n_lines = |source: &Source| source.code.lines().count();
    let is_excused = |source: &Source| LONG_FILES.iter().any(|(path, _)| *path == source.path);
    let long = sources.iter().filter(|source| n_lines(source) > MAX_CODE_LINES && !is_excused(source));
    long.map(|source| format!("{}: {} lines before its tests, at most {MAX_CODE_LINES}", source.path, n_lines(source)))
        .collect()
}

/// `unsafe` blocks and impls have a comment with `SAFETY:` close above, unsafe functions a `# Safety` section.
fn unexplained_unsafe(sources: &[Source]) -> Vec<String> {
    const MAX_LINES_ABOVE: usize = 12;
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for line in source.lines_with("unsafe") {
            let is_attribute = source.code.lines().nth(line - 1).is_some_and(|code| code.trim_start().starts_with("#"));
            let above = &lines[line.saturating_sub(MAX_LINES_ABOVE)..line];
            let is_explained = above.iter().any(|text| text.contains("SAFETY:") || text.contains("# Safety"));
            if !is_attribute && !is_explained {
                found.push(format!("{}:{line}", source.path));
            }
        }
    }
    found
}

/// Paths in backticks or links of a Markdown text that are not there. A path in backticks is one that begins with a
/// folder of the repository's root.
fn dead_paths(source: &Source) -> Vec<String> {
    let root = root();
    let folder = root.join(&source.path).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let is_path = |word: &str| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/')
            && !first.is_empty()
            && !word.contains(['*', '<', '{', ' ', '…'])
            && root.join(first).is_dir()
    };
    let quoted = source.text.split('`').skip(1).step_by(2).filter(|word| is_path(word)).map(|word| root.join(word));
    let links = source.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_local = |link: &&str| !link.contains("://") && !link.starts_with('#') && !link.is_empty();
    let linked = links.filter(is_local).map(|link| folder.join(link.split('#').next().unwrap_or_default()));
    let missing = quoted.chain(linked).filter(|path| !path.exists());
    missing.map(|path| format!("{}: {} is not there", source.path, path.display())).collect()
}

#[test]
fn every_rule_holds() {
    let sources = files(&[".rs", ".wgsl"]);
    let mut broken = String::new();
    for (what, rule, _) in RULES {
        let violations = rule(&sources);
        if !violations.is_empty() {
            broken += &format!("\n{what}; but see\n  {}", violations.join("\n  "));
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for (what, rule, (path, text)) in RULES {
        assert!(!rule(&[Source::new(path, text)]).is_empty(), "{what}: not found in {text:?}");
    }
}

#[test]
fn long_files_are_excused_only_while_they_are_long() {
    let sources = files(&[".rs", ".wgsl"]);
    for (path, reason) in LONG_FILES {
        let is_long = |source: &Source| source.path == *path && source.code.lines().count() > MAX_CODE_LINES;
        assert!(
            sources.iter().any(is_long),
            "{path} is not there or not long any more ({reason}): take it off the list"
        );
    }
}

#[test]
fn documents_name_paths_that_exist() {
    let documents = files(&[".md"]);
    let dead: Vec<String> = documents.iter().flat_map(dead_paths).collect();
    assert!(dead.is_empty(), "\n  {}", dead.join("\n  "));
    let wrong = Source::new("README.md", "see `crates/nowhere.rs` and [this](missing.md)");
    assert_eq!(dead_paths(&wrong).len(), 2);
}

#[test]
fn every_package_uses_the_workspace_lints_and_only_the_kernels_depend_on_wgpu() {
    for manifest in files(&["Cargo.toml"])
        .iter()
        .filter(|manifest| !["Cargo.toml", "fuzz/Cargo.toml"].contains(&manifest.path.as_str()))
    {
        assert!(manifest.text.contains("[lints]\nworkspace = true"), "{}: no workspace lints", manifest.path);
        let has_wgpu = manifest.text.lines().any(|line| line.starts_with("wgpu"));
        assert_eq!(has_wgpu, manifest.path == "crates/tvb-kernels/Cargo.toml", "{}: wgpu", manifest.path);
    }
}

#[test]
fn modules_are_read_off_paths() {
    let code = "use crate::a::B; use crate::{c, d::{e, f}, G}; crate::h::i()";
    assert_eq!(crate_modules(code), ["a", "c", "d", "G", "h"]);
}
