//! Whether models have one tokenizer: a merge takes rows of embeddings by their numbers, whatever tokens they stand for.

use crate::checkpoint::Checkpoint;
use crate::shown::shown;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Files that say which row is which token.
const FILES: [&str; 6] =
    ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"];
/// Larger files are taken to differ.
const BYTES_MAX: u64 = 256 << 20;

/// A line for each task whose tokenizer is not the base's, byte for byte. A model without one, or in memory, has nothing to compare.
pub fn other_tokenizers<'a>(
    base: &Checkpoint,
    tasks: impl IntoIterator<Item = (&'a str, &'a Checkpoint)>,
) -> Vec<String> {
    let Some(own) = folder_of(base) else { return Vec::new() };
    let note = |(name, task): (&str, &Checkpoint)| {
        let other = folder_of(task).filter(|other| *other != own)?;
        let file = FILES.into_iter().find(|file| {
            let [a, b] = [own.join(file), other.join(file)];
            a.is_file() && b.is_file() && !are_equal(&a, &b)
        })?;
        Some(format!(
            "task {}: its {file} is not the base's: rows of embeddings are merged by their numbers, and the output has the base's \
             tokenizer",
            shown(name)
        ))
    };
    tasks.into_iter().filter_map(note).collect()
}

fn folder_of(checkpoint: &Checkpoint) -> Option<PathBuf> {
    let path = checkpoint.path();
    (!checkpoint.is_in_memory() && path.is_dir()).then(|| path.to_owned())
}

/// Whether two files hold the same bytes; what cannot be read differs.
fn are_equal(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| {
        let file = File::open(path).ok()?;
        let n_bytes = file.metadata().ok()?.len();
        Some((BufReader::with_capacity(1 << 16, file), n_bytes))
    };
    let (Some((a, n_a)), Some((b, n_b))) = (open(a), open(b)) else { return false };
    if n_a != n_b || n_a > BYTES_MAX {
        return false;
    }
    a.bytes().zip(b.bytes()).all(|(a, b)| matches!((a, b), (Ok(a), Ok(b)) if a == b))
}
