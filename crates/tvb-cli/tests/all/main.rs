//! The command `tvb`, run as a user runs it.
//!
//! One program for all of them: `cargo test -p tvb-cli --test all sweep::` runs a part of it.

mod batch;
mod bench;
mod cli;
mod coded;
mod inputs;
mod kills;
mod left_behind;
mod loss;
mod names;
mod numbers;
mod plan;
mod sweep;
