//! `cargo xtask demo`: stores trained checkpoints in every way there is, and measures what comes back. A full run writes
//! its tables to `docs/results.md` and its chart to `docs/accuracy-over-bytes.svg`.
//!
//! Everything is done by the two binaries, as a user would: `tvb compress` and `tvb recover`, and the zoo's evaluator,
//! which asks every row the same questions (`tvb-zoo measure`). In reading order: `rows.rs` (the ways), `stored.rs`
//! (stores in one of them), `found.rs` (what was measured, against the originals), `mergers.rs` (other ways to
//! combine), `bar.rs`, `tables.rs`, `chart.rs`.

mod bar;
mod chart;
mod compressed;
mod found;
mod mergers;
mod rows;
pub(crate) mod side_by_side;
pub(crate) mod stored;
mod tables;
pub(crate) mod zoo;

use self::found::{Found, Measured};
use self::rows::Row;
use self::side_by_side::side_by_side;
use self::stored::Stored;
use self::tables::Scenario;
use self::zoo::{Zoo, said};
use crate::page::{Page, write_picture};
use crate::process::{Result, cargo, root, run as run_command, target};
use crate::zoo::CHECKPOINTS;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The tables of the last full demo.
pub(crate) const PAGE: Page = Page { path: "docs/results.md", command: "cargo xtask demo" };
const CHART: &str = "docs/accuracy-over-bytes.svg";

/// Points by which an edit straight from a basis may differ from the same edit of the recovered tasks: rounding may move
/// an image across a border.
const ROUNDING_POINTS: f64 = 0.15;

/// Store the zoo's 8, 14 and 20 trained tasks in every way, and print what comes back of their accuracy
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the 8 tasks and a few ways, with the binaries of the dev profile: what CI runs
    #[arg(long)]
    pub quick: bool,
    /// Everything, with the binaries of the dev profile, which the tests have built
    #[arg(long)]
    pub dev: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let zoo = Zoo::open(build(args.quick || args.dev)?)?;
    let study = Study { zoo, is_quick: args.quick, folder: root().join("target/demo") };
    let scenarios: &[usize] = if args.quick { &[8] } else { &[8, 14, 20] };
    let started = Instant::now();
    // The main result first: the rest takes minutes.
    let most = scenarios.iter().copied().max().unwrap_or(0);
    let first = study.scenario(most, vec![rows::originals(), rows::default_row()], false)?;
    if let [originals, coded] = first.rows.as_slice() {
        println!("{}", tables::headline((originals, &first.originals), coded));
    }
    let mut done = Vec::new();
    for &n_tasks in scenarios {
        eprintln!("{n_tasks} tasks …");
        done.push(study.scenario(n_tasks, rows::rows(n_tasks, args.quick), true)?);
    }
    let text = tables::markdown(&done);
    print!("{text}");
    println!("\nAll in {:.0} s", started.elapsed().as_secs_f64());
    // The numbers that are published are those of the binaries that are.
    if !args.quick && !args.dev {
        let chart = done.last().map(|scenario| chart::svg(scenario.n_tasks, &scenario.rows));
        PAGE.write(&text)?;
        write_picture(CHART, &chart.unwrap_or_default())?;
        println!("written to {} and {CHART}", PAGE.path);
    }
    Ok(())
}

/// Builds both binaries and returns the folder they are in.
pub(crate) fn build(is_dev: bool) -> Result<PathBuf> {
    // The tests' build holds both binaries; with any other choice of packages the dependencies have other features and
    // are compiled once more.
    let words: &[&str] = match is_dev {
        true => &["build", "--locked", "--workspace", "--all-targets"],
        false => &["build", "--locked", "--release", "--package", "tvb-cli", "--package", "tvb-zoo", "--bins"],
    };
    run_command(&mut cargo(words))?;
    Ok(target().join(if is_dev { "debug" } else { "release" }))
}

