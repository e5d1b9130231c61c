//! `cargo xtask python`: the wheel of the Python package, built, installed into an environment under `target/`, and tested there.
//!
//! The wheel is built with the profile of the tests, whose artifacts it shares, so that in `cargo xtask ci` little more than the
//! extension itself is compiled. With `--release` it is the one that is published, which takes minutes more.

use crate::process::{Result, root, run as run_command, succeeds, target};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the wheel may weigh, in bytes.
const WHEEL_BYTES_MAX: u64 = 40_000_000;
/// What builds the wheel and tests it.
const PACKAGES: &[&str] = &["maturin>=1.9,<2", "numpy", "pytest", "mypy"];
/// What a change is tested with besides: all that the tests can use, but for torch, which takes gigabytes.
const PACKAGES_OF_CI: &[&str] = &["ray", "pandas", "tqdm", "ml_dtypes"];
/// What the first are imported as.
const IMPORTS: &str = "import numpy, pytest, mypy, maturin";
/// What must be there to make an environment.
const NEEDED: &str = "import venv, ensurepip, sys; sys.exit(sys.version_info < (3, 10))";
/// A network that is not there shall be noticed soon.
const PATIENCE: &[&str] = &["--disable-pip-version-check", "--timeout", "20", "--retries", "1"];

/// Build the Python package's wheel, check its size and types, and run its tests (its environment is made under target/ on the first
/// run)
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build the wheel as it is published
    #[arg(long)]
    release: bool,
    /// Install these too: tests that need torch, ray, transformers, pandas, tqdm or ml_dtypes are skipped without
    #[arg(long, value_name = "PACKAGE", num_args = 1..)]
    with: Vec<String>,
    /// Passed on to pytest
    #[arg(last = true, value_name = "ARGS")]
    pytest_args: Vec<String>,
}

impl Args {
    /// What a change must pass.
    pub(crate) fn of_ci() -> Args {
        Args { with: PACKAGES_OF_CI.iter().map(|&package| package.to_owned()).collect(), ..Args::default() }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let python = match environment() {
        Ok(python) => python,
        Err(missing) if std::env::var_os("TVB_REQUIRE_PYTHON").is_some_and(|value| value == "1") => {
            return Err(format!("{missing}\n       TVB_REQUIRE_PYTHON=1 asks for it"));
        }
        Err(missing) => {
            eprintln!("skipped: the Python package: {missing}");
            return Ok(());
        }
    };
    if !args.with.is_empty() {
        pip(&python, &args.with.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let wheel = build(&python, args.release)?;
    let n_bytes = std::fs::metadata(&wheel).map_err(|error| format!("{}: {error}", wheel.display()))?.len();
    eprintln!("{}: {:.1} MB", wheel.display(), n_bytes as f64 / 1e6);
    if n_bytes > WHEEL_BYTES_MAX {
        return Err(format!("{}: at most {WHEEL_BYTES_MAX} bytes expected, {n_bytes} found", wheel.display()));
    }
    let wheel_path = wheel.to_string_lossy();
    pip(&python, &["--no-deps", "--force-reinstall", &wheel_path])?;
    let package = package();
    let mut types = Command::new(&python);
    run_command(types.current_dir(&package).args(["-m", "mypy", "--cache-dir"]).arg(cache("mypy")).arg("python"))?;
    let mut tests = Command::new(&python);
    tests.current_dir(&package).env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "pytest", "-q", "-rs"]);
    run_command(tests.arg("-o").arg(format!("cache_dir={}", cache("pytest").display())).args(&args.pytest_args))
}

/// The folder of the package.
fn package() -> PathBuf {
    root().join("crates/tvb-python")
}

/// Where a tool may keep what it found out.
fn cache(tool: &str) -> PathBuf {
    target().join("python").join(tool)
}

/// The Python of an environment with all that is needed, made on the first run.
fn environment() -> Result<PathBuf> {
    let folder = target().join("python/venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if imports(&python, IMPORTS) {
        return Ok(python);
    }
    let system = if cfg!(windows) { "python" } else { "python3" };
    if !succeeds(system, &["-c", NEEDED]) {
        return Err(format!(
            "no {system} of 3.10 or later with the venv module (Debian, Ubuntu: `apt-get install python3-venv`)"
        ));
    }
    run_command(Command::new(system).args(["-m", "venv", "--clear"]).arg(&folder))?;
    pip(&python, PACKAGES).map_err(|error| format!("{error}\n       {} could not be had", PACKAGES.join(", ")))?;
    if imports(&python, IMPORTS) { Ok(python) } else { Err(format!("{}: `{IMPORTS}` fails", python.display())) }
}

/// Builds the wheel and answers where it is.
fn build(python: &Path, release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "dev" };
    let out = target().join("python/wheels").join(profile);
    // So that the only wheel there is the one that is built now.
    match std::fs::remove_dir_all(&out) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", out.display()));
        }
        _ => {}
    }
    let mut command = Command::new(python);
    command.current_dir(package()).args(["-m", "maturin", "build", "--quiet", "--profile", profile]);
    run_command(command.arg("--interpreter").arg(python).arg("--out").arg(&out))?;
    let entries = std::fs::read_dir(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let wheels = entries.flatten().map(|entry| entry.path());
    wheels
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .max()
        .ok_or_else(|| format!("{}: a wheel expected, none found", out.display()))
}

fn imports(python: &Path, line: &str) -> bool {
    python.to_str().is_some_and(|python| succeeds(python, &["-c", line]))
}

fn pip(python: &Path, words: &[&str]) -> Result<()> {
    run_command(Command::new(python).args(["-m", "pip", "install", "-q"]).args(PATIENCE).args(words))
}
