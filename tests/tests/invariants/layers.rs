//! How the files of a crate stand to each other: no circles, stages in order, and none that no crate reaches.

use crate::circles::{circles, graph, shortest};
use crate::repository::Repository;
use std::collections::BTreeSet;

/// The one circle that stays: the pickle machine calls what a pickle names, and a call changes the machine.
const EXCUSED: [&str; 2] = ["pickle/machine.rs", "pickle/reduce.rs"];

/// Crates whose root names its modules in the order in which data passes through them.
const STAGED: &[&str] = &["crates/tvb/src/lib.rs"];

/// Files that use each other.
pub(crate) fn circles_of_files(repository: &Repository) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (root, tree) in repository.crates() {
        let graph = graph(&tree);
        for circle in circles(&graph).iter().filter(|circle| !is_excused(circle)) {
            found.insert(format!("{} files of {root}, for example {}", circle.len(), shortest(&graph, circle)));
        }
    }
    found.into_iter().collect()
}

fn is_excused(circle: &BTreeSet<String>) -> bool {
    circle.iter().zip(EXCUSED).all(|(file, excused)| file.ends_with(excused)) && circle.len() == EXCUSED.len()
}

/// Whether the excused files do use each other.
pub(crate) fn has_excused_circle(repository: &Repository) -> bool {
    repository.crates().iter().any(|(_, tree)| {
        let graph = graph(tree);
        let uses = |from: &str, to: &str| {
            graph.iter().any(|(file, used)| file.ends_with(from) && used.keys().any(|used| used.ends_with(to)))
        };
        let [machine, reduce] = EXCUSED;
        uses(machine, reduce) && uses(reduce, machine)
    })
}

/// Uses of what a later module of the root defines, in the order of the root's `mod` lines.
pub(crate) fn later_stages(repository: &Repository) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (_, tree) in repository.crates().iter().filter(|(root, _)| STAGED.contains(&root.as_str())) {
        for edge in tree.edges() {
            // The root's modules are numbered in the order of their lines.
            let stages = [edge.from, edge.to].map(|module| tree.top_level(module));
            if let [Some(from), Some(to)] = stages
                && from < to
            {
                let [file, used] = [edge.from, edge.to].map(|module| &tree.modules[module].file);
                found.insert(format!("{file}: {} of {used}", edge.name));
            }
        }
    }
    found.into_iter().collect()
}

/// Rust files that are in no crate: they are not compiled, or these rules do not see them.
pub(crate) fn in_no_crate(repository: &Repository) -> Vec<String> {
    let crates = repository.crates();
    let reached: BTreeSet<&str> =
        crates.iter().flat_map(|(_, tree)| &tree.modules).map(|module| module.file.as_str()).collect();
    let rust = repository.code().map(|source| source.path.as_str()).filter(|path| path.ends_with(".rs"));
    rust.filter(|path| !reached.contains(path)).map(str::to_owned).collect()
}

#[test]
fn only_machine_and_reduce_are_excused() {
    let pickle = |reduce| {
        Repository::made_up(&[
            ("x/Cargo.toml", "[package]\nname = \"x\""),
            ("x/src/lib.rs", "mod pickle;"),
            ("x/src/pickle/mod.rs", "mod machine; mod reduce; mod stack;"),
            ("x/src/pickle/machine.rs", "pub struct Machine; fn f() { super::reduce::call() }"),
            ("x/src/pickle/reduce.rs", reduce),
            ("x/src/pickle/stack.rs", "use super::machine::Machine; pub struct Stack;"),
        ])
    };
    let cases = [
        ("use super::machine::Machine; pub fn call() {}", 0, true),
        ("use super::machine::Machine; use super::stack::Stack; pub fn call() {}", 1, true),
        ("use super::stack::Stack; pub fn call() {}", 1, false),
        ("pub fn call() {}", 0, false),
    ];
    for (reduce, n_circles, is_needed) in cases {
        let repository = pickle(reduce);
        assert_eq!(circles_of_files(&repository).len(), n_circles, "{reduce}");
        assert_eq!(has_excused_circle(&repository), is_needed, "{reduce}");
    }
}
