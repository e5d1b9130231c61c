//! project: the fused projection S = VB straight from raw checkpoint bytes.

use crate::check::{check_columns, check_weights};
use crate::chunk::{ChunkLayout, Dtype};
use crate::error::KernelError;
use crate::work::Work;

/// Atoms of a chunk's rows: atom_m(x) = Σ_t δt(x)·B\[t,m\], with δt = θt − θ0 in f32.
///
/// Output: bytes. For each atom m in turn, the chunk's segments in order, tightly packed in `dtype`.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Encode B, row-major \[n_tasks, n_atoms\]; finite.
    pub encode: Vec<f32>,
    /// M, at least 1.
    pub n_atoms: usize,
    /// Storage format of the atoms; rounding is to nearest, ties to even.
    pub dtype: Dtype,
}

impl Work for Project {
    type Output = Vec<u8>;

    fn n_outputs(&self) -> usize {
        self.n_atoms
    }

    fn runs_on_gpu(&self, _: &ChunkLayout) -> bool {
        self.dtype != Dtype::F64
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        check_columns(1, n_tasks)?;
        check_weights(&self.encode, n_tasks, self.n_atoms)
    }
}
