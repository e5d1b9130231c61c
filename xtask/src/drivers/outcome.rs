//! What a run of the tests' program came to: each test's result, the layer's messages, and how the process ended.

use super::known::{Failure, Message};
use crate::process::{Result, typed};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What was seen of one run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Whether each test passed.
    tests: BTreeMap<String, bool>,
    /// Whether the harness came to its closing line.
    is_complete: bool,
    /// How the process ended.
    has_succeeded: bool,
    ending: String,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// Runs the program to its end.
    pub(super) fn of(command: &mut Command) -> Result<Outcome> {
        let output = command.output().map_err(|error| format!("{}: cannot start: {error}", typed(command)))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut outcome = Outcome::read(text(&output.stdout), text(&output.stderr));
        outcome.has_succeeded = output.status.success();
        outcome.ending = output.status.to_string();
        Ok(outcome)
    }

    /// From what was printed.
    fn read(stdout: String, stderr: String) -> Outcome {
        let mut outcome = Outcome::default();
        for line in stdout.lines() {
            let Some(rest) = line.strip_prefix("test ") else { continue };
            match rest.split_once(" ... ") {
                Some((name, "ok")) => _ = outcome.tests.insert(name.to_owned(), true),
                Some((name, "FAILED")) => _ = outcome.tests.insert(name.to_owned(), false),
                _ => outcome.is_complete |= rest.starts_with("result: "),
            }
        }
        Outcome { stdout, stderr, ..outcome }
    }

    pub(super) fn has_passed(&self, test: &str) -> bool {
        self.tests.get(test) == Some(&true)
    }

    pub(super) fn n_passed(&self) -> usize {
        self.tests.values().filter(|passed| **passed).count()
    }

    /// What the tests printed, where something failed.
    pub(super) fn said(&self) -> &str {
        self.stdout.trim()
    }

    /// The harness must come to its end with some test run; the process may abort after that, where that has a reason.
    pub(super) fn ended_well(&self, aborts: &str) -> Result<()> {
        if !self.is_complete || self.tests.is_empty() {
            return Err(format!("{}, and the tests did not come to their end: {}", self.ending, self.stderr.trim()));
        }
        let all_passed = self.tests.values().all(|passed| *passed);
        if !self.has_succeeded && all_passed && aborts.is_empty() {
            return Err(format!("all tests passed, but the process ended with {}", self.ending));
        }
        Ok(())
    }

    /// Just the tests that are known to fail may fail, and must.
    pub(super) fn failures_are(&self, known: &[Failure]) -> Result<()> {
        let found: BTreeSet<&str> =
            self.tests.iter().filter(|(_, passed)| !**passed).map(|(name, _)| name.as_str()).collect();
        let known: BTreeSet<&str> = known.iter().map(|failure| failure.test.as_str()).collect();
        let new: Vec<&str> = found.difference(&known).copied().collect();
        if !new.is_empty() {
            return Err(format!("failed: {}", new.join(", ")));
        }
        let gone: Vec<&str> = known.difference(&found).copied().collect();
        match gone.is_empty() {
            true => Ok(()),
            false => Err(format!("known to fail, but did not: {}; take that out of drivers.toml", gone.join(", "))),
        }
    }

    /// The layer must have said that it looks.
    pub(super) fn was_looked_at(&self, active: &[String]) -> Result<()> {
        match active.iter().find(|words| !self.stderr.contains(words.as_str())) {
            Some(words) => Err(format!("the validation layer did not say that it does {words:?}")),
            None => Ok(()),
        }
    }

    /// Just the messages that are known may have come, and those that count must.
    pub(super) fn messages_are(&self, known: &[Message]) -> Result<()> {
        let found = messages(&self.stderr);
        if let Some((id, first)) = found.iter().find(|(id, _)| known.iter().all(|message| message.id != **id)) {
            return Err(format!("the validation layer says {id}: {first}"));
        }
        match known.iter().find(|message| message.counts && !found.contains_key(message.id.as_str())) {
            Some(gone) => Err(format!("known, but no longer said: {}; take that out of drivers.toml", gone.id)),
            None => Ok(()),
        }
    }
}

/// Identifiers of errors and warnings, each with the line that follows the first.
fn messages(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let kinds = ["Validation Error: [ ", "Validation Warning: [ "];
        let Some(rest) = kinds.into_iter().find_map(|kind| line.split_once(kind)).map(|(_, rest)| rest) else {
            continue;
        };
        if let Some((id, _)) = rest.split_once(" ]") {
            found.entry(id).or_insert_with(|| lines.peek().copied().unwrap_or(""));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(stdout: &str, stderr: &str, has_succeeded: bool) -> Outcome {
        Outcome { has_succeeded, ..Outcome::read(stdout.to_owned(), stderr.to_owned()) }
    }

    #[test]
    fn new_failures_and_failures_that_are_gone_are_reported() {
        let known = |name: &str| vec![Failure { test: name.to_owned(), reason: "a reason".to_owned() }];
        let mixed = outcome("test a ... ok\ntest b ... FAILED\n\ntest result: FAILED. 1 passed; 1 failed\n", "", false);
        assert!(mixed.ended_well("").is_ok() && mixed.has_passed("a") && !mixed.has_passed("b"));
        assert!(mixed.failures_are(&known("b")).is_ok());
        assert_eq!(mixed.failures_are(&[]), Err("failed: b".to_owned()));
        let fine = outcome("test b ... ok\n\ntest result: ok. 1 passed\n", "", true);
        assert!(fine.failures_are(&known("b")).is_err_and(|error| error.contains("did not: b")));
    }

    #[test]
    fn a_run_that_broke_off_or_ran_nothing_is_no_success() {
        assert!(outcome("test a ... ok\n", "segmentation fault", false).ended_well("a reason").is_err());
        assert!(outcome("\ntest result: ok. 0 passed\n", "", true).ended_well("").is_err());
        let aborted = outcome("test a ... ok\n\ntest result: ok. 1 passed\n", "", false);
        assert!(aborted.ended_well("").is_err() && aborted.ended_well("the layer aborts").is_ok());
    }

    #[test]
    fn messages_of_the_layer_are_found() {
        let said = "Validation Information: [ CURRENT ] | x\nvkCreateInstance(): Current Validation Enabled:\n  - GPU-AV\n\
                    Validation Error: [ VUID-a-1 ] | MessageID = 0x1\nwhat is wrong\nValidation Warning: [ Other ] | x\n";
        let run = outcome("", said, true);
        let known = |id: &str, counts| Message { id: id.to_owned(), counts, reason: "a reason".to_owned() };
        assert!(run.messages_are(&[known("VUID-a-1", true), known("Other", false)]).is_ok());
        assert_eq!(
            run.messages_are(&[known("Other", false)]),
            Err("the validation layer says VUID-a-1: what is wrong".to_owned())
        );
        let with_more = [known("VUID-a-1", true), known("Other", false), known("VUID-b", true)];
        assert!(run.messages_are(&with_more).is_err_and(|error| error.contains("no longer said: VUID-b")));
        assert!(run.was_looked_at(&["GPU-AV".to_owned()]).is_ok() && run.was_looked_at(&["Sync".to_owned()]).is_err());
    }
}
