//! A checkpoint or a part of a job where a basis is expected: noticed for a hint.

use std::path::Path;
use tvb::basis::{Basis, part_file};

/// Whether a path that should be a basis looks like a checkpoint, by its names alone.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    const ENDINGS: [&str; 6] = ["safetensors", "bin", "pt", "pth", "ckpt", "tar"];
    let is_one = |path: &Path| path.extension().and_then(|end| end.to_str()).is_some_and(|end| ENDINGS.contains(&end));
    match std::fs::read_dir(path) {
        Ok(_) if Basis::is_at(path) || part_file::is_folder(path) => false,
        Ok(entries) => entries.take(NAMES_MAX).flatten().any(|entry| is_one(&entry.path())),
        Err(_) => path.is_file() && is_one(path),
    }
}

/// Names of a folder that are looked at for a hint.
const NAMES_MAX: usize = 1_000;
/// What to do where a checkpoint stands in a basis' place.
pub(crate) const FROM_CHECKPOINTS: &str = "edits straight from checkpoints: --base BASE --from-checkpoints [NAME=]PATH…; `tvb compress` makes a basis of them";
