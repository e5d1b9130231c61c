//! The command `tvb` as a library: the program itself ([`run`]), and one of its commands asked for by another program in
//! its own process ([`Invocation`]), with the same flags, checks and messages.

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
mod given;
mod inputs;
mod interrupt;
mod invocation;
mod logging;
mod machine;
mod output;
mod progress;
mod saved;
mod solving;

pub use given::Given;
pub use invocation::{Invocation, Setup};

use std::ffi::OsString;
use tvb::ErrorKind;

/// Does what these arguments say, the program's name first among them, and answers the exit code. It takes over the process:
/// signals, logs, and what is said of a panic.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    output::install_panic_hook();
    let args: Vec<OsString> = args.into_iter().collect();
    // Panics are bugs, already reported by the hook; they leave with the code of any other failure.
    std::panic::catch_unwind(|| cli::run(args)).unwrap_or(ErrorKind::Failed.exit_code())
}

/// On a headless machine Mesa's device-selection layer complains on stderr that it finds no desktop to ask which GPU it
/// prefers, once for every look at the adapters. It has nothing to select for us: adapters are chosen here. Answers the variable
/// that keeps it quiet and its value, for who may set it.
pub fn quiet_driver() -> Option<(&'static str, &'static str)> {
    let has_desktop =
        ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    (cfg!(target_os = "linux") && !has_desktop).then_some(("NODEVICE_SELECT", "1"))
}
