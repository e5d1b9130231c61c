//! The architecture's invariants (ARCHITECTURE.md), checked on the source text.
//!
//! Each rule is a function from the repository to what breaks it. One test runs every rule on the repository, another runs
//! every rule on made-up files that break it, so that a rule that no longer finds anything is noticed. Nothing here lists
//! files or stages: the crates are found by their manifests, and their order is that of their roots' `mod` lines.
//!
//! `TVB_INVARIANTS_ROOT` names another checkout to look at.

#[path = "invariants/circles.rs"]
mod circles;
#[path = "invariants/debug_text.rs"]
mod debug_text;
#[path = "invariants/documents.rs"]
mod documents;
#[path = "invariants/error_sections.rs"]
mod error_sections;
#[path = "invariants/layers.rs"]
mod layers;
#[path = "invariants/manifests.rs"]
mod manifests;
#[path = "invariants/names.rs"]
mod names;
#[path = "invariants/paths.rs"]
mod paths;
#[path = "invariants/repository.rs"]
mod repository;
#[path = "invariants/rules.rs"]
mod rules;
#[path = "invariants/source.rs"]
mod source;
#[path = "invariants/tree.rs"]
mod tree;

use repository::Repository;
use rules::RULES;
use source::Source;

#[test]
fn every_rule_holds() {
    let mut broken = String::new();
    for rule in RULES {
        let violations = (rule.broken)(Repository::here());
        if !violations.is_empty() {
            broken += &format!("\n{}; but see\n  {}", rule.asks, violations.join("\n  "));
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for rule in RULES {
        let broken = (rule.broken)(&Repository::made_up(rule.example));
        assert!(!broken.is_empty(), "{}: not found in {:?}", rule.asks, rule.example);
    }
}

#[test]
fn the_excused_circle_is_still_one() {
    assert!(
        layers::has_excused_circle(Repository::here()),
        "machine.rs and reduce.rs no longer use each other: remove the exception"
    );
}

#[test]
fn documents_name_paths_that_exist() {
    let documents = Repository::here().sources.iter().filter(|source| source.path.ends_with(".md"));
    let dead: Vec<String> = documents.flat_map(documents::dead_paths).collect();
    assert!(dead.is_empty(), "\n  {}", dead.join("\n  "));
    let wrong = Source::new("README.md", "see `crates/nowhere.rs` and [this](missing.md)");
    assert_eq!(documents::dead_paths(&wrong).len(), 2);
}
