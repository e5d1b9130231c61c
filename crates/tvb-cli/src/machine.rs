//! What this machine is called: processor and system, for what is measured on it.

/// The processor's name, as its maker gives it; its architecture where the system does not say.
pub(crate) fn processor() -> String {
    let name = if cfg!(target_os = "linux") {
        std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
    } else if cfg!(windows) {
        std::env::var("PROCESSOR_IDENTIFIER").ok()
    } else {
        let asked = std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
        asked.ok().and_then(|answer| Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned()))
    };
    name.filter(|name| !name.is_empty() && name.len() < 200).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// `Debian GNU/Linux 12 (bookworm), x86_64`, or `macos, aarch64`.
pub(crate) fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(line.trim_matches('"').to_owned())
    });
    let name = release.filter(|_| cfg!(target_os = "linux")).unwrap_or_else(|| std::env::consts::OS.to_owned());
    format!("{name}, {}", std::env::consts::ARCH)
}
