//! Developer commands: `cargo xtask test` is all a newcomer needs, `cargo xtask ci` is what a pull request must pass.

mod bench;
mod ci;
mod demo;
mod deny;
mod drivers;
mod fuzz;
mod interop;
mod isa;
mod page;
mod process;
mod python;
mod release;
mod setup;
mod study;
mod test;
mod tint;
mod zoo;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands of tvb.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    Demo(demo::Args),
    Study(study::Args),
    Test(test::Args),
    Tint(tint::Args),
    Ci(ci::Args),
    Deny(deny::Args),
    Drivers(drivers::Args),
    Bench(bench::Args),
    Zoo(zoo::Args),
    Interop(interop::Args),
    Isa(isa::Args),
    Python(python::Args),
    Fuzz(fuzz::Args),
    Release(release::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Study(args) => study::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tint(args) => tint::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Deny(args) => deny::run(&args),
        Command::Drivers(args) => drivers::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Zoo(args) => zoo::run(&args),
        Command::Interop(args) => interop::run(&args),
        Command::Isa(args) => isa::run(&args),
        Command::Python(args) => python::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Release(args) => release::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
