//! Programs that do the same are run by turns, and their times told in one table.

use super::timed::{median, run, summary};
use crate::process::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Something to be run by turns with other things.
pub(super) struct Contender<'a> {
    name: String,
    /// What its time is divided by: the contender of this number.
    floor: Option<usize>,
    command: Box<dyn Fn() -> Result<Command> + 'a>,
}

impl<'a> Contender<'a> {
    pub(super) fn new(name: &str, floor: Option<usize>, command: impl Fn() -> Result<Command> + 'a) -> Self {
        Contender { name: name.into(), floor, command: Box::new(command) }
    }
}

/// Runs every contender once a round, in order, and answers with a table.
pub(super) fn by_turns(contenders: &[Contender<'_>], n_rounds: usize, out: &Path) -> Result<String> {
    let mut runs = vec![Vec::new(); contenders.len()];
    for round in 1..=n_rounds {
        eprintln!("round {round} of {n_rounds}");
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            clear(out)?;
            runs.push(run(&mut (contender.command)()?)?);
        }
    }
    clear(out)?;
    let mut table = String::from(
        "| job | time, s | over its floor | each run, s | user, s | resident |\n|---|---:|---:|---|---:|---:|\n",
    );
    for (contender, own) in contenders.iter().zip(&runs) {
        let (seconds, resident_bytes) = summary(own);
        // Ratios of each round, since the machine changes from one to the next.
        let ratio = contender
            .floor
            .and_then(|floor| median(own.iter().zip(&runs[floor]).map(|(run, floor)| run.seconds / floor.seconds)));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let each: Vec<String> = own.iter().map(|run| format!("{:.2}", run.seconds)).collect();
        let user = median(own.iter().filter_map(|run| run.user_seconds));
        let user = user.map_or_else(|| "-".into(), |user| format!("{user:.2}"));
        let (name, each, resident) = (&contender.name, each.join(" "), megabytes(resident_bytes));
        let _ = writeln!(table, "| {name} | {seconds:.2} | {ratio} | {each} | {user} | {resident} |");
    }
    Ok(table)
}

/// `12 MB`, or a dash where nobody knows.
pub(super) fn megabytes(n_bytes: Option<u64>) -> String {
    n_bytes.map_or_else(|| "-".into(), |n_bytes| format!("{:.0} MB", n_bytes as f64 / 1e6))
}

/// An empty folder for outputs and a disk with nothing left to write: what the last job left to the system, and its removal,
/// are not the next one's work.
pub(super) fn clear(out: &Path) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", out.display());
    match std::fs::remove_dir_all(out) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::create_dir_all(out).map_err(failed)?;
    // Where there is no such command, the first rows of a round are a little slow.
    let _ = Command::new("sync").status();
    Ok(())
}
