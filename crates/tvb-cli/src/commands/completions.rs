//! `tvb completions SHELL`: a completion script for the user's shell.

use crate::output::Answer;
use clap_complete::Shell;
use serde_json::json;
use tvb::{Error, Result};

/// Print a completion script for your shell
///
/// For example: tvb completions bash > ~/.local/share/bash-completion/completions/tvb
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

/// Renders the script to memory first, so that a closed pipe is met by the one place that handles it.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tvb", &mut script);
    let script = String::from_utf8(script).map_err(|_| Error::failed("the completion script is not UTF-8"))?;
    let json = json!({ "shell": args.shell.to_string(), "script": script });
    Ok(Answer::new(script, json))
}
