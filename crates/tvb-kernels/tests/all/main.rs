//! The operations on chunks of many shapes, on every engine there is, against plain f64 loops.
//!
//! One program, since each links all of wgpu: `cargo test -p tvb-kernels --test all eigh::` runs a part of it.

mod accuracy;
mod budgets;
mod codes;
mod codes_on_gpu;
mod common;
mod device;
mod eigh;
mod least_device;
mod low_rank;
mod merges;
mod operations;
mod outputs;
mod segments;
mod self_test;
mod stream;
