//! `cargo xtask deny`: licences, duplicates, sources and known vulnerabilities of the dependencies, as `deny.toml` says.

use crate::process::{Result, cargo, root, run as run_command, succeeds, target};
use crate::setup::InstallArgs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the database may take to come: a network that swallows what is sent to it must not hold up a test run.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
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
    if !succeeds_within(&mut deny(&["fetch", "db"]), FETCH_TIMEOUT) {
        eprintln!(
            "warning: the database of known vulnerabilities could not be fetched: the dependencies were not looked up in it"
        );
        return Ok(());
    }
    run_command(&mut deny(&["check", "--hide-inclusion-graph", "advisories"]))
}

/// Whether a command, whose output nobody sees, succeeds in that time; one that takes longer is ended.
fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return false;
    };
    let started = Instant::now();
    while started.elapsed() < limit {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Ok(Some(status)) => return status.success(),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_command_that_hangs() {
        let within = |words: &[&str], limit: f64| {
            succeeds_within(Command::new(words[0]).args(&words[1..]), Duration::from_secs_f64(limit))
        };
        assert!(within(&["true"], 20.0) && !within(&["false"], 20.0) && !within(&["sleep", "60"], 0.3));
        assert!(!within(&["/no/such/program"], 1.0));
    }
}
