//! Whether two models have one tokenizer: what adds up rows of embeddings takes them by number, whatever tokens they stand for.

use super::Checkpoint;
use super::regular::open_regular;
use std::io::{BufReader, Read};
use std::path::Path;

/// Files that say which row is which token.
const FILES: [&str; 6] =
    ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"];
/// Larger files are taken to differ.
const BYTES_MAX: u64 = 256 << 20;

impl Checkpoint {
    /// The first file of a tokenizer that both folders have and that is not the same in both, byte for byte. A checkpoint that is no
    /// folder has none to compare.
    pub fn other_tokenizer(&self, other: &Checkpoint) -> Option<&'static str> {
        let is_folder = |checkpoint: &Checkpoint| !checkpoint.is_in_memory() && checkpoint.path().is_dir();
        if !is_folder(self) || !is_folder(other) {
            return None;
        }
        FILES.into_iter().find(|file| {
            let [a, b] = [self.path().join(file), other.path().join(file)];
            a.is_file() && b.is_file() && !are_equal(&a, &b)
        })
    }
}

/// Whether two files hold the same bytes; what cannot be read differs.
fn are_equal(a: &Path, b: &Path) -> bool {
    let (Ok((a, of_a)), Ok((b, of_b))) = (open_regular(a), open_regular(b)) else { return false };
    if of_a.len() != of_b.len() || of_a.len() > BYTES_MAX {
        return false;
    }
    let [a, b] = [a, b].map(|file| BufReader::with_capacity(1 << 16, file).bytes());
    a.zip(b).all(|(a, b)| matches!((a, b), (Ok(a), Ok(b)) if a == b))
}
