//! shaders/isa.md, which `cargo xtask isa --check` compares compiled shaders with, speaks of the variants that there are.

use std::path::Path;
use tvb_kernels::shader_variants;

/// `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(name) = name.strip_prefix(first) else { return false };
    if first.len() == pattern.len() {
        return name.is_empty();
    }
    (0..=name.len()).any(|at| fits(rest, &name[at..]))
}

#[test]
fn every_budget_names_a_variant_and_every_variant_has_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shaders/isa.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let patterns: Vec<&str> = lines.map(|(pattern, _)| pattern).collect();
    let mut used = vec![false; patterns.len()];
    for variant in shader_variants().expect("sound shaders") {
        let line = patterns.iter().position(|pattern| fits(pattern, &variant.name));
        used[line.unwrap_or_else(|| panic!("{} has no line in shaders/isa.md", variant.name))] = true;
    }
    let unused: Vec<&&str> =
        patterns.iter().zip(&used).filter(|(_, used)| !**used).map(|(pattern, _)| pattern).collect();
    assert!(unused.is_empty(), "no variant is the first to fit these lines of shaders/isa.md: {unused:?}");
}
