//! `cargo xtask drivers`: the kernels' tests on every driver that is installed, and under the Khronos validation layer.
//!
//! Which drivers there are, where they lie and what is known to fail on them is data: `crates/tvb-kernels/tests/drivers.toml`.
//! A driver that is not installed is passed over, and said.

mod known;
mod outcome;

use crate::process::{Result, cargo, root, target, typed};
use known::{Driver, Validation};
use outcome::Outcome;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A test that passes where the named device is there, and fails where it is not.
const PROBE: &str = "device::the_named_device_is_there";

/// Run the kernels' tests on every installed driver, and under the Khronos validation layer
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only those whose name contains this
    #[arg(long, value_name = "NAME-PART")]
    only: Option<String>,
    /// Leave out the validation layer, which is slow
    #[arg(long)]
    no_validation: bool,
}

impl Args {
    /// The drivers alone.
    pub(crate) fn without_validation() -> Args {
        Args { no_validation: true, ..Args::default() }
    }

    /// The validation layer alone.
    pub(crate) fn validation() -> Args {
        Args { only: Some(VALIDATION.to_owned()), ..Args::default() }
    }
}

/// What follows the names of the layer's runs.
const VALIDATION: &str = "validation";

pub(crate) fn run(args: &Args) -> Result<()> {
    let known = known::read()?;
    let tests = test_program()?;
    let wanted = |name: &str| args.only.as_ref().is_none_or(|part| name.to_lowercase().contains(&part.to_lowercase()));
    let mut summary = Vec::new();
    let mut failures = Vec::new();
    let mut note = |name: &str, done: Result<Done>| match done {
        Ok(Done::Ran { line }) => summary.push(format!("{name}: {line}")),
        Ok(Done::Absent { package }) => summary.push(format!("{name}: not here (Debian: {package})")),
        Err(error) => {
            summary.push(format!("{name}: FAILED"));
            failures.push(format!("{name}: {error}"));
        }
    };
    for driver in known.drivers.iter().filter(|driver| wanted(&driver.name)) {
        note(&driver.name, on_driver(&tests, driver));
    }
    for validation in known.validations.iter().filter(|_| !args.no_validation) {
        let name = format!("{} {VALIDATION}", validation.name);
        if wanted(&name) {
            note(&name, under_validation(&tests, validation));
        }
    }
    if summary.is_empty() {
        let names: Vec<&str> = known.drivers.iter().map(|driver| driver.name.as_str()).collect();
        return Err(format!("no driver of that name\nhint: there are: {}, {VALIDATION}", names.join(", ")));
    }
    eprintln!("\ndrivers:\n  {}", summary.join("\n  "));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// What became of one driver.
enum Done {
    Ran { line: String },
    Absent { package: String },
}

/// All tests on one driver.
fn on_driver(tests: &Path, driver: &Driver) -> Result<Done> {
    let absent = || Ok(Done::Absent { package: driver.package.clone() });
    let mut environment = vec![
        ("TVB_TEST_DEVICE", driver.device.clone()),
        ("TVB_TEST_BACKEND", driver.backend.clone()),
        ("TVB_REQUIRE_GPU", "1".to_owned()),
    ];
    if !driver.manifests.is_empty() {
        let Some(manifest) = first_there(&driver.manifests) else { return absent() };
        environment.push(("VK_DRIVER_FILES", manifest.display().to_string()));
    }
    if !Outcome::of(&mut command(tests, &environment, &[PROBE.to_owned()]))?.has_passed(PROBE) {
        return absent();
    }
    eprintln!("== {}", driver.name);
    let started = Instant::now();
    let mut command = command(tests, &environment, &driver.tests);
    let outcome = Outcome::of(&mut command)?;
    outcome
        .ended_well("")
        .and_then(|()| outcome.failures_are(&driver.failures))
        .map_err(|error| format!("{error}\n{}\nrun it again with: {}", outcome.said(), typed(&command)))?;
    for failure in &driver.failures {
        eprintln!("known to fail: {}: {}", failure.test, failure.reason);
    }
    let known = match driver.failures.len() {
        0 => String::new(),
        n => format!(", {n} known to fail"),
    };
    Ok(Done::Ran { line: format!("{} tests passed{known}, {:.0} s", outcome.n_passed(), seconds(started)) })
}

/// The tests on lavapipe, each call into the driver looked at by the layer.
fn under_validation(tests: &Path, validation: &Validation) -> Result<Done> {
    let Some(layer) = first_there(&validation.layers) else {
        return Ok(Done::Absent { package: validation.package.clone() });
    };
    eprintln!("== {} validation", validation.name);
    let folder = target().join("drivers");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<PathBuf, String>(path)
    };
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write("VkLayer_khronos_validation.json", known::layer_manifest(&layer))?;
    let settings = write(&format!("{}.txt", validation.name), validation.settings_text())?;
    let environment = [
        ("TVB_REQUIRE_GPU", "1".to_owned()),
        ("VK_INSTANCE_LAYERS", known::LAYER.to_owned()),
        ("VK_LAYER_PATH", folder.display().to_string()),
        ("VK_LAYER_SETTINGS_PATH", settings.display().to_string()),
    ];
    let started = Instant::now();
    let mut command = command(tests, &environment, &validation.tests);
    let outcome = Outcome::of(&mut command)?;
    outcome
        .ended_well(&validation.aborts)
        .and_then(|()| outcome.failures_are(&[]))
        .and_then(|()| outcome.was_looked_at(&validation.active))
        .and_then(|()| outcome.messages_are(&validation.messages))
        .map_err(|error| format!("{error}\nrun it again with: {}", typed(&command)))?;
    for message in validation.messages.iter().filter(|message| message.counts) {
        eprintln!("known message: {}: {}", message.id, message.reason);
    }
    let known = match validation.messages.iter().filter(|message| message.counts).count() {
        0 => "nothing to say".to_owned(),
        n => format!("{n} known messages, no other"),
    };
    Ok(Done::Ran { line: format!("{} tests passed, {known}, {:.0} s", outcome.n_passed(), seconds(started)) })
}

fn seconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

fn first_there(paths: &[PathBuf]) -> Option<PathBuf> {
    paths.iter().find(|path| path.exists()).cloned()
}

/// The tests' program with these variables, on these tests; several at a time, so that each result is a line of its own.
fn command(tests: &Path, environment: &[(&str, String)], names: &[String]) -> Command {
    let mut command = Command::new(tests);
    command.current_dir(root().join("crates/tvb-kernels"));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.args(names).args(["--test-threads", "2"]);
    command
}

/// The kernels' integration tests, built as `cargo test --workspace` builds them, so that nothing is built twice.
fn test_program() -> Result<PathBuf> {
    let mut build = cargo(["test", "--workspace", "--locked", "--no-run", "--message-format", "json"]);
    let said = crate::process::capture(&mut build)?;
    let program =
        said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|line| {
            let is_ours = line["package_id"].as_str().is_some_and(|id| id.contains("tvb-kernels"));
            let is_all = line["target"]["name"] == "all" && line["target"]["kind"][0] == "test";
            line["executable"].as_str().filter(|_| is_ours && is_all).map(PathBuf::from)
        });
    program.ok_or_else(|| format!("{}: no program of the kernels' tests among what was built", typed(&build)))
}
