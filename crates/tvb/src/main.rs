//! The `tvb` binary: a thin face on the library. What it does, in order, is in [`cli::run`].

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::install_panic_hook();
    // Panics are bugs, already reported by the hook; they leave with the code of any other failure.
    match std::panic::catch_unwind(cli::run) {
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
