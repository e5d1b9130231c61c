//! What is made of the parts of a job, and how.

use crate::checkpoint::Existing;
use std::path::PathBuf;

/// What is made of the parts, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinOptions {
    /// The Gram file, or the basis folder.
    pub output: PathBuf,
    /// What happens to an output that is there already.
    pub existing: Existing,
    /// Whether parts may have read copies of the same files, with other paths and times of change.
    pub copies: bool,
    /// The folder that the parts of a basis wrote their rows to, where it has another name here than there.
    pub into: Option<PathBuf>,
}

impl JoinOptions {
    /// A new output from parts that have read the same files.
    pub fn new(output: impl Into<PathBuf>) -> JoinOptions {
        JoinOptions { output: output.into(), existing: Existing::Refuse, copies: false, into: None }
    }
}
