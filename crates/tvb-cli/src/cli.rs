//! The command line: flags become options of the library, the library's answer becomes text or JSON.
//!
//! One file per command. A command is a function from what was typed and a [`Context`] to an [`Answer`]; nothing else
//! reads the arguments, and nothing but `output.rs` writes to the terminal.

use crate::args::{CommonArgs, Context};
use crate::commands::{
    apply, batch, bench, check, completions, compress, devices, drop, edit, export, extend, fit, gram, import, inspect,
    join, merge, plan, recover, report, sweep, verify,
};
use crate::output::{self, Answer};
use crate::{interrupt, logging};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use tvb::Result;

/// What follows every help page.
const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    failed: I/O, device, a failed job
  2    wrong usage
  3    input rejected: a checkpoint, basis or job file that is malformed or does not fit
  130  interrupted

Sizes: 512M and 512MiB count in 1024s, 5GB in 1000s.
Results go to stdout; logs and progress to stderr.";

/// Compress the task vectors of many fine-tuned checkpoints into a small basis, and do task arithmetic from it.
#[derive(Debug, Parser)]
#[command(name = "tvb", version, after_help = AFTER_HELP, max_term_width = 120, subcommand_required = true)]
#[command(arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A command and its flags, as typed.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Devices(devices::Args),
    Check(check::Args),
    Gram(gram::Args),
    Join(join::Args),
    Compress(Box<compress::Args>),
    Plan(Box<plan::Args>),
    Add(Box<edit::AddArgs>),
    Negate(Box<edit::NegateArgs>),
    Analogy(Box<edit::AnalogyArgs>),
    Extend(extend::Args),
    Drop(drop::Args),
    Apply(Box<apply::ApplyArgs>),
    Merge(Box<merge::MergeArgs>),
    Recover(recover::Args),
    Sweep(sweep::Args),
    Fit(Box<fit::Args>),
    Batch(batch::Args),
    Bench(bench::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Report(report::Args),
    Import(import::Args),
    Export(export::Args),
    Completions(completions::Args),
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        match self {
            Command::Devices(_) => devices::run(context),
            Command::Check(args) => check::run(&args, context),
            Command::Gram(args) => gram::run(&args, context),
            Command::Join(args) => join::run(&args, context),
            Command::Compress(args) => compress::run(&args, context),
            Command::Plan(args) => plan::run(&args, context),
            Command::Add(args) => edit::add(&args, context),
            Command::Negate(args) => edit::negate(&args, context),
            Command::Analogy(args) => edit::analogy(&args, context),
            Command::Drop(args) => drop::run(&args, context),
            Command::Extend(args) => extend::run(&args, context),
            Command::Apply(args) => apply::apply(&args, context),
            Command::Merge(args) => merge::merge(&args, context),
            Command::Recover(args) => recover::run(&args, context),
            Command::Sweep(args) => sweep::run(&args, context),
            Command::Fit(args) => fit::run(&args, context),
            Command::Batch(args) => batch::run(&args, context),
            Command::Bench(args) => bench::run(&args, context),
            Command::Inspect(args) => inspect::run(&args, context),
            Command::Verify(args) => verify::run(&args, context),
            Command::Report(args) => report::run(&args, context),
            Command::Import(args) => import::run(&args, context),
            Command::Export(args) => export::run(&args, context),
            Command::Completions(args) => completions::run(&args, Cli::command()),
        }
    }
}

/// Parses the arguments, runs the command they name, shows its answer, and returns the exit code.
pub(crate) fn run(args: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return output::show_usage(error),
    };
    let is_json = cli.common.json;
    logging::start(&cli.common);
    let context = match Context::new(cli.common, args, None).and_then(|context| interrupt::listen().map(|()| context)) {
        Ok(context) => context,
        Err(error) => return output::show(Err(error), &[], is_json),
    };
    let answer = cli.command.run(&context);
    let warnings = context.progress.warnings();
    // A bar that an error left behind goes before the error is shown.
    drop(context);
    output::show(answer, &warnings, is_json)
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
