//! Stores a scenario's tasks in one way, and puts beside it what comes back: a folder of checkpoints, one for each task.

use super::compressed::Compressed;
use super::rows::{How, Row};
use super::zoo::{Zoo, checkpoint, said};
use crate::process::{Result, capture, root};
use crate::zoo::CHECKPOINTS;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Tasks that were stored.
pub(super) struct Stored {
    /// The basis, where `tvb compress` made one.
    pub(super) basis: Option<PathBuf>,
    /// The checkpoints that came back.
    pub(super) recovered: PathBuf,
    /// What is kept on the disk of all tasks together.
    pub(super) bytes: u64,
    /// Mean gain and mean noise of the tasks, where `tvb` measured them.
    pub(super) quality: Option<(f64, f64)>,
}

#[derive(Deserialize)]
struct Kept {
    bytes: u64,
}

/// Stores the first `n_tasks` tasks under `folder`.
pub(super) fn store(zoo: &Zoo, row: &Row, n_tasks: usize, seed: u64, folder: &Path) -> Result<Stored> {
    let own = folder.join(format!("{n_tasks}-tasks")).join(format!("{}-{seed}", row.file_name()));
    let recovered = own.join("recovered");
    let tasks = zoo.scenario(n_tasks)?;
    make_folder(&recovered)?;
    match &row.how {
        How::Originals => {
            let bytes = f32_bytes()? * n_tasks as u64;
            Ok(Stored { basis: None, recovered: root().join(CHECKPOINTS), bytes, quality: None })
        }
        How::Nothing => {
            for task in tasks {
                let (from, to) = (root().join(checkpoint("base")), recovered.join(format!("{task}.safetensors")));
                std::fs::copy(&from, &to).map_err(|error| format!("{}: {error}", to.display()))?;
            }
            Ok(Stored { basis: None, recovered, bytes: 0, quality: None })
        }
        How::Control(name) => {
            let mut command = zoo.command(&["control", name, "--zoo", CHECKPOINTS, "--scenario", &n_tasks.to_string()]);
            let kept: Vec<Kept> = said(command.arg("--out").arg(&recovered))?;
            let bytes = kept.first().map_or(0, |kept| kept.bytes);
            Ok(Stored { basis: None, recovered, bytes, quality: None })
        }
        How::Compress(words) => {
            let basis = own.join("basis");
            let mut command = zoo.tvb(&["compress", "--overwrite"]);
            command.args(words).args(["--seed", &seed.to_string(), "-o"]).arg(&basis);
            command.arg("--base").arg(checkpoint("base")).args(tasks.iter().map(|task| checkpoint(task)));
            let compressed = Compressed::parse(&capture(&mut command)?)?;
            let mut command = zoo.tvb(&["recover", "--overwrite"]);
            capture(command.arg(&basis).arg("--base").arg(checkpoint("base")).arg("-o").arg(&recovered))?;
            let (bytes, quality) = (compressed.bytes(), Some(compressed.quality()));
            Ok(Stored { basis: Some(basis), recovered, bytes, quality })
        }
    }
}

/// The bytes of one task vector in float32: of the tensors that fine-tuning moves, without a header.
pub(crate) fn f32_bytes() -> Result<u64> {
    let path = root().join(checkpoint("base"));
    let failed = |what: &str| format!("{}: {what}", path.display());
    let bytes = std::fs::read(&path).map_err(|error| failed(&error.to_string()))?;
    let length = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize;
    let header = bytes.get(8..8 + length).ok_or_else(|| failed("its header is cut short"))?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| failed(&error.to_string()))?;
    let moved = header.iter().filter(|(name, of)| {
        name.starts_with("visual.") && of.get("dtype").and_then(|dtype| dtype.as_str()) == Some("F32")
    });
    let size = |of: &serde_json::Value| {
        let shape = of.get("shape")?.as_array()?;
        Some(4 * shape.iter().filter_map(serde_json::Value::as_u64).product::<u64>())
    };
    Ok(moved.filter_map(|(_, of)| size(of)).sum())
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Mean test accuracy of the sum of all tasks as `tvb add` writes it, straight from the basis.
pub(super) fn added(zoo: &Zoo, basis: &Path, n_tasks: usize, scale: f64) -> Result<f64> {
    let out = basis.with_file_name("added.safetensors");
    let mut command = zoo.tvb(&["add", "--overwrite", "--scale", &scale.to_string()]);
    capture(command.arg(basis).arg("--base").arg(checkpoint("base")).arg("-o").arg(&out))?;
    #[derive(Deserialize)]
    struct Evaluated {
        mean: f64,
    }
    let tasks = zoo.scenario(n_tasks)?.join(",");
    let found: Vec<Evaluated> = said(zoo.command(&["eval", "--split", "test", "--tasks", &tasks]).arg(&out))?;
    found.first().map(|found| found.mean).ok_or_else(|| "tvb-zoo eval said nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_vector_has_as_many_bytes_as_the_encoder() {
        assert_eq!(f32_bytes().unwrap(), 4 * 54_656);
    }
}
