//! `tvb-zoo`: evaluates checkpoints of the zoo, retrains it, shows its data.
//!
//! Exit codes are those of `tvb`: 0 done, 1 failed, 2 wrong usage, 3 a checkpoint that does not fit.

mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "train")]
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // The tensor library would put every small product on all cores, which costs more than it gains.
        // SAFETY: this is the first statement of the program; no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    match commands::run(commands::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
