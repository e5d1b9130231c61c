//! The evaluator's command line, and the way it is run.

use crate::error::{Error, Result};
use std::time::Duration;

/// What stands for the checkpoint's path in the evaluator's arguments.
pub const CHECKPOINT: &str = "{checkpoint}";
/// What stands for the scale λ in the evaluator's arguments.
pub const SCALE: &str = "{scale}";

/// The evaluator's command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluator {
    /// Program and arguments; of one that does not serve with [`CHECKPOINT`] (and where wanted [`SCALE`]) to be replaced.
    pub command: Vec<String>,
    /// How long one checkpoint may take; of one that serves the first with its start.
    pub timeout: Option<Duration>,
    /// One process serves all checkpoints: it reads their paths from its stdin.
    pub serve: bool,
}

impl Evaluator {
    /// An evaluator that is started for each checkpoint; the command must mention [`CHECKPOINT`].
    ///
    /// # Errors
    /// Usage: an empty command, or one that does not mention the checkpoint.
    pub fn new(command: Vec<String>, timeout: Option<Duration>) -> Result<Evaluator> {
        if command.is_empty() || !command.iter().any(|word| word.contains(CHECKPOINT)) {
            return Err(Error::usage(format!("an evaluator command that mentions {CHECKPOINT} expected"))
                .hint(format!("for example: -- python eval.py {CHECKPOINT}")));
        }
        Ok(Evaluator { command, timeout, serve: false })
    }

    /// An evaluator that is started once and reads the paths of checkpoints from its stdin.
    ///
    /// # Errors
    /// Usage: an empty command, or one that mentions what is not known when it is started.
    pub fn serving(command: Vec<String>, timeout: Option<Duration>) -> Result<Evaluator> {
        if command.is_empty() {
            return Err(Error::usage("an evaluator command expected, an empty one found"));
        }
        if let Some(mark) = [CHECKPOINT, SCALE].into_iter().find(|mark| command.iter().any(|word| word.contains(mark)))
        {
            return Err(Error::usage(format!(
                "an evaluator command without {mark} expected with --serve: it is started once, before any candidate is there"
            ))
            .hint("let it read a path from each line of its stdin, or leave out --serve"));
        }
        Ok(Evaluator { command, timeout, serve: true })
    }
}
