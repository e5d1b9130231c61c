//! What is asked of the sources, the rule that asks, and files that break it.

use crate::debug_text::debug_texts;
use crate::layers::{circles_of_files, in_no_crate, later_stages};
use crate::manifests::{libraries_for_commands, unpublishable, with_wgpu, without_lints};
use crate::paths::paths_in_json;
use crate::repository::Repository;
use crate::source::Source;

/// One rule of the architecture.
pub(crate) struct Rule {
    pub asks: &'static str,
    /// What breaks it in a repository, one line each.
    pub broken: fn(&Repository) -> Vec<String>,
    /// Made-up files that break it.
    pub example: &'static [(&'static str, &'static str)],
}

/// Lines of a file up to its tests.
const MAX_CODE_LINES: usize = 500;

const PACKAGE: &str = "[package]\nname = \"x\"";

/// Every rule.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        asks: "no two files use each other",
        broken: circles_of_files,
        example: &[
            ("x/Cargo.toml", PACKAGE),
            ("x/src/lib.rs", "mod a; mod b;"),
            ("x/src/a.rs", "use crate::b::B; pub struct A;"),
            ("x/src/b.rs", "pub struct B; fn f() { super::a::A }"),
        ],
    },
    Rule {
        asks: "a stage uses earlier stages only, in the order of lib.rs",
        broken: later_stages,
        example: &[
            ("crates/tvb/Cargo.toml", PACKAGE),
            ("crates/tvb/src/lib.rs", "mod plan; mod solve;"),
            ("crates/tvb/src/plan.rs", "use crate::{error::Result, solve::x};"),
            ("crates/tvb/src/solve/mod.rs", "mod inner; pub use inner::x;"),
            ("crates/tvb/src/solve/inner.rs", "pub fn x() {}"),
        ],
    },
    Rule {
        asks: "every Rust file is a module of a crate",
        broken: in_no_crate,
        example: &[("x/Cargo.toml", PACKAGE), ("x/src/lib.rs", "mod a;"), ("x/src/b.rs", "")],
    },
    Rule {
        asks: "only the kernels crate knows wgpu",
        broken: |repository| uses(repository, |s| !s.is_under(&["crates/tvb-kernels/"]), &["wgpu", "naga"]),
        example: &[("crates/tvb/src/a.rs", "use wgpu::Device;")],
    },
    Rule {
        asks: "only the kernels crate depends on wgpu",
        broken: with_wgpu,
        example: &[("crates/tvb/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nw = { package = \"wgpu\" }")],
    },
    Rule {
        asks: "the kernels and the shaders know no files, names, formats or flags",
        broken: |repository| {
            uses(repository, |s| s.is_under(&["crates/tvb-kernels/src/", "shaders/"]), UNKNOWN_TO_KERNELS)
        },
        example: &[("crates/tvb-kernels/src/a.rs", "use std::path::PathBuf;")],
    },
    Rule {
        asks: "nothing prints with a macro, which panics where the terminal is gone",
        broken: |repository| uses(repository, is_product, &["println!", "print!", "eprintln!", "eprint!", "dbg!"]),
        example: &[("crates/tvb/src/a.rs", "fn f() { eprintln!(\"x\") }")],
    },
    Rule {
        asks: "only the command touches the terminal",
        broken: |repository| uses(repository, is_library, &["io::stdout", "io::stderr"]),
        example: &[("crates/tvb/src/a.rs", "let out = std::io::stdout();")],
    },
    Rule {
        asks: "libraries do not depend on what is for commands",
        broken: libraries_for_commands,
        example: &[("crates/tvb/Cargo.toml", "[dependencies]\nclap = \"4\"")],
    },
    Rule {
        asks: "solving and arithmetic are pure",
        broken: |repository| {
            uses(repository, |s| s.is_under(&["crates/tvb/src/solve", "crates/tvb/src/arithmetic"]), UNKNOWN_TO_PURE)
        },
        example: &[("crates/tvb/src/solve/a.rs", "fn f(c: &Checkpoint) {}")],
    },
    Rule {
        asks: "only the stages at both ends touch the file system",
        broken: |repository| {
            let may_not = |s: &Source| s.is_under(&["crates/tvb/src/"]) && !s.is_under(MAY_TOUCH_FILES);
            uses(repository, may_not, &["std::fs", "File"])
        },
        example: &[("crates/tvb/src/columns/plan.rs", "let x = std::fs::read(path);")],
    },
    Rule {
        asks: "Rust's `Debug` text stands in errors only",
        broken: |repository| repository.code().filter(|s| is_library(s)).flat_map(debug_texts).collect(),
        example: &[("crates/tvb/src/basis/a.rs", "fn f() { format!(\"{:?}\", x) }")],
    },
    Rule {
        asks: "paths go into JSON through `path_json`, as others than Unicode panic there",
        broken: |repository| repository.code().filter(|s| is_product(s)).flat_map(paths_in_json).collect(),
        example: &[("crates/tvb/src/jobs/a.rs", "fn f() { json!({ \"output\": args.output }) }")],
    },
    Rule {
        asks: "the command shows paths through `shown_path`",
        broken: |repository| uses(repository, |s| s.is_under(&["crates/tvb-cli/src/"]), &["display"]),
        example: &[("crates/tvb-cli/src/a.rs", "fn f() { format!(\"{}\", path.display()) }")],
    },
    Rule {
        asks: "a public function that can fail says when, under `# Errors`",
        broken: |repository| repository.silent_functions(is_library),
        example: &[("crates/tvb/src/a.rs", "/// Does.\npub fn f() -> Result<()> {}")],
    },
    Rule {
        asks: "a package that is published has a description, a licence and versions beside its paths",
        broken: unpublishable,
        example: &[
            ("Cargo.toml", "[workspace.package]\nlicense = \"MIT\"\n[workspace.dependencies]\ny = { path = \"y\" }"),
            (
                "x/Cargo.toml",
                "[package]\ndescription = \"x\"\nlicense.workspace = true\n[dependencies]\ny.workspace = true",
            ),
        ],
    },
    Rule {
        asks: "every member uses the workspace's lints",
        broken: without_lints,
        example: &[("x/Cargo.toml", PACKAGE)],
    },
    Rule {
        asks: "a file opens by saying what it is",
        broken: without_head,
        example: &[("crates/tvb/src/a.rs", "use std::fmt;")],
    },
    Rule { asks: "a file is short enough to be read", broken: too_long, example: &[("crates/tvb/src/a.rs", LONG)] },
    Rule {
        asks: "unsafe code says why it is sound",
        broken: unexplained_unsafe,
        example: &[("crates/tvb/src/a.rs", "fn f() { unsafe { g() } }")],
    },
    Rule {
        asks: "nothing is left to do",
        broken: |repository| uses(repository, |_| true, &["todo!", "unimplemented!", "dbg!"]),
        example: &[("crates/tvb/src/a.rs", "fn f() { todo!() }")],
    },
];

