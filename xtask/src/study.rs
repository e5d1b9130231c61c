//! `cargo xtask study`: what a basis is worth beyond what it was made for. A full run writes its tables to `docs/growing-results.md` and
//! its charts beside it.
//!
//! - `few_shot.rs`: a task that no basis has seen, from a few examples of each class, by `tvb fit`;
//! - `continual.rs`: tasks that arrive one at a time, by `tvb extend`, whose originals are gone then.
//!
//! Everything is done by the two binaries, as a user would.

mod continual;
mod few_shot;
mod lines;
mod shared;

use self::shared::{Study, make_folder};
use crate::demo::build;
use crate::demo::zoo::Zoo;
use crate::page::{Page, write_picture};
use crate::process::{Result, root};
use std::time::Instant;

/// The tables of the last full study.
pub(crate) const PAGE: Page = Page { path: "docs/growing-results.md", command: "cargo xtask study" };

/// Fit coefficients for tasks that no basis has seen, and let tasks arrive one at a time; print what that reaches
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One new task and one order, with the binaries of the dev profile: what CI runs
    #[arg(long)]
    pub quick: bool,
    /// Everything, with the binaries of the dev profile, which the tests have built
    #[arg(long)]
    pub dev: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let study = Study {
        zoo: Zoo::open(build(args.quick || args.dev)?)?,
        is_quick: args.quick,
        folder: root().join("target/study"),
    };
    if study.folder.exists() {
        std::fs::remove_dir_all(&study.folder).map_err(|error| format!("{}: {error}", study.folder.display()))?;
    }
    make_folder(&study.folder)?;
    let started = Instant::now();
    eprintln!("few examples …");
    let few = few_shot::run(&study)?;
    let few_seconds = started.elapsed().as_secs_f64();
    eprintln!("tasks that arrive …");
    let growth = continual::run(&study)?;
    let text = format!("{}\n{}", few_shot::markdown(&few), continual::markdown(&growth));
    println!("{text}");
    let all_seconds = started.elapsed().as_secs_f64();
    println!("few examples {few_seconds:.0} s, tasks that arrive {:.0} s", all_seconds - few_seconds);
    let figures = serde_json::json!({ "few_shot": few, "continual": growth });
    let path = study.folder.join("figures.json");
    let json = serde_json::to_string_pretty(&figures).map_err(|error| error.to_string())?;
    std::fs::write(&path, json + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    println!("all figures: target/study/figures.json");
    // The numbers that are published are those of the binaries that are.
    if !args.quick && !args.dev {
        PAGE.write(&text)?;
        write_picture("docs/few-shot.svg", &few_shot::chart(&few))?;
        write_picture("docs/arrivals-recovered.svg", &continual::chart_recovered(&growth))?;
        write_picture("docs/arrivals-added.svg", &continual::chart_added(&growth))?;
        println!("written to {}, with its charts", PAGE.path);
    }
    Ok(())
}
