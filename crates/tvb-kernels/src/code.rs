//! code: task vectors into a few bits an element, so that each of them comes back (after DRIVE and EDEN, with one shared
//! column for each expression that is to stay exact).
//!
//! A *panel* is up to 4,096 consecutive elements of one tensor, seen as 256 lines of k elements, k = 16 or, in a tensor's last
//! panel, as few as hold it; what is missing is zero. Column l of the panel is a *block* of 256 elements. Each element gets a sign from
//! [`signs`](crate::signs), each block a Walsh–Hadamard transform (unnormalised, in the natural order), after which its elements
//! are close to Gaussian whatever they were. They are coded by [`Rate`] with one scale for the block: for a task
//! s = ‖y‖²/⟨y, c⟩, with c the magnitudes with their signs, so that ⟨x, x̂⟩ = ‖x‖² (unbiased); for a shared column
//! ⟨y, c⟩/⟨c, c⟩ (least squares).
//!
//! The blocks of a panel lie beside each other so that every step runs down the lines, 16 blocks at once, on any vector
//! length and without moving anything across it.
//!
//! What single tasks lack (r_t = y_t − ŷ_t) is projected on K orthonormal directions q_k over the tasks, and Σ_t q_tk·r_t is coded
//! as shared column k; a task then decodes to ŷ_t + Σ_k q_tk·ê_k. Every expression in the span of the q_k keeps only the error of
//! the shared columns.
//!
//! Where tasks join others that are coded already, the originals of those are gone; their shared columns are *carried*: columns of
//! the chunk that add themselves to what the new shared columns hold.

use crate::check::check_columns;
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::limits::MOST_KEPT;
use crate::panel::n_blocks;
use crate::rate::Rate;
use crate::work::Work;

/// Codes of a chunk's task vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Code {
    /// Of the tasks' own columns.
    pub rate: Rate,
    /// Of the shared columns.
    pub kept_rate: Rate,
    /// Q, row-major \[n_tasks, n_kept\]: orthonormal columns; empty where nothing is kept.
    pub kept: Vec<f32>,
    /// How many of the chunk's last columns are *carried*: not coded by themselves, but added as they are to what the shared
    /// columns hold, by their rows of Q. So shared columns of before go on where tasks join. On the CPU alone.
    pub n_carried: usize,
    /// K.
    pub n_kept: usize,
    /// Where the signs come from.
    pub seed: u64,
}

/// What comes out of a chunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Task columns, then shared ones: each column's words for the segments in order. A panel of k blocks takes
    /// `rate.words()`·k words, \[word, block\].
    pub words: Vec<u32>,
    /// As many columns: the scales of the blocks in order, as [`scale_bits`](crate::scale_bits).
    pub scales: Vec<u16>,
    /// \[n_segments, n_tasks\]: what came out of each task.
    pub measured: Vec<Measured>,
    /// \[n_segments, n_tasks + n_kept\]: ‖y − ŷ‖² of every column's own code, of the rotated elements as [`Measured`] is: of a task's
    /// without the shared ones, of a shared column's with what it was to hold. Nothing from a GPU.
    pub lost: Vec<f64>,
}

/// Sums over one segment of one task, of the rotated elements (256 times those of the elements themselves). Not finite where
/// the task vector is not, or is too large for f32.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// ‖y‖².
    pub energy: f64,
    /// ⟨y, ŷ⟩, the shared columns' part in ŷ included.
    pub product: f64,
    /// ‖ŷ‖².
    pub decoded: f64,
}

impl Code {
    /// Words of one column of a chunk.
    pub(crate) fn words_per_column(rate: Rate, layout: &ChunkLayout) -> usize {
        layout.segments.iter().map(|segment| n_blocks(segment.n_rows) * rate.words()).sum()
    }

    /// Scales of one column of a chunk.
    pub(crate) fn scales_per_column(layout: &ChunkLayout) -> usize {
        layout.segments.iter().map(|segment| n_blocks(segment.n_rows)).sum()
    }
}

impl Work for Code {
    type Output = Codes;

    fn n_outputs(&self) -> usize {
        self.n_kept
    }

    fn runs_on_gpu(&self, _: &ChunkLayout) -> bool {
        self.n_kept <= MOST_KEPT && self.n_carried == 0
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        check_columns(self.n_carried.max(1), n_tasks)?;
        let expected = n_tasks.checked_mul(self.n_kept).ok_or(KernelError::TooLarge { what: "weights" })?;
        if self.kept.len() != expected {
            return Err(KernelError::WeightCount { expected, found: self.kept.len() });
        }
        match self.kept.iter().position(|weight| !weight.is_finite()) {
            Some(at) => Err(KernelError::WeightNotFinite { column: at / self.n_kept, output: at % self.n_kept }),
            None => Ok(()),
        }
    }
}
