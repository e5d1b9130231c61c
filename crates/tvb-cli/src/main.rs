//! The binary `tvb`: a thin wrapper around the library. What it does, in order, is in [`cli::run`].

mod args;
mod bench;
mod cli;
mod commands;
mod inputs;
mod interrupt;
mod logging;
mod output;
mod progress;
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
