//! The CPU engine: the same operations as the GPU's, native, one chunk on the calling thread.
//!
//! A chunk is taken to lie in the core's cache already (the reader has just put it there), so each kernel goes over it in
//! blocks of a few hundred rows: decode and difference the block into the nearest cache, then do the arithmetic on
//! registers. The instruction set (AVX-512, AVX2, NEON or plain) is found at run time.

mod block;
mod combine;
mod convert;
mod eigh;
mod float;
mod gram;
mod locate;
mod project;
mod reconstruct;
mod rows;

pub use convert::{convert, decode};
pub use gram::RUN_ROWS;
pub use locate::locate_non_finite;

use crate::check::check;
use crate::eigh::Eigh;
use crate::{Chunk, GramPart, KernelError, Output, Work};
use std::fmt;

/// The CPU engine. Cheap to copy; holds only which instruction set it uses.
#[derive(Clone, Copy, Debug)]
pub struct CpuEngine {
    arch: pulp::Arch,
}

/// One thread's buffers, reused from chunk to chunk; they grow to a few hundred rows of every column.
#[derive(Default)]
pub struct Scratch {
    block: block::Block,
    weights: combine::Weights,
    rows: block::Floats,
    rows_f64: Vec<f64>,
    products: block::Floats,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Default for CpuEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuEngine {
    /// Finds out what this processor can do.
    pub fn new() -> Self {
        Self { arch: pulp::Arch::new() }
    }

    /// One engine for each code path that this processor can run, the plain one first and that of [`new`](Self::new)
    /// last: for tests and measurements of each.
    pub fn each() -> Vec<Self> {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let narrower = pulp::x86::V3::try_new().map(pulp::Arch::V3);
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        let narrower = None;
        let archs = [Some(pulp::Arch::Scalar), narrower].into_iter().flatten();
        let best = Self::new();
        let mut engines: Vec<Self> = archs.map(|arch| Self { arch }).collect();
        engines.retain(|engine| engine.instruction_set() != best.instruction_set());
        engines.push(best);
        engines
    }

    /// The instruction set in use, for a list of devices: "AVX-512", "AVX2", "NEON" or "plain".
    pub fn instruction_set(&self) -> &'static str {
        // The enum's variants depend on the target; its debug form names them on every one.
        let name = format!("{:?}", self.arch);
        match name.split(['(', ' ', '{']).next() {
            Some("V4") => "AVX-512",
            Some("V3") => "AVX2",
            Some("Neon" | "NeonFcma") => "NEON",
            Some("Simd128") => "SIMD128",
            _ => "plain",
        }
    }

    /// Empty buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch::default()
    }

    /// Does `work` on one chunk, on the calling thread only. `out` is overwritten; its memory is reused where its kind fits.
    ///
    /// The same chunk gives the same bits whichever thread runs it. Deltas are formed in f32 whatever the mix of formats
    /// (f64 rows are rounded to f32 first), except where a reconstruction's base or output is f64: that is done in f64.
    ///
    /// # Errors
    /// [`KernelError`] when the layout does not fit the bytes or the work; nothing is read then.
    pub fn run(
        &self,
        work: &Work,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        out: &mut Output,
    ) -> Result<(), KernelError> {
        check(work, chunk)?;
        match work {
            Work::Gram => gram::run(self, chunk, scratch, gram_part(out)),
            Work::Project(project) => project::run(self, work, project, chunk, scratch, output_rows(out)),
            Work::Reconstruct(reconstruct) => {
                reconstruct::run(self, work, reconstruct, chunk, scratch, output_rows(out))
            }
        }
    }

    /// Eigendecomposition of `n_matrices` symmetric n×n matrices laid one after another; lower triangles are read.
    ///
    /// # Errors
    /// [`KernelError`] when the length is not n_matrices · n², an entry is not finite, or the iteration fails.
    pub fn eigh(&self, matrices: &[f64], n: usize, n_matrices: usize) -> Result<Vec<Eigh>, KernelError> {
        eigh::run(matrices, n, n_matrices)
    }
}

/// The Gram part in `out`, made one where it is not.
fn gram_part(out: &mut Output) -> &mut GramPart {
    if !matches!(out, Output::Gram(_)) {
        *out = Output::Gram(GramPart::default());
    }
    match out {
        Output::Gram(part) => part,
        Output::Rows(_) => unreachable!("it has just been made a Gram part"),
    }
}

/// The rows in `out`, made rows where it is not.
fn output_rows(out: &mut Output) -> &mut Vec<u8> {
    if !matches!(out, Output::Rows(_)) {
        *out = Output::Rows(Vec::new());
    }
    match out {
        Output::Rows(rows) => rows,
        Output::Gram(_) => unreachable!("it has just been made rows"),
    }
}
