//! What the tests of several crates share: small random models, and the committed fixtures.
//!
//! It knows no crate of the workspace, so that each can use it in its tests. Tests of the workspace as a whole are in
//! `tests/tests/`.

pub mod small_models;

use std::path::{Path, PathBuf};

/// A file or folder among the committed fixtures, for example `reference/expected.json`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The number that an environment variable holds, or `default`: how many cases, kills, flips or what seed.
#[must_use]
pub fn number<N: std::str::FromStr>(variable: &str, default: N) -> N {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