const UNKNOWN_TO_KERNELS: &[&str] =
    &["serde", "serde_json", "clap", "safetensors", "indicatif", "std::fs", "std::path", "Path", "PathBuf", "File"];

const UNKNOWN_TO_PURE: &[&str] = &["std::fs", "std::path", "std::env", "Path", "PathBuf", "File", "Checkpoint"];

/// The first and the last stages, the jobs that read or write files of their own, and the command.
const MAY_TOUCH_FILES: &[&str] = &[
    "crates/tvb/src/checkpoint/",
    "crates/tvb/src/columns/tasks.rs",
    "crates/tvb/src/basis/",
    "crates/tvb/src/jobs/batch/",
    "crates/tvb/src/jobs/bookmarks.rs",
    "crates/tvb/src/jobs/interop/",
    "crates/tvb/src/jobs/sweep/",
    "crates/tvb/src/jobs/fit/",
    "crates/tvb/src/jobs/point_log.rs",
    "crates/tvb/src/jobs/trying.rs",
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
fn uses(repository: &Repository, is_meant: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    repository.code().filter(|s| is_meant(s) && !is_test(s)).flat_map(|source| source.uses(words)).collect()
}

/// Integration tests and benches are not the product: they may print, and look behind the scenes.
fn is_test(source: &Source) -> bool {
    source.is_under(&["tests/", "benches/"])
        || ["/tests/", "/tests.rs", "/examples/"].iter().any(|part| source.path.contains(part))
}

/// The Rust code of the libraries and of the command.
fn is_product(source: &Source) -> bool {
    let folders = ["crates/tvb/src/", "crates/tvb-kernels/src/", "crates/tvb-cli/src/", "shaders/"];
    source.path.ends_with(".rs") && source.is_under(&folders) && !is_test(source)
}

/// The Rust code that others may build on.
fn is_library(source: &Source) -> bool {
    let command = ["crates/tvb-cli/", "crates/tvb/src/cli/", "crates/tvb/src/main.rs"];
    is_product(source) && !source.is_under(&command)
}

fn without_head(repository: &Repository) -> Vec<String> {
    let head = |source: &Source| if source.path.ends_with(".rs") { "//! " } else { "// " };
    let headless = repository.code().filter(|source| !source.text.starts_with(head(source)));
    headless.map(|source| format!("{}: does not begin with `{}`", source.path, head(source))).collect()
}

fn too_long(repository: &Repository) -> Vec<String> {
    let n_lines = |source: &Source| source.code.lines().count() - n_repeated(source);
    let long = repository.code().filter(|source| n_lines(source) > MAX_CODE_LINES);
    long.map(|source| format!("{}: {} lines before its tests, at most {MAX_CODE_LINES}", source.path, n_lines(source)))
        .collect()
}

/// Lines of a WGSL file that stand in others too, between marks: that language has no include.
fn n_repeated(source: &Source) -> usize {
    if !source.path.ends_with(".wgsl") {
        return 0;
    }
    let parts = source.text.split("// ---- End of ").filter_map(|before| before.split_once("// ---- "));
    parts.filter(|(_, shared)| shared.contains(": the same lines in ")).map(|(_, shared)| shared.lines().count()).sum()
}

/// `unsafe` blocks and impls have a comment with `SAFETY:` close above, unsafe functions a `# Safety` section.
fn unexplained_unsafe(repository: &Repository) -> Vec<String> {
    const MAX_LINES_ABOVE: usize = 12;
    let mut found = Vec::new();
    for source in repository.code().filter(|source| source.path.ends_with(".rs")) {
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
