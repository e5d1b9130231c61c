//! `cargo xtask isa`: what a real GPU compiler makes of the shaders, on a machine without a GPU.
//!
//! Mesa's AMD driver compiles for a card that is not there when it is told which (`RADV_FORCE_FAMILY`), and prints how
//! many instructions, branches and registers came out. One child process for each family compiles every variant
//! (`crates/tvb-kernels/examples/isa.rs`). `--check` compares with the budgets in `shaders/isa.md`: it finds a loop that is no
//! longer unrolled, sums that left their registers, or checks that came back, before anybody has a card to be slow on.

mod budget;
mod radv;

use crate::process::{Result, root};
use budget::{Budget, Budgets};
use radv::{Compiled, Family, Stats};
use std::path::PathBuf;

/// Show what AMD's compiler in Mesa makes of each shader: instructions, branches, registers, spills; no GPU is needed
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Variants whose names begin so, such as `gram-FORMAT0`; all where none is given
    #[arg(value_name = "VARIANT")]
    variants: Vec<String>,
    /// Only this family, as Mesa names it: `gfx1103_r1`, `navi21`, `vega10` …; several times for several
    #[arg(long, value_name = "NAME")]
    family: Vec<String>,
    /// Every variant; without it, the largest of each line of the budgets
    #[arg(long)]
    all: bool,
    /// A Markdown table
    #[arg(long)]
    markdown: bool,
    /// Fail where a variant is beyond its budget in shaders/isa.md
    #[arg(long)]
    check: bool,
    /// Write the budgets anew, with a quarter to spare
    #[arg(long, conflicts_with_all = ["check", "variants", "family"])]
    write: bool,
}

impl Args {
    /// What a change must pass.
    pub(crate) fn check() -> Args {
        Args { check: true, ..Args::default() }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let budgets = Budgets::read(&budgets_path())?;
    if let Some(missing) = radv::missing() {
        eprintln!("skipped: {missing}");
        return Ok(());
    }
    let program = radv::build()?;
    let families = match &args.family[..] {
        [] => Family::usual(),
        named => named.iter().map(|name| Family::named(name)).collect(),
    };
    let mut all = Vec::new();
    let mut driver = String::new();
    for family in &families {
        match radv::compile(&program, family, &args.variants)? {
            Ok((found, compiled)) => {
                driver = found;
                all.extend(compiled);
            }
            Err(why) => eprintln!("skipped: {}: {why}", family.title),
        }
    }
    if all.is_empty() {
        if !args.variants.is_empty() && !driver.is_empty() {
            let wanted = args.variants.join(", ");
            return Err(format!(
                "no variant's name begins with {wanted}\nhint: `cargo xtask isa --all` shows every name"
            ));
        }
        eprintln!("skipped: nothing was compiled");
        return Ok(());
    }
    if args.write {
        return std::fs::write(budgets_path(), budgets.refreshed(&all, &driver)?)
            .map_err(|error| format!("{}: {error}", budgets_path().display()));
    }
    let shown: Vec<&Compiled> = if args.all { all.iter().collect() } else { budgets.largest(&all) };
    print(&shown, args.markdown);
    if args.check { check(&budgets, &all, &driver) } else { Ok(()) }
}

/// Where the budgets are.
fn budgets_path() -> PathBuf {
    root().join("shaders/isa.md")
}

/// Fails with a line for each variant that is beyond its budget or has none.
fn check(budgets: &Budgets, all: &[Compiled], driver: &str) -> Result<()> {
    let faults: Vec<String> = all
        .iter()
        .flat_map(|compiled| {
            match budgets.of(&compiled.variant) {
                Some(budget) => beyond(budget, &compiled.stats),
                None => vec!["no budget".to_owned()],
            }
            .into_iter()
            .map(|fault| format!("{} on {}: {fault}", compiled.variant, compiled.family))
        })
        .collect();
    if faults.is_empty() {
        eprintln!("{} variants within their budgets ({driver})", all.len());
        return Ok(());
    }
    Err(format!(
        "{} of {} variants are beyond their budgets in shaders/isa.md ({driver}):\n  {}\nhint: `cargo xtask isa` shows them; \
         where that is as it should be, `cargo xtask isa --write`",
        faults.len(),
        all.len(),
        faults.join("\n  ")
    ))
}

/// What is beyond the budget.
fn beyond(budget: &Budget, stats: &Stats) -> Vec<String> {
    let most = [
        ("instructions", stats.instructions, budget.instructions),
        ("branches", stats.branches, budget.branches),
        ("VGPRs", stats.vgprs, budget.vgprs),
        ("spilled registers", stats.spilled, 0),
        ("bytes of scratch", stats.scratch, 0),
    ];
    let over = most.into_iter().filter(|(_, found, most)| found > most);
    over.map(|(what, found, most)| format!("{found} {what}, at most {most} expected")).collect()
}

fn print(shown: &[&Compiled], is_markdown: bool) {
    let head = [
        "variant",
        "family",
        "instructions",
        "branches",
        "VGPRs",
        "SGPRs",
        "LDS",
        "spilled",
        "scratch",
        "waves",
        "bytes",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Compiled { variant, family, stats } in shown {
        let Stats { instructions, branches, vgprs, sgprs, lds, spilled, scratch, waves, bytes } = stats;
        let numbers = [instructions, branches, vgprs, sgprs, lds, spilled, scratch, waves, bytes].map(u64::to_string);
        rows.push([variant.clone(), family.clone()].into_iter().chain(numbers).collect());
    }
    let widths: Vec<usize> =
        (0..head.len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    for (line, row) in rows.iter().enumerate() {
        if is_markdown {
            println!("| {} |", row.join(" | "));
            if line == 0 {
                println!("| --- | --- |{}", " ---: |".repeat(head.len() - 2));
            }
            continue;
        }
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
