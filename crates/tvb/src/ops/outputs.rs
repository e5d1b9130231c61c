//! Where edits go, and how their float tensors are stored.

use crate::checkpoint::CheckpointWriter;
use tvb_kernels::Dtype;

/// How edited and copied float tensors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Their type; `None` keeps each tensor's.
    pub dtype: Option<Dtype>,
    /// Write the largest finite value of the type in place of one beyond it. Otherwise that is an error.
    pub clip: bool,
}

/// Where edits go: one writer for each, every float tensor in one format.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// \[n_outputs\]
    pub writers: &'a [CheckpointWriter],
    /// How float tensors are stored.
    pub format: Format,
}

impl Outputs<'_> {
    /// How messages name an output.
    pub(super) fn name(&self, output: usize) -> String {
        self.writers.get(output).map_or_else(String::new, |writer| writer.target().display().to_string())
    }
}
