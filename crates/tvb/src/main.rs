//! tvb binary.
fn main() {}
