//! Child processes: said before they run, in the repository's root, and with a message that tells how to run them again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong and what to do about it, for a person.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}

/// Where builds go.
pub(crate) fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

/// The cargo that runs us.
pub(crate) fn cargo<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// The command as one would type it.
pub(crate) fn typed(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.display(), quoted(value)));
        }
    }
    let program = Path::new(command.get_program());
    words.push(program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned());
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

/// A word in the shell's quotes where it needs them.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.into_owned() } else { format!("'{word}'") }
}

/// Says and runs a command with our own output; an error tells how to run it again.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let typed = typed(command);
    eprintln!("$ {typed}");
    let status = command.status().map_err(|error| format!("{typed}: cannot start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{status}; run it again with: {typed}")) }
}

/// Runs a command and returns its stdout; its stderr is ours.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let typed = typed(command);
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("{typed}: cannot start: {error}"))?;
    if !output.status.success() {
        return Err(format!("{}; run it again with: {typed}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{typed}: its output is not UTF-8"))
}

/// Whether a command is there and exits 0; nothing is shown.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let status =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
