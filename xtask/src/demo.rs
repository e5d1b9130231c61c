//! `cargo xtask demo`: compresses trained checkpoints to bases of half and a quarter as many vectors, and measures what
//! these keep of addition and negation. A full run writes its tables to `docs/results.md`.
//!
//! Everything is done by the two binaries, as a user would: `tvb-zoo tasks` prints the task names in order, one a
//! line, `tvb-zoo eval` the accuracies of a checkpoint, `tvb sweep` finds scales, and `tvb compress --json` prints what
//! `compressed.rs` reads.

mod accuracy;
mod compressed;
mod results;
mod side_by_side;
mod zoo;

use self::compressed::Compressed;
use self::zoo::{Zoo, checkpoint};
use crate::process::{Result, capture, cargo, root, run as run_command, target};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compress the zoo's 8, 14 and 20 trained tasks to a half and a quarter, and print what that costs in accuracy
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the 8 tasks, with the binaries of the dev profile: what CI runs
    #[arg(long)]
    pub quick: bool,
    /// All tasks, with the binaries of the dev profile, which the tests have built
    #[arg(long)]
    pub dev: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let zoo = Zoo::open(build(args.quick || args.dev)?)?;
    let scenarios: &[usize] = if args.quick { &[8] } else { &[8, 14, 20] };
    let started = Instant::now();
    let folder = root().join("target/demo");
    let mut columns = Vec::new();
    for &n_tasks in scenarios {
        for n_atoms in [n_tasks / 2, n_tasks.div_ceil(4)] {
            let out = folder.join(format!("{n_tasks}-tasks-{n_atoms}-atoms"));
            columns.push(compress(&zoo, zoo.scenario(n_tasks)?, n_atoms, &out)?);
        }
    }
    print!("{}", sizes_table(&columns)?);
    println!();
    print!("{}", errors_table(&columns));
    let device = columns.first().map_or("", |column| column.device.as_str());
    let seconds = started.elapsed().as_secs_f64();
    println!("\n{} bases on {device} in {seconds:.1} s, kept under {}\n", columns.len(), folder.display());
    let study = accuracy::Study { scenarios: scenarios.to_vec(), is_quick: args.quick, folder: folder.clone() };
    let table = study.run(&zoo)?;
    let path = folder.join("table.md");
    accuracy::write(&path, &table)?;
    print!("{table}");
    println!("\nAll in {:.1} s; this table: {}", started.elapsed().as_secs_f64(), path.display());
    // The numbers that are published are those of the binaries that are.
    if !args.quick && !args.dev {
        println!("and in {}", results::write(&table)?);
    }
    Ok(())
}

/// Builds both binaries and returns the folder they are in.
fn build(is_dev: bool) -> Result<PathBuf> {
    // The tests' build holds both binaries; with any other choice of packages the dependencies have other features and
    // are compiled once more.
    let words: &[&str] = match is_dev {
        true => &["build", "--locked", "--workspace", "--all-targets"],
        false => &["build", "--locked", "--release", "--package", "tvb-cli", "--package", "tvb-zoo", "--bins"],
    };
    run_command(&mut cargo(words))?;
    Ok(target().join(if is_dev { "debug" } else { "release" }))
}

/// Runs `tvb compress` on these tasks.
fn compress(zoo: &Zoo, tasks: &[String], n_atoms: usize, out: &Path) -> Result<Compressed> {
    let mut command = zoo.tvb(&["compress", "--json", "-q", "--overwrite", "-m", &n_atoms.to_string()]);
    command.arg("--base").arg(checkpoint("base")).args(tasks.iter().map(|name| checkpoint(name)));
    Compressed::parse(&capture(command.arg("-o").arg(out))?)
}

/// One line for each basis: what it takes on disk and what it loses.
fn sizes_table(columns: &[Compressed]) -> Result<String> {
    let base = root().join(checkpoint("base"));
    let model_bytes = std::fs::metadata(&base).map_err(|error| format!("{}: {error}", base.display()))?.len();
    let mut out = String::from(
        "tasks  atoms   checkpoints       basis  mean error  worst error  loss/bound  addition cosine  norm ratio\n",
    );
    for column in columns {
        let (n_tasks, n_atoms) = (column.tasks.len(), column.atoms.len());
        let atom_bytes: u64 = column.atoms.iter().map(|atom| atom.bytes).sum();
        let errors = || column.tasks.iter().map(|task| task.relative_error);
        let mean = errors().sum::<f64>() / n_tasks as f64;
        let worst = errors().fold(0.0, f64::max);
        out += &format!(
            "{n_tasks:>5}  {n_atoms:>5}  {:>9.2} MB  {:>7.2} MB  {mean:>10.4}  {worst:>11.4}  {:>10.4}  {:>15.6}  {:>10.6}\n",
            (model_bytes * n_tasks as u64) as f64 / 1e6,
            atom_bytes as f64 / 1e6,
            column.loss / column.spectral_bound,
            column.addition.projected.cosine,
            column.addition.projected.norm_ratio,
        );
    }
    Ok(out)
}

/// One line for each task: its exact relative error in each basis, `-` where it took no part.
fn errors_table(columns: &[Compressed]) -> String {
    let longest = columns.iter().max_by_key(|column| column.tasks.len());
    let names: Vec<&str> =
        longest.into_iter().flat_map(|column| column.tasks.iter().map(|t| t.name.as_str())).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0).max("relative error".len());
    let mut out = format!("{:<width$}", "relative error");
    for column in columns {
        out += &format!("  {:>7}", format!("{}→{}", column.tasks.len(), column.atoms.len()));
    }
    out.push('\n');
    for name in names {
        out += &format!("{name:<width$}");
        for column in columns {
            match column.tasks.iter().find(|task| task.name == name) {
                Some(task) => out += &format!("  {:>7.4}", task.relative_error),
                None => out += &format!("  {:>7}", "-"),
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::compressed::EXAMPLE;

    #[test]
    fn errors_are_listed_by_task_and_scenario() {
        let both = Compressed::parse(EXAMPLE).unwrap();
        let mut one = Compressed::parse(EXAMPLE).unwrap();
        one.tasks.truncate(1);
        let expected =
            "relative error      1→1      2→1\na                0.2500   0.2500\nlong name             -   0.5000\n";
        assert_eq!(errors_table(&[one, both]), expected);
    }
}
