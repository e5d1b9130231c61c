//! What the targets share: a whole small basis to put a mutilated file into, and seals that fit again.

use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};
use tvb::basis::seal;
use tvb::checkpoint::{Budget, Checkpoint, OpenOptions};
use tvb::progress::Progress;
use tvb::pass::Runtime;

/// What a reader may keep: little enough that what gets past it shows as memory.
pub const BUDGET_BYTES: u64 = 64 << 20;

/// One thread of the CPU.
pub fn cpu() -> Runtime {
    Runtime::on_cpu(1, BUDGET_BYTES).with_budget(Budget::new(BUDGET_BYTES))
}

/// Opens a checkpoint within a budget of its own, all of which is left again once the checkpoint is gone.
///
/// # Panics
/// Where something stays charged.
pub fn opened(path: &Path, look: impl FnOnce(&Checkpoint)) {
    let options = OpenOptions { budget: Budget::new(BUDGET_BYTES), ..OpenOptions::default() };
    if let Ok(checkpoint) = Checkpoint::open_with(path, &options) {
        look(&checkpoint);
    }
    assert_eq!(options.budget.left(), options.budget.limit(), "something stays charged");
}

/// Stops every pass before its first chunk: headers are what is looked at.
#[derive(Debug)]
pub struct HeadersOnly;

impl Progress for HeadersOnly {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        true
    }
}

/// A copy of a folder that the seeds' maker left in `fuzz/probe`.
///
/// # Panics
/// Where it is not there: `cargo xtask fuzz` makes it.
pub fn probe(name: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("probe").join(name);
    let copy = tempfile::tempdir().expect("a folder");
    let entries =
        std::fs::read_dir(&from).unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask fuzz`", from.display()));
    for entry in entries.flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    copy
}

/// A file for a reader that takes paths only; one for all runs.
pub fn scratch_file(suffix: &str) -> NamedTempFile {
    NamedTempFile::with_suffix(suffix).expect("a file")
}

/// The file's path, with these bytes in it.
pub fn filled<'a>(file: &'a NamedTempFile, bytes: &[u8]) -> &'a Path {
    std::fs::write(file.path(), bytes).expect("written");
    file.path()
}

/// Writes one file of a probe and answers with its path.
pub fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// Seals damaged bytes again, so that they get past their checksum.
pub fn resealed(bytes: &[u8]) -> Vec<u8> {
    const PREFIX: &[u8] = b"xxh3-128:";
    let mut bytes = bytes.to_vec();
    let key = bytes.windows(9).position(|window| window == b"checksum\"").unwrap_or(0);
    if let Some(at) = bytes[key..].windows(PREFIX.len()).position(|window| window == PREFIX) {
        let digits = key + at + PREFIX.len();
        if digits + 32 <= bytes.len() {
            bytes[digits..digits + 32].fill(b'0');
            seal::seal(&mut bytes);
        }
    }
    bytes
}
