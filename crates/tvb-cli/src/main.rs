//! The binary `tvb`: a thin wrapper around the library. What it does, in order, is in [`cli::run`].

// Nothing that a user or a file says may end in a panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod args;
#[allow(clippy::indexing_slicing, reason = "made-up data of the measurements' own sizes")]
mod bench;
mod cli;
mod coding;
mod commands;
mod inputs;
mod interrupt;
mod logging;
mod machine;
mod output;
mod progress;
mod saved;
mod solving;

use std::process::ExitCode;

fn main() -> ExitCode {
    output::install_panic_hook();
    // Panics are bugs, already reported by the hook; they leave with the code of any other failure.
    match std::panic::catch_unwind(cli::run) {
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
