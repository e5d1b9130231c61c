//! One command asked for by another program, with the flags that a user would type: read by the same parser, checked by the same
//! code, refused in the same words. Nothing is printed; what the command prints with `--json` is its answer.
//!
//! A program that holds its inputs itself asks for the parts: what the flags say of the selection, the job and the device.

use crate::args::Context;
use crate::cli::{Cli, Command};
use crate::output::with_escaped_words;
use clap::Parser as _;
use serde_json::Value;
use std::ffi::OsString;
use std::sync::Arc;
use tvb::checkpoint::OpenOptions;
use tvb::columns::plan::{Plan, Selection};
use tvb::cost::Work;
use tvb::jobs::compress::CompressOptions;
use tvb::progress::Progress;
use tvb::{Error, Existing, Result, Runtime};

/// A command with its flags, read and checked.
pub struct Invocation {
    command: Command,
    context: Context,
}

impl Invocation {
    /// Reads a command and its flags, without the program's name. `listener` hears of the progress, and says when to stop.
    ///
    /// # Errors
    /// Usage: what the command refuses before it opens anything.
    pub fn parse(words: Vec<OsString>, listener: Arc<dyn Progress + Send + Sync>) -> Result<Invocation> {
        let words = std::iter::once(OsString::from("tvb")).chain(words);
        let Cli { command, common } = Cli::try_parse_from(words).map_err(usage)?;
        Ok(Invocation { command, context: Context::new(common, Some(listener))? })
    }

    /// Does what was asked for; the answer is the object of `--json`.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<Value> {
        self.command.run(&self.context)?.into_json()
    }

    /// What hears of the progress.
    pub fn progress(&self) -> &dyn Progress {
        &self.context.progress
    }

    /// How checkpoints are opened.
    pub fn open_options(&self) -> OpenOptions {
        let key = match &self.command {
            Command::Compress(args) => args.inputs.selection.key.clone(),
            Command::Gram(args) => args.inputs.selection.key.clone(),
            Command::Add(args) => args.edit.originals.selection.key.clone(),
            Command::Verify(args) => args.selection.key.clone(),
            _ => None,
        };
        OpenOptions { key, budget: self.context.budget.clone() }
    }

    /// Which tensors take part.
    ///
    /// # Errors
    /// Usage: not a regular expression, no such rule.
    pub fn selection(&self) -> Result<Selection> {
        match &self.command {
            Command::Compress(args) => args.inputs.selection.selection(),
            Command::Gram(args) => args.inputs.selection.selection(),
            Command::Add(args) => args.edit.originals.selection.selection(),
            Command::Verify(args) => args.selection.selection(),
            _ => Ok(Selection::all()),
        }
    }

    /// What `compress` shall make of this plan.
    ///
    /// # Errors
    /// Usage: another command; options that do not fit each other, an unknown method or task.
    pub fn compress_options(&self, plan: &Plan) -> Result<CompressOptions> {
        match &self.command {
            Command::Compress(args) => args.options(plan),
            _ => Err(Error::usage("the command compress expected, another found")),
        }
    }

    /// What is done with an output that is there.
    pub fn existing(&self) -> Existing {
        let overwrites = match &self.command {
            Command::Compress(args) => args.overwrite,
            Command::Gram(args) => args.overwrite,
            Command::Add(args) => args.edit.overwrite,
            _ => false,
        };
        if overwrites { Existing::Replace } else { Existing::Refuse }
    }

    /// Opens the device that was asked for, or the one that does `work` soonest.
    ///
    /// # Errors
    /// Failed: no such device, or one that cannot be opened.
    pub fn runtime_for(&self, work: impl FnOnce() -> Result<Work>) -> Result<Runtime> {
        self.context.runtime_for(work)
    }
}

/// clap's message on one line, without the usage and the pointers to help pages.
fn usage(error: clap::Error) -> Error {
    let text = with_escaped_words(error).render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("wrong usage");
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let tip = lines.find_map(|line| line.strip_prefix("tip: ").map(str::to_owned));
    let made = Error::usage(message);
    match tip {
        Some(tip) => made.hint(tip),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tvb::{ErrorKind, Silent};

    fn parse(words: &[&str]) -> Result<Invocation> {
        Invocation::parse(words.iter().map(OsString::from).collect(), Arc::new(Silent))
    }

    #[test]
    fn wrong_words_are_usage_errors_of_one_line() {
        let cases = [
            (&["gram", "--bse", "b", "t", "-o", "g"][..], "unexpected argument '--bse' found", "a similar argument"),
            (&["compress", "--base", "b", "t", "-o", "o", "--bits", "7"], "bits: one of 0.25,", ""),
            (&["plan"], "", ""),
        ];
        for (words, message, hint) in cases {
            let error = parse(words).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Usage, "{words:?}");
            assert!(error.message().contains(message) && !error.message().contains('\n'), "{error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{hint:?} expected, {error:?} found");
        }
    }

    #[test]
    fn a_command_that_runs_answers_what_it_would_print_as_json() {
        let answer = parse(&["devices"]).and_then(Invocation::run).expect("devices");
        assert!(answer.get("devices").or(answer.get("cpu")).is_some(), "{answer}");
        let missing = parse(&["inspect", "nowhere"]).and_then(Invocation::run).expect_err("nothing there");
        assert_eq!(missing.kind(), ErrorKind::Rejected);
    }
}
