//! `cargo xtask fuzz`: the readers of everything that comes from others, fed by libFuzzer.
//!
//! The targets are a workspace of their own in `fuzz/`. Seeds come from the committed fixtures and from the test that feeds
//! the same readers in every run (`crates/tvb/tests/all/properties.rs`).

use crate::process::{Result, cargo, root, run as run_command, succeeds};
use std::path::Path;
use std::process::Command;

/// Every target; an empty one would be noticed by cargo-fuzz.
const TARGETS: &[&str] = &[
    "adapter",
    "basis_coefficients",
    "basis_manifest",
    "coded_atom",
    "expression",
    "gram_file",
    "merge_recipe",
    "part_file",
    "job_file",
    "published_basis",
    "safetensors_header",
    "shard_index",
    "torch_file",
];
/// Folders of committed PyTorch files.
const TORCH_FIXTURES: &[&str] = &["tests/fixtures/torch", "tests/fixtures/reference/state_dicts"];

/// Feed the readers with what libFuzzer comes up with (needs cargo-fuzz)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Targets; all where none is named
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.targets.iter().find(|target| !TARGETS.contains(&target.as_str())) {
        return Err(format!("unknown target {unknown}; the targets are {}", TARGETS.join(", ")));
    }
    if !succeeds("cargo", &["fuzz", "--version"]) {
        return Err("no cargo-fuzz; get it with `cargo install cargo-fuzz --locked`".into());
    }
    make_seeds()?;
    let all: Vec<String> = TARGETS.iter().map(|target| (*target).to_owned()).collect();
    for target in if args.targets.is_empty() { &all } else { &args.targets } {
        let mut command = Command::new("cargo");
        // Sanitizers are a nightly feature of the compiler; the variable lets the stable one take it.
        command.current_dir(root().join("fuzz")).env("RUSTC_BOOTSTRAP", "1");
        command.args(["fuzz", "run", "--fuzz-dir", ".", target, "--"]);
        command.arg(format!("-max_total_time={}", args.seconds)).args([
            "-rss_limit_mb=2048",
            "-timeout=10",
            "-print_final_stats=1",
        ]);
        run_command(&mut command)?;
    }
    Ok(())
}

/// Seeds and whole folders to put mutilated files into, from the fixtures and from the tests' own.
fn make_seeds() -> Result<()> {
    let mut command = cargo(["test", "--locked", "--package", "tvb", "--test", "all", "--", "mutilated"]);
    run_command(command.env("TVB_SEEDS", root().join("fuzz")).env("TVB_MUTATIONS", "1"))?;
    let corpus = root().join("fuzz/corpus/torch_file");
    std::fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    for folder in TORCH_FIXTURES {
        copy_torch_files(&root().join(folder), &corpus)?;
    }
    Ok(())
}

fn copy_torch_files(from: &Path, to: &Path) -> Result<()> {
    let io = |error: std::io::Error| format!("{}: {error}", from.display());
    for entry in std::fs::read_dir(from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "pt") {
            std::fs::copy(&path, to.join(path.file_name().unwrap_or_default())).map_err(io)?;
        }
    }
    Ok(())
}