/// What is measured with, and where.
struct Study {
    zoo: Zoo,
    is_quick: bool,
    folder: PathBuf,
}

impl Study {
    /// Stores the first `n_tasks` tasks in each of these ways, the originals first, and measures what comes back.
    fn scenario(&self, n_tasks: usize, rows: Vec<Row>, with_mergers: bool) -> Result<Scenario> {
        let wanted: Vec<(&Row, u64)> =
            rows.iter().flat_map(|row| row.seeds(self.is_quick).iter().map(move |seed| (row, *seed))).collect();
        let stored = side_by_side(&wanted, |&(row, seed)| stored::store(&self.zoo, row, n_tasks, seed, &self.folder))?;
        let measured = self.measure(n_tasks, &stored)?;
        let (Some(full), Some(originals)) = (stored.first(), measured.first()) else {
            return Err("no rows".to_owned());
        };
        self.check_addition(n_tasks, &rows, &stored, &measured)?;
        // The first seed of every row.
        let mut firsts: Vec<(&Row, &Stored)> = Vec::new();
        let mut index = 0;
        for row in &rows {
            firsts.extend(stored.get(index).map(|one| (row, one)));
            index += row.seeds(self.is_quick).len();
        }
        let merged = match with_mergers {
            true => mergers::mergers(&self.zoo, n_tasks, &firsts, &self.folder)?,
            false => mergers::Mergers::default(),
        };
        let mut found = Vec::new();
        let (mut of_stored, mut of_measured) = (stored.as_slice(), measured.as_slice());
        for row in &rows {
            let n_seeds = row.seeds(self.is_quick).len();
            let seeds;
            (seeds, of_measured) = of_measured.split_at(n_seeds.min(of_measured.len()));
            let share = |one: &Stored| one.bytes as f64 / full.bytes as f64;
            if let Some(one) = of_stored.first() {
                let sizes = (one.bytes, share(one), one.quality);
                found.push(Found::new((&row.label, row.family, n_tasks), sizes, seeds, originals));
            }
            of_stored = of_stored.get(n_seeds..).unwrap_or_default();
        }
        Ok(Scenario { n_tasks, rows: found, originals: originals.clone(), merged })
    }

    /// Asks the evaluator about everything that came back.
    fn measure(&self, n_tasks: usize, stored: &[Stored]) -> Result<Vec<Measured>> {
        let mut command = self.zoo.command(&["measure", "--zoo", CHECKPOINTS, "--scenario", &n_tasks.to_string()]);
        if self.is_quick {
            command.arg("--quick");
        }
        let measured: Vec<Measured> = said(command.args(stored.iter().map(|one| &one.recovered)))?;
        match measured.len() == stored.len() {
            true => Ok(measured),
            false => Err(format!("tvb-zoo measured {} of {} folders", measured.len(), stored.len())),
        }
    }

    /// The tables add recovered tasks; `tvb add`, which adds what the basis holds, must say the same.
    fn check_addition(&self, n_tasks: usize, rows: &[Row], stored: &[Stored], measured: &[Measured]) -> Result<()> {
        let mut bases: Vec<(&Path, &Measured)> = Vec::new();
        let mut index = 0;
        for row in rows {
            if let (Some(basis), Some(measured)) =
                (stored.get(index).and_then(|one| one.basis.as_deref()), measured.get(index))
            {
                bases.push((basis, measured));
            }
            index += row.seeds(self.is_quick).len();
        }
        side_by_side(&bases, |(basis, measured)| {
            let (ours, added) =
                (measured.addition.mean, stored::added(&self.zoo, basis, n_tasks, measured.addition.scale)?);
            match 100.0 * (added - ours).abs() <= ROUNDING_POINTS {
                true => Ok(()),
                false => Err(format!("{}: `tvb add` reaches {added}, its recovered tasks {ours}", basis.display())),
            }
        })?;
        Ok(())
    }
}
