//! The command `tvb`, run as a user runs it.
//!
//! One program for all of them: `cargo test -p tvb-cli --test all sweep::` runs a part of it.

mod adapters;
mod auto;
mod batch;
mod bench;
mod by_tensor;
mod cards;
mod cli;
mod cluster;
mod coded;
mod fit;
mod extend_gram;
mod growing;
mod inputs;
mod kills;
mod left_behind;
mod lora_out;
mod loss;
mod matching;
mod merging;
mod names;
mod numbers;
mod parts;
mod parts_killed;
mod plan;
mod shared;
mod streams;
mod sweep;
mod wrapped;
