//! `cargo xtask ci`: everything a change must pass, in the order in which it fails soonest.
//!
//! Dependencies are compiled twice at most: once as metadata, for clippy and the docs together, and once to code, for
//! the tests, which also leave the binaries that the demo then runs and what the Python package is made of.

use crate::process::{Result, cargo, run as run_command};
use crate::setup::{self, InstallArgs};
use crate::{demo, deny, drivers, isa, python, release, study, test, tint};
use std::time::Instant;

/// Run what a pull request must pass: format, packages, dependencies, lints, docs, shaders, tests on every driver, the Python package, a short demo
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    install: InstallArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let install = &args.install;
    let mut summary = Summary::default();
    summary.step("format", "cargo fmt --all", || {
        setup::ensure_components(install)?;
        run_command(&mut cargo(["fmt", "--all", "--check"]))
    })?;
    summary.step("packages", "cargo xtask release --check", release::check_lists)?;
    summary.step("deny", "cargo xtask deny", || deny::run(&deny::Args { install: install.clone() }))?;
    // With every feature, which the tests are built without: training is only checked here.
    summary.step("lints", "cargo clippy --workspace --all-targets --all-features", || {
        let mut command = cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--locked"]);
        run_command(command.args(["--", "-D", "warnings"]))
    })?;
    summary.step("docs", "RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --all-features", || {
        let mut command = cargo(["doc", "--workspace", "--no-deps", "--all-features", "--locked"]);
        run_command(command.env("RUSTDOCFLAGS", "-Dwarnings"))
    })?;
    summary.step("isa", "cargo xtask isa --check", || isa::run(&isa::Args::check()))?;
    summary.step("tint", "cargo xtask tint", || match tint::browser(&tint::Args::default()) {
        Some(_) => tint::run(&tint::Args::default()),
        None => {
            eprintln!(
                "skipped: no Chromium (Debian: chromium); its compiler looks at the shaders too where it is there"
            );
            Ok(())
        }
    })?;
    summary.step("tests", "cargo xtask test", || {
        test::run(&test::Args { install: install.clone(), cargo_args: Vec::new() })
    })?;
    summary.step("python", "cargo xtask python", || python::run(&python::Args::of_ci()))?;
    summary.step("layers", "cargo xtask drivers --only validation", || drivers::run(&drivers::Args::validation()))?;
    summary.step("demo", "cargo xtask demo --quick", || demo::run(&demo::Args { quick: true, dev: false }))?;
    summary.step("study", "cargo xtask study --quick", || study::run(&study::Args { quick: true, dev: false }))?;
    summary.print();
    Ok(())
}

/// The steps so far and the seconds they took.
#[derive(Default)]
struct Summary {
    steps: Vec<(&'static str, f64)>,
}

impl Summary {
    /// Runs a step; where it fails, says how to run that step alone.
    fn step(&mut self, name: &'static str, again: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let done = work();
        self.steps.push((name, started.elapsed().as_secs_f64()));
        done.map_err(|error| {
            self.print();
            format!("{name} failed: {error}\nhint: to run this step alone: {again}")
        })
    }

    fn print(&self) {
        eprintln!();
        for (name, seconds) in &self.steps {
            eprintln!("{name:<8} {seconds:>7.1} s");
        }
        let total: f64 = self.steps.iter().map(|(_, seconds)| seconds).sum();
        eprintln!("{:<8} {total:>7.1} s", "total");
    }
}
