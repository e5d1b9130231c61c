//! merge: an element from all tasks' values there: which of them stay, and how those that stay become one.

use crate::check::{check_columns, check_weights};
use crate::chunk::{ChunkLayout, Dtype};
use crate::error::KernelError;
use crate::limits::MOST_ROUNDS;
use crate::signs::{GOLDEN, mix};
use crate::work::Work;

/// Merged rows of a chunk whose segments are all of one tensor: out(x) = base·θ0(x) + λ·m(x), where m(x) is formed from the values
/// τ1(x) … τT(x) of all tasks. Where one of them is not finite, the output is not a number, whatever the rule would make of it.
///
/// Output: bytes, the chunk's segments in order, tightly packed, each in its output format.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// For each column beside the base.
    pub tasks: Vec<MergeTask>,
    /// Where only elements with a large variance over the tasks stay: the least variance.
    pub variance: Option<Edge>,
    /// How the values that stay become one.
    pub consensus: Consensus,
    /// Weight of the base.
    pub base: f32,
    /// λ, factor of what is added to it.
    pub lambda: f32,
    /// Format of the output; `None` keeps each segment's base format. Rounding is to nearest, ties to even.
    pub dtype: Option<Dtype>,
}

/// One task's part of a [`Merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct MergeTask {
    /// Factor of each of its values: its weight, times what makes up for those that go.
    pub factor: f32,
    /// What it counts where values are divided by the weights that took part.
    pub weight: f32,
    /// Which of its values stay.
    pub keep: Keep,
}

/// Which values of a task stay; the others are zero.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep {
    /// All.
    All,
    /// Those whose magnitudes lie between two edges.
    Band {
        /// Larger ones stay.
        low: Edge,
        /// Smaller ones stay; `None` for no such edge.
        high: Option<Edge>,
    },
    /// Those with [`random_word`]\(key, x\) < chance: a share of chance / 2³².
    Random {
        /// Of one task and one tensor.
        key: u32,
        /// The chance to stay, times 2³².
        chance: u32,
    },
}

/// A magnitude that values are compared with, as the bits of a positive f32, and which of the values that equal it stay: those
/// whose places in the tensor lie in `ties`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Bits of a positive f32.
    pub bits: u32,
    /// Places of those that stay among equals.
    pub ties: std::ops::Range<u64>,
}

impl Edge {
    /// An edge that all of its equals stay at.
    pub fn with_ties(bits: u32) -> Edge {
        Edge { bits, ties: 0..u64::MAX }
    }
}

/// How the values v1 … vT that stay become one: v is τ times the task's factor, or zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Consensus {
    /// Σ v.
    Sum,
    /// The sign of Σ v is elected (zero is taken as positive); those that have it are added up, and divided by the sum of their
    /// weights where `divides`.
    Elected {
        /// Whether the sum is divided.
        divides: bool,
    },
    /// The same, but each of them counts with its weight: Σ w·v / max(Σ w, floor).
    Erased {
        /// Guard against division by nothing.
        floor: f32,
    },
    /// Σ v where more than `k − 1` tasks need it: |v| > λ·|Σ v − v|.
    Needed {
        /// Tasks that must.
        k: u32,
        /// λ of the comparison.
        lambda: f32,
    },
    /// Σ v where one task needs it, by the same comparison.
    NeededBy {
        /// The task.
        task: u32,
        /// λ of the comparison.
        lambda: f32,
    },
    /// The largest of the values that have the sign of Σ v.
    Largest,
    /// The same where a task's own value has that sign.
    LargestFor {
        /// The task.
        task: u32,
    },
}

/// The word that decides about element `x` of a tensor.
#[inline(always)]
pub const fn random_word(key: u32, x: u64) -> u32 {
    let key = match (x >> 32) as u32 {
        0 => key,
        high => mix(key ^ high),
    };
    mix(key.wrapping_add((x as u32).wrapping_mul(GOLDEN)))
}

impl Merge {
    /// Format of the output in one segment.
    pub(crate) fn row_dtype(&self, layout: &ChunkLayout, segment: usize) -> Dtype {
        self.dtype.unwrap_or_else(|| layout.slice(segment, 0).dtype)
    }
}

impl Work for Merge {
    type Output = Vec<u8>;

    fn n_outputs(&self) -> usize {
        1
    }

    fn runs_on_gpu(&self, layout: &ChunkLayout) -> bool {
        // Places in a tensor are words there.
        let is_near = |at: usize| {
            let segment = layout.segments[at];
            segment.place.first_row.saturating_add(segment.n_rows as u64) < u64::from(u32::MAX)
        };
        // Each rule goes over the columns three times at most, with two rows a thread.
        let n_rounds = |at: usize| {
            let rank = |column: usize| layout.factors_of(at, column).map_or(0, |factors| factors.rank);
            let ranks = (1..layout.n_columns).map(rank).fold(0usize, usize::saturating_add);
            ranks.saturating_mul(6).saturating_add(4 * layout.n_columns)
        };
        (0..layout.segments.len()).all(|at| {
            n_rounds(at) <= MOST_ROUNDS
                && layout.slice(at, 0).dtype != Dtype::F64
                && self.row_dtype(layout, at) != Dtype::F64
                && is_near(at)
        })
    }

    fn check(&self, n_tasks: usize) -> Result<(), KernelError> {
        check_columns(1, n_tasks)?;
        let factors: Vec<f32> = self.tasks.iter().flat_map(|task| [task.factor, task.weight]).collect();
        check_weights(&factors, n_tasks, 2)?;
        check_weights(&[self.base, self.lambda], 1, 2)
    }
}
