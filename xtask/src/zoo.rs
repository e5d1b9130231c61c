//! `cargo xtask zoo`: retrains the committed models of `crates/tvb-zoo` from their seeds.

use crate::process::{Result, cargo, run as run_command};

/// Where the trained models are kept.
pub(crate) const CHECKPOINTS: &str = "crates/tvb-zoo/checkpoints";

/// Retrain the zoo's checkpoints from their seeds (minutes); they are committed, so few need to
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `tvb-zoo train`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    train_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Only training needs the tensor library; nothing else builds it.
    let mut command =
        cargo(["run", "--release", "--locked", "--package", "tvb-zoo", "--features", "train", "--", "train"]);
    run_command(command.args(["--out", CHECKPOINTS]).args(&args.train_args))
}
