//! `cargo xtask deny`: licences, duplicates, sources and known vulnerabilities of the dependencies, as `deny.toml` says.

use crate::process::{Result, cargo, root, run as run_command, succeeds, target};
use crate::setup::InstallArgs;
use std::path::PathBuf;
use std::process::Command;

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Check the dependencies: licences, duplicates, sources and, where there is a network, known vulnerabilities
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub install: InstallArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let program = ensure_program(&args.install)?;
    let deny = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root()).args(["--locked"]).args(words);
        command
    };
    run_command(&mut deny(&["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    // The database is a repository of its own, which not every machine can reach. What it says does not depend on this
    // project alone, so a change is not held up where it cannot be asked.
    let fetched = deny(&["fetch", "db"]).output().is_ok_and(|output| output.status.success());
    if !fetched {
        eprintln!(
            "warning: the database of known vulnerabilities could not be fetched: the dependencies were not looked up in it"
        );
        return Ok(());
    }
    run_command(&mut deny(&["check", "--hide-inclusion-graph", "advisories"]))
}

/// cargo-deny: the one on the path, or our own under `target/tools`, which is built where we may.
fn ensure_program(install: &InstallArgs) -> Result<PathBuf> {
    if succeeds("cargo-deny", &["--version"]) {
        return Ok("cargo-deny".into());
    }
    let tools = target().join("tools");
    let own = tools.join("bin").join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    if own.is_file() {
        return Ok(own);
    }
    let help = format!("no cargo-deny; get it with `cargo install cargo-deny --locked --version {VERSION}`");
    if install.no_install {
        return Err(help);
    }
    eprintln!("no cargo-deny found: building it (--no-install leaves it)");
    // It runs for a second, so its build is what counts.
    let mut command = cargo(["install", "cargo-deny", "--locked", "--version", VERSION, "--debug", "--root"]);
    run_command(command.arg(&tools)).map_err(|error| format!("{error}\n       {help}"))?;
    Ok(own)
}
