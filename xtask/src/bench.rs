//! `cargo xtask bench`: the criterion benches of the workspace.

use crate::process::{Result, cargo, run as run_command};

/// Run the criterion benches
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to criterion, for example `--save-baseline before` or a bench's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    bench_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = cargo(["bench", "--locked", "--package", "tvb-benches", "--benches"]);
    if !args.bench_args.is_empty() {
        command.arg("--").args(&args.bench_args);
    }
    run_command(&mut command)
}
