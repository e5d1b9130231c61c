//! What another program asks for in this process: one command, with the flags that a user would type, or the device that they
//! would choose. The flags are read by the same parser and checked by the same code, and refused in the same words. Nothing is
//! printed; what the command prints with `--json` is its answer.

use crate::args::{CommonArgs, Context};
use crate::cli::{Cli, Command};
use crate::given::Given;
use crate::output::with_escaped_words;
use clap::Parser;
use serde_json::Value;
use std::ffi::OsString;
use std::sync::Arc;
use tvb::cost::Work;
use tvb::progress::Progress;
use tvb::{Error, Result, Runtime};

/// A command with its flags, read and checked.
pub struct Invocation {
    command: Command,
    context: Context,
}

impl Invocation {
    /// Reads a command and its flags, without the program's name. `given` is looked at for what stands in place of a path before
    /// any is opened. `listener` hears of the progress, and says when to stop.
    ///
    /// # Errors
    /// Usage: what the command refuses before it opens anything.
    pub fn parse(words: Vec<OsString>, given: Given, listener: Arc<dyn Progress + Send + Sync>) -> Result<Invocation> {
        let words = with_name(words);
        let Cli { command, common } = Cli::try_parse_from(&words).map_err(usage)?;
        Ok(Invocation { command, context: Context::new(common, words, Some(listener))?.with(given) })
    }

    /// Does what was asked for; the answer is the object of `--json`.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<Value> {
        self.command.run(&self.context)?.into_json()
    }
}

/// The flags that every command has, for a job that is none of them.
pub struct Setup {
    context: Context,
}

/// Those flags alone.
#[derive(Debug, Parser)]
struct CommonFlags {
    #[command(flatten)]
    common: CommonArgs,
}

impl Setup {
    /// Reads flags such as `--device` and `--threads`.
    ///
    /// # Errors
    /// Usage: others, or values that they do not take.
    pub fn parse(flags: Vec<OsString>, listener: Arc<dyn Progress + Send + Sync>) -> Result<Setup> {
        let words = with_name(flags);
        let CommonFlags { common } = CommonFlags::try_parse_from(&words).map_err(usage)?;
        Ok(Setup { context: Context::new(common, words, Some(listener))? })
    }

    /// What hears of the progress.
    pub fn progress(&self) -> &dyn Progress {
        &self.context.progress
    }

    /// Opens the device that was asked for, or the one that does `work` soonest.
    ///
    /// # Errors
    /// Failed: no such device, or one that cannot be opened.
    pub fn runtime_for(&self, work: impl FnOnce() -> Result<Work>) -> Result<Runtime> {
        self.context.runtime_for(work)
    }
}

fn with_name(words: Vec<OsString>) -> Vec<OsString> {
    std::iter::once("tvb".into()).chain(words).collect()
}

/// clap's message on one line, without the usage and the pointers to help pages.
fn usage(error: clap::Error) -> Error {
    let text = with_escaped_words(error).render().to_string();
    // What is missing stands in lines of its own below the first.
    let head: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let (first, listed) = head.split_first().map_or(("wrong usage", &[][..]), |(first, listed)| (*first, listed));
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let made = Error::usage(format!("{first} {}", listed.join(", ")).trim_end());
    let mut lines = text.lines().map(str::trim);
    match lines.find_map(|line| line.strip_prefix("tip: ")) {
        Some(tip) => made.hint(tip),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor};
    use tvb::{ErrorKind, Silent};

    fn run(words: &[&str], given: Given) -> Result<Value> {
        Invocation::parse(words.iter().map(OsString::from).collect(), given, Arc::new(Silent))?.run()
    }

    #[test]
    fn wrong_words_are_usage_errors_of_one_line() {
        let cases = [
            (&["compress", "--base", "b", "-o", "o"][..], "were not provided: <[NAME=]PATH[::KEY]>", ""),
            (&["gram", "--bse", "b", "t", "-o", "g"][..], "unexpected argument '--bse' found", "a similar argument"),
            (&["compress", "--base", "b", "t", "-o", "o", "--bits", "7"], "bits: one of 0.25,", ""),
            (&["gram", "--base", "b", "t", "-o", "g", "--memory", "x"], "invalid value 'x'", ""),
        ];
        for (words, message, hint) in cases {
            let error = run(words, Given::default()).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Usage, "{words:?}");
            assert!(error.message().contains(message) && !error.message().contains('\n'), "{error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{hint:?} expected, {error:?} found");
        }
        let flags = vec!["--devce=cpu".into()];
        assert_eq!(Setup::parse(flags, Arc::new(Silent)).err().expect("refused").kind(), ErrorKind::Usage);
        let missing = run(&["inspect", "nowhere"], Given::default()).expect_err("nothing there");
        assert_eq!((missing.kind(), missing.hint_text()), (ErrorKind::Failed, Some("check the path")));
    }

    #[test]
    fn what_is_given_stands_for_a_path() {
        let model = |values: [f32; 2]| {
            let bytes = Lent::owned(values.iter().flat_map(|value| value.to_le_bytes()).collect());
            let tensor = LentTensor { name: "w".into(), dtype: Dtype::F32, shape: vec![2], bytes };
            Checkpoint::in_memory("state dict in memory", vec![tensor]).expect("a checkpoint")
        };
        let given = Given::new([("memory:0".into(), model([1.0, 2.0])), ("memory:1".into(), model([1.0, 5.0]))]);
        let answer = run(&["check", "--base", "memory:0", "a=memory:1"], given.clone()).expect("they fit");
        assert_eq!(answer.get("n_tensors"), Some(&1.into()), "{answer}");
        let missing = run(&["check", "--base", "memory:0", "a=memory:2"], given).expect_err("nobody gave it");
        assert!(missing.message().starts_with("task a: memory:2"), "{missing}");
    }
}
