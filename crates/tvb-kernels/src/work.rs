//! What is done to every chunk of one pass, and the type of what comes out of it.
//!
//! An operation is one type ([`Gram`](crate::Gram), [`Project`](crate::Project), [`Reconstruct`](crate::Reconstruct)) with
//! one file in each of three places: what it is (`src/`), how the CPU does it (`cpu/`) and how a GPU does it (`gpu/`).

use crate::chunk::{Chunk, ChunkLayout};
use crate::cpu::scratch::Scratch;
use crate::error::KernelError;
use crate::gpu::plan::{Plan, Readback};
use crate::gpu::variant::Shape;
use std::fmt::Debug;

/// One operation on chunks: [`Gram`](crate::Gram), [`Project`](crate::Project), [`Reconstruct`](crate::Reconstruct),
/// [`Code`](crate::Code) or [`Decode`](crate::Decode).
///
/// The trait is sealed: what an engine needs of an operation is its own affair.
pub trait Work: OnCpu + OnGpu + Clone + Debug + PartialEq + Send + Sync {
    /// What comes out of one chunk.
    type Output: Clone + Debug + Default + PartialEq + Send;

    /// How many outputs (atoms, edited copies) are formed of each row: M or K, and 0 for a Gram, whose result does not
    /// grow with the rows.
    fn n_outputs(&self) -> usize;

    /// Whether a GPU can do this work on a chunk of `layout`: no f64 results, and no f64 base under a reconstruction or
    /// a decoding, no more than a few shared columns. The
    /// CPU engine does all work on all chunks. `layout` is that of the chunk as it was read or as it is staged.
    fn runs_on_gpu(&self, layout: &ChunkLayout) -> bool;

    /// Checks this work against chunks of `n_tasks` columns beside the base.
    ///
    /// # Errors
    /// [`KernelError::ColumnCount`] where there are too few columns, [`KernelError::NoOutputs`] where no output is asked
    /// for, [`KernelError::WeightCount`] and [`KernelError::WeightNotFinite`] for weights.
    fn check(&self, n_tasks: usize) -> Result<(), KernelError>;

    /// Checks where the codes of a chunk lie, for work that reads some.
    ///
    /// # Errors
    /// [`KernelError::SliceCount`] and [`KernelError::CodesOutside`].
    fn check_codes(&self, _: &ChunkLayout) -> Result<(), KernelError> {
        Ok(())
    }
}

/// An operation as the CPU engine does it. Implemented in the operation's file in `cpu/`.
pub trait OnCpu {
    /// Overwrites `out` with the result of a chunk that has been checked against the work.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] where the result does not fit in memory.
    #[doc(hidden)]
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        out: &mut Self::Output,
    ) -> Result<(), KernelError>
    where
        Self: Work;
}

/// An operation as a GPU does it. Implemented in the operation's file in `gpu/`.
pub trait OnGpu {
    /// Where the parts of the result lie in what is read back.
    #[doc(hidden)]
    type Parts: Debug + Send;

    /// Tables, dispatches and copies for one chunk, whose layout has been checked against the work.
    ///
    /// # Errors
    /// [`KernelError::NotOnGpu`], and limits of the device that the chunk goes beyond.
    #[doc(hidden)]
    fn plan(&self, layout: &ChunkLayout, shape: Shape, stamp: u32) -> Result<Plan<Self::Parts>, KernelError>;

    /// The weights in the shader's order; none where the work has none.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] where they do not fit in memory.
    #[doc(hidden)]
    fn packed_weights(&self) -> Result<Vec<f32>, KernelError>;

    /// Puts the result together, in place of what `out` holds.
    ///
    /// # Errors
    /// [`KernelError::Unfinished`] where a kernel has left its result unfinished, [`KernelError::TooLarge`] where it does not
    /// fit in memory.
    #[doc(hidden)]
    fn collect(parts: &Self::Parts, readback: Readback<'_>, out: &mut Self::Output) -> Result<(), KernelError>
    where
        Self: Work;
}
