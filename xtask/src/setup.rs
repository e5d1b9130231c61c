//! `cargo xtask setup`: what the tests need beyond cargo, installed where we may, named where we may not.
//!
//! Only one thing is out of the ordinary: a Vulkan driver that runs on the CPU (Mesa's lavapipe), on which the GPU
//! kernels are tested on every machine, with or without a graphics card.

use crate::process::{Result, run as run_command, succeeds};
use clap::builder::FalseyValueParser;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to get the software Vulkan driver by hand.
const DRIVER_HELP: &str = "no software Vulkan driver (lavapipe). Debian, Ubuntu: `apt-get install mesa-vulkan-drivers`; \
                           Fedora: `dnf install mesa-vulkan-drivers`; Arch: `pacman -S vulkan-swrast`";

/// How to get a C linker by hand; Rust links with it.
const LINKER_HELP: &str = "no C linker `cc`. Debian, Ubuntu: `apt-get install gcc libc6-dev`; Fedora: `dnf install gcc`; \
                           macOS: `xcode-select --install`";

/// Whether a command may change the machine; shared by `setup`, `test` and `ci`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Install nothing: only use what is there
    #[arg(long, env = "TVB_NO_INSTALL", value_parser = FalseyValueParser::new())]
    pub no_install: bool,
}

/// Install what the tests need, or say what is missing and how to get it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    install: InstallArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut missing = Vec::new();
    if cfg!(unix) && !succeeds("cc", &["--version"]) {
        missing.push(LINKER_HELP.to_owned());
    }
    missing.extend(ensure_components(&args.install).err());
    missing.extend(ensure_driver(&args.install).err());
    if missing.is_empty() {
        eprintln!("everything is there; next: cargo xtask test");
        return Ok(());
    }
    Err(missing.join("\nerror: "))
}

/// rustfmt and clippy, which only `ci` needs.
pub(crate) fn ensure_components(install: &InstallArgs) -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let is_there = || succeeds("cargo", &[subcommand, "--version"]);
        let help = format!("no {component}; get it with `rustup component add {component}`");
        if is_there() {
            continue;
        }
        if install.no_install || !succeeds("rustup", &["--version"]) {
            return Err(help);
        }
        run_command(Command::new("rustup").args(["component", "add", component])).map_err(|_| help.clone())?;
        if !is_there() {
            return Err(help);
        }
    }
    Ok(())
}

/// The software Vulkan driver. Elsewhere than on Linux the GPU tests take the system's own adapter, or are skipped.
pub(crate) fn ensure_driver(install: &InstallArgs) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err("the software Vulkan driver (lavapipe) is set up on Linux only".into());
    }
    if has_software_driver() {
        return Ok(());
    }
    let Some(sudo) = apt_prefix().filter(|_| !install.no_install) else {
        return Err(DRIVER_HELP.into());
    };
    eprintln!("no software Vulkan driver found: installing mesa-vulkan-drivers (--no-install leaves it)");
    let apt_get = |args: &[&str]| {
        let mut command = Command::new(sudo.first().copied().unwrap_or("env"));
        command.args(sudo.iter().skip(1)).args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(args);
        run_command(&mut command)
    };
    const INSTALL: &[&str] = &["install", "-y", "-q", "--no-install-recommends", "mesa-vulkan-drivers", "libvulkan1"];
    // The package lists may be absent or old; fetching them takes a while, so only where the first try fails.
    if apt_get(INSTALL).is_err() {
        let _ = apt_get(&["update", "-q"]);
        apt_get(INSTALL).map_err(|error| format!("{error}\n       {DRIVER_HELP}"))?;
    }
    if has_software_driver() { Ok(()) } else { Err(DRIVER_HELP.into()) }
}

/// The words before `VARIABLE=value apt-get …` with which we may install packages; `None` where we may not.
fn apt_prefix() -> Option<&'static [&'static str]> {
    if !succeeds("apt-get", &["--version"]) {
        return None;
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if is_root {
        return Some(&["env"]);
    }
    succeeds("sudo", &["-n", "true"]).then_some(&["sudo", "-n"])
}

/// Whether lavapipe's manifest is where the Vulkan loader looks for drivers.
fn has_software_driver() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().filter_map(std::env::var_os);
    let named: Vec<PathBuf> = named.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>()).collect();
    if !named.is_empty() {
        return named.iter().any(|path| is_lavapipe(path));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folders = ["/usr/share", "/usr/local/share", "/etc", "/usr/local/etc"].map(PathBuf::from);
    folders.into_iter().chain([home.join(".local/share")]).any(|folder| {
        let entries = std::fs::read_dir(folder.join("vulkan/icd.d")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_lavapipe(&entry.path()))
    })
}

/// `lvp_icd.x86_64.json`, or `lvp_icd.json` in newer releases.
fn is_lavapipe(manifest: &Path) -> bool {
    let name = manifest.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("lvp_icd") && name.ends_with(".json")
}
