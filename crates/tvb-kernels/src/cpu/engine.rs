//! The CPU engine: finds the instruction set, checks, and hands a chunk to its operation.

use super::eigh;
use super::scratch::Scratch;
use crate::check::check;
use crate::chunk::Chunk;
use crate::eigh::Eigh;
use crate::error::KernelError;
use crate::work::Work;
use pulp::Arch;

/// The CPU engine. Cheap to copy; holds only which instruction set it uses.
#[derive(Clone, Copy, Debug)]
pub struct CpuEngine {
    arch: Arch,
}

impl Default for CpuEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuEngine {
    /// Finds out what this processor can do.
    pub fn new() -> Self {
        Self { arch: Arch::new() }
    }

    /// One engine for each code path that this processor can run, the plain one first and that of [`new`](Self::new)
    /// last: for tests and measurements of each.
    pub fn each() -> Vec<Self> {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let narrower = pulp::x86::V3::try_new().map(Arch::V3);
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        let narrower = None;
        let archs = [Some(Arch::Scalar), narrower].into_iter().flatten();
        let best = Self::new();
        let mut engines: Vec<Self> = archs.map(|arch| Self { arch }).collect();
        engines.retain(|engine| engine.instruction_set() != best.instruction_set());
        engines.push(best);
        engines
    }

    /// The instruction set in use, for a list of devices: "AVX-512", "AVX2", "NEON", "SIMD128" or "plain".
    pub fn instruction_set(&self) -> &'static str {
        // The variants depend on the target.
        match self.arch {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Arch::V4(_) => "AVX-512",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Arch::V3(_) => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Arch::Neon(_) => "NEON",
            #[cfg(target_arch = "wasm32")]
            Arch::Simd128(_) => "SIMD128",
            _ => "plain",
        }
    }

    /// The instruction set, to dispatch on.
    pub(super) fn arch(&self) -> Arch {
        self.arch
    }

    /// Empty buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch::default()
    }

    /// Does `work` on one chunk, on the calling thread only. `out` is overwritten; its memory is reused.
    ///
    /// The same chunk gives the same bits whichever thread runs it. Deltas are formed in f32 whatever the mix of formats
    /// (f64 rows are rounded to f32 first), except where a reconstruction's base or output is f64: that is done in f64.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work, or the result does not fit in memory; no byte
    /// is read then.
    pub fn run<W: Work>(
        &self,
        work: &W,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        out: &mut W::Output,
    ) -> Result<(), KernelError> {
        check(work, chunk)?;
        work.run_on_cpu(self.arch, chunk, scratch, out)
    }

    /// Eigendecomposition of `n_matrices` symmetric n×n matrices laid one after another, column-major \[n_matrices, n, n\];
    /// lower triangles are read.
    ///
    /// # Errors
    /// [`KernelError::MatrixSize`] when the length is not n_matrices · n², [`KernelError::MatrixNotFinite`] and
    /// [`KernelError::EighFailed`].
    pub fn eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
        eigh::run(matrices, n, n_matrices)
    }
}
