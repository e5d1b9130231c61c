//! What both halves of the study are made with.

use crate::demo::zoo::Zoo;
use crate::process::Result;
use std::path::{Path, PathBuf};

/// What is measured with, and where.
pub(super) struct Study {
    pub(super) zoo: Zoo,
    pub(super) is_quick: bool,
    pub(super) folder: PathBuf,
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Bytes of the task vectors of so many tasks in float32: of the tensors that fine-tuning moves.
pub(super) fn full_bytes(n_tasks: usize) -> Result<u64> {
    Ok(crate::demo::stored::f32_bytes()? * n_tasks as u64)
}
