//! zoo binary.
fn main() {}
