//! The binary `tvb`: the library of this crate, run on the process's arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some((name, value)) = tvb_cli::quiet_driver() {
        // SAFETY: called first thing in `main`, while this is the process's only thread.
        unsafe { std::env::set_var(name, value) };
    }
    ExitCode::from(tvb_cli::run(std::env::args_os()))
}
