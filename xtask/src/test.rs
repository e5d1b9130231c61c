//! `cargo xtask test`: every test of the workspace, with what they need set up first.
//!
//! With the software Vulkan driver the GPU tests must run (`TVB_REQUIRE_GPU=1` makes a missing adapter a failure).
//! Without it they skip themselves, each with a line that begins with `skipped:`; those lines are collected and
//! repeated at the end, together with the way to get them run. The kernels' tests run on every other driver that is installed,
//! too (`cargo xtask drivers`).

use crate::drivers;
use crate::process::{Result, cargo, typed};
use crate::setup::{self, InstallArgs};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Run every test of the workspace, setting up what they need
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub install: InstallArgs,
    /// Passed on to `cargo test`, for example `-p tvb-kernels` or a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub cargo_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match setup::ensure_driver(&args.install) {
        Ok(()) => {
            crate::process::run(test_command(args, true).env("TVB_REQUIRE_GPU", "1"))?;
            // All tests were asked for: the kernels' on the other drivers that are here, too.
            if args.cargo_args.is_empty() { drivers::run(&drivers::Args::without_validation()) } else { Ok(()) }
        }
        Err(missing) => run_and_list_skipped(args, &missing),
    }
}

/// `cargo test --workspace --locked` and what was asked for; the whole workspace unless a package is named.
fn test_command(args: &Args, is_driver_there: bool) -> std::process::Command {
    let names_package = args.cargo_args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let mut words = vec!["test", "--locked"];
    if !names_package {
        words.push("--workspace");
    }
    words.extend(args.cargo_args.iter().map(String::as_str));
    if !is_driver_there {
        // The test harness hides what passing tests print; the reasons for skipping are in there.
        if !words.contains(&"--") {
            words.push("--");
        }
        words.push("--show-output");
    }
    cargo(words)
}

/// Runs the tests without the driver, passing their output on, and says in the end what did not run.
fn run_and_list_skipped(args: &Args, missing: &str) -> Result<()> {
    eprintln!("note: {missing}; GPU tests will be skipped");
    let mut command = test_command(args, false);
    let typed = typed(&command);
    eprintln!("$ {typed}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{typed}: cannot start: {error}"))?;
    let mut skipped = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut test_name = String::from("?");
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| format!("{typed}: its output cannot be read: {error}"))?;
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
                test_name = name.to_owned();
            }
            if let Some(reason) = line.strip_prefix("skipped:") {
                skipped.push(format!("{test_name}:{reason}"));
            }
            println!("{line}");
        }
    }
    let status = child.wait().map_err(|error| format!("{typed}: {error}"))?;
    if !skipped.is_empty() {
        eprintln!("\nskipped {} tests:\n  {}\nto run them: {missing}", skipped.len(), skipped.join("\n  "));
    }
    if status.success() { Ok(()) } else { Err(format!("{status}; run it again with: {typed}")) }
}
