//! `cargo xtask release --check`: what would be published, without publishing it.
//!
//! Every crate without `publish = false` is packaged, its files compared with what it should hold, and all of them
//! built from their packages, each against the others' packages.

mod contents;

use crate::process::{Result, capture, cargo, run as run_command};
use contents::{missing, unwanted};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What programs need and libraries must not: flags, signals, progress bars, a log on the terminal.
const FOR_PROGRAMS: &[&str] = &["clap", "ctrlc", "indicatif", "tracing-subscriber"];

/// Check every crate that is published: its files, its dependencies, and that it builds from its package
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Publish nothing; there is no other way yet, CONTRIBUTING.md says how a release is made
    #[arg(long, required = true)]
    check: bool,
}

/// What `cargo metadata` says of the workspace, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    /// The registries it may go to: none for `publish = false`, `null` for all.
    publish: Option<Vec<String>>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    /// A library and no program; that of a program is for the package for Python.
    fn is_library(&self) -> bool {
        let has = |wanted: &str| self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == wanted));
        has("lib") && !has("bin")
    }
}

pub(crate) fn run(_: &Args) -> Result<()> {
    let packages = packages()?;
    check_each(&packages)?;
    let mut command = cargo(["package", "--locked", "--allow-dirty"]);
    run_command(command.args(packages.iter().flat_map(|package| ["--package", &package.name])))
}

/// Checks what each package holds and what each library depends on; builds nothing.
pub(crate) fn check_lists() -> Result<()> {
    check_each(&packages()?)
}

/// The crates that are published.
fn packages() -> Result<Vec<Package>> {
    let json = capture(&mut cargo(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&json).map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(metadata.packages.into_iter().filter(|package| package.publish.is_none()).collect())
}

fn check_each(packages: &[Package]) -> Result<()> {
    let mut faults = Vec::new();
    for package in packages {
        faults.extend(check_files(package)?);
        if package.is_library() {
            faults.extend(check_dependencies(package)?);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n       ")) }
}

fn check_files(package: &Package) -> Result<Vec<String>> {
    let name = &package.name;
    let list = capture(&mut cargo(["package", "--list", "--quiet", "--locked", "--allow-dirty", "--package", name]))?;
    let files: Vec<&str> = list.lines().collect();
    let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
    let sources = contents::sources(folder)?;
    let n_bytes: u64 = files.iter().filter_map(|file| folder.join(file).metadata().ok()).map(|file| file.len()).sum();
    eprintln!("{name:<12} {:>3} files, {:>4} kB without its lock file", files.len(), n_bytes.div_ceil(1000));
    let missing = missing(&sources, &files).into_iter().map(|file| format!("the package {name} lacks {file}"));
    let unwanted = unwanted(&sources, &files).into_iter().map(|file| format!("the package {name} holds {file}"));
    Ok(missing.chain(unwanted).collect())
}

fn check_dependencies(package: &Package) -> Result<Vec<String>> {
    let name = &package.name;
    // Every platform's and every feature's.
    let mut command = cargo(["tree", "--locked", "--edges", "normal", "--target", "all", "--all-features"]);
    let tree = capture(command.args(["--prefix", "none", "--format", "{p}", "--package", name]))?;
    let has = |unwanted: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**unwanted));
    Ok(FOR_PROGRAMS.iter().filter(has).map(|unwanted| format!("the library {name} depends on {unwanted}")).collect())
}
