//! Mesa's RADV in a child process, and what it prints about the shaders that it compiles.

use crate::process::{Result, cargo, run as run_command, target, typed};
use std::path::PathBuf;
use std::process::Command;

/// A generation of AMD's GPUs, for which a family stands that some version of Mesa knows.
pub(crate) struct Family {
    pub(crate) title: String,
    /// What Mesa's versions call it.
    names: Vec<String>,
}

impl Family {
    /// An integrated GPU and a card of RDNA 3, a card of RDNA 2, and GCN.
    pub(crate) fn usual() -> Vec<Family> {
        let families: [(&str, &[&str]); 4] = [
            ("gfx1103", &["gfx1103_r1", "gfx1103"]),
            ("navi31", &["navi31", "gfx1100"]),
            ("navi21", &["navi21"]),
            ("vega10", &["vega10"]),
        ];
        let named = |(title, names): (&str, &[&str])| Family {
            title: title.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        families.into_iter().map(named).collect()
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Family {
        Family { title: name.to_owned(), names: vec![name.to_owned()] }
    }
}

/// What came out of one variant.
pub(crate) struct Compiled {
    pub(crate) variant: String,
    pub(crate) family: String,
    pub(crate) stats: Stats,
}

/// The figures of one shader. Registers are those of a thread, waves those of a SIMD at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) instructions: u64,
    pub(crate) branches: u64,
    pub(crate) vgprs: u64,
    pub(crate) sgprs: u64,
    pub(crate) lds: u64,
    pub(crate) spilled: u64,
    pub(crate) scratch: u64,
    pub(crate) waves: u64,
    pub(crate) bytes: u64,
}

/// RADV's manifest, where it is installed.
fn manifest() -> Option<PathBuf> {
    ["/usr/share", "/usr/local/share", "/etc"].into_iter().find_map(|folder| {
        let entries = std::fs::read_dir(format!("{folder}/vulkan/icd.d")).into_iter().flatten().flatten();
        let is_radv = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("radeon_icd") && name.ends_with(".json") && !name.contains("i686")
        };
        entries.map(|entry| entry.path()).find(is_radv)
    })
}

/// Why nothing can be compiled here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    let help =
        "no RADV (Mesa's Vulkan driver for AMD), which compiles the shaders; Debian has it in mesa-vulkan-drivers";
    manifest().is_none().then_some(help)
}

/// Builds the program that compiles.
pub(crate) fn build() -> Result<PathBuf> {
    run_command(&mut cargo(["build", "--quiet", "--locked", "-p", "tvb-kernels", "--example", "isa"]))?;
    Ok(target().join("debug/examples/isa"))
}

/// The driver's name and what it makes of the variants; or why this family cannot be had.
pub(crate) fn compile(
    program: &PathBuf,
    family: &Family,
    variants: &[String],
) -> Result<std::result::Result<(String, Vec<Compiled>), String>> {
    let mut why = String::new();
    for name in &family.names {
        let mut command = Command::new(program);
        command.args(variants).env("RADV_FORCE_FAMILY", name).env("RADV_DEBUG", "shaderstats,nocache");
        for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env(variable, manifest().unwrap_or_default());
        }
        let typed = typed(&command);
        let output = command.output().map_err(|error| format!("{typed}: cannot start: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        let Some((driver, compiled)) = read(&text, &family.title) else {
            // Mesa aborts where it does not know a family.
            let reason = text.lines().rfind(|line| line.contains("family"));
            why = reason.unwrap_or("the driver did not open").to_owned();
            continue;
        };
        if !output.status.success() {
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(format!("{}; run it again with: {typed}\n{}", output.status, last.join("\n")));
        }
        if let Some(silent) = compiled.iter().find(|compiled| compiled.stats.instructions == 0) {
            return Ok(Err(format!("this Mesa ({driver}) prints no statistics of {}", silent.variant)));
        }
        return Ok(Ok((driver, compiled)));
    }
    Ok(Err(why))
}

/// Reads what the driver and the program have printed; `None` where no device was opened.
fn read(text: &str, family: &str) -> Option<(String, Vec<Compiled>)> {
    let mut driver = None;
    let mut compiled: Vec<Compiled> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("adapter ") {
            driver = Some(name.to_owned());
        } else if let Some(variant) = line.strip_prefix("variant ") {
            let (variant, family) = (variant.to_owned(), family.to_owned());
            compiled.push(Compiled { variant, family, stats: Stats::default() });
        } else if let (Some(last), Some((name, value))) = (compiled.last_mut(), line.split_once(": ")) {
            let Ok(value) = value.trim().parse::<u64>() else { continue };
            last.stats.add(name.trim(), value);
        }
    }
    Some((driver?, compiled))
}

impl Stats {
    /// Takes over a figure by the driver's name for it.
    fn add(&mut self, name: &str, value: u64) {
        let place = match name.to_ascii_lowercase().as_str() {
            "instructions" => &mut self.instructions,
            "branches" => &mut self.branches,
            "vgprs" => &mut self.vgprs,
            "sgprs" => &mut self.sgprs,
            "lds size" => &mut self.lds,
            "spilled sgprs" | "spilled vgprs" => {
                self.spilled += value;
                return;
            }
            "scratch size" => &mut self.scratch,
            "subgroups per simd" => &mut self.waves,
            "code size" => &mut self.bytes,
            _ => return,
        };
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_figures_are_read() {
        let text = "error: XDG_RUNTIME_DIR is invalid\nadapter Null hardware (RADV NAVI21), Mesa 22.3.6\nvariant gram\n\
                    \nCompute Shader:\n*** SHADER STATS ***\nDriver pipeline hash: 14031658181890140424\nSGPRs: 128\n\
                    VGPRs: 80\nSpilled SGPRs: 1\nSpilled VGPRs: 2\nCode size: 35152\nLDS size: 8704\nScratch size: 4\n\
                    Subgroups per SIMD: 8\nInstructions: 7084\nBranches: 1021\n********************\nvariant eigh\n";
        let (driver, compiled) = read(text, "navi21").expect("a device");
        assert_eq!(driver, "Null hardware (RADV NAVI21), Mesa 22.3.6");
        let gram = Stats {
            instructions: 7084,
            branches: 1021,
            vgprs: 80,
            sgprs: 128,
            lds: 8704,
            spilled: 3,
            scratch: 4,
            waves: 8,
            bytes: 35152,
        };
        let found: Vec<(&str, Stats)> = compiled.iter().map(|at| (at.variant.as_str(), at.stats)).collect();
        assert_eq!(found, [("gram", gram), ("eigh", Stats::default())]);
        assert!(read("radv: Unknown family: navi99\n", "navi99").is_none());
    }
}
