//! gram: the inner products of deltas, G += VᵀV.

use crate::check::check_columns;
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::triangles::Triangles;
use crate::work::Work;

/// The Gram matrix of each segment: gram\[i,j\] = Σ_x δi(x)·δj(x), with δt = θt − θ0 in f32.
///
/// Output: [`Triangles`], one packed lower triangle for each segment of the chunk, in order. On one engine the bits of a
/// segment's triangle depend on that segment's rows, their formats and T, and on nothing else: not on the segments beside
/// it, nor on where in the chunk it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gram {
    /// The first task whose row is asked for: of the tasks before it only the diagonal is, and what stands beside it there has no
    /// meaning. The entries that are asked for have the bits that they have where all are, as long as T is not so large that
    /// the CPU multiplies by a library's product; a GPU forms all.
    pub first: usize,
}

impl Gram {
    /// All rows.
    pub const ALL: Gram = Gram { first: 0 };
}

impl Work for Gram {
    type Output = Triangles;

    fn n_outputs(&self) -> usize {
        0
    }

    fn runs_on_gpu(&self, _: &ChunkLayout) -> bool {
        true
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        check_columns(self.first.saturating_add(1), n_tasks)
    }
}
