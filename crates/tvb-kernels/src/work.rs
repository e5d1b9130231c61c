//! What is done to every chunk of one pass, and what comes out of it.

use crate::Dtype;

/// One pass over the chunks does one of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// gram\[i,j\] += Σ_x δi(x)·δj(x), with δt = θt − θ0 in f32.
    Gram,
    /// atom_m(x) = Σ_t δt(x)·B\[t,m\].
    Project(Project),
    /// out_k(x) = \[θ0(x) +\] Σ_c column_c(x)·W\[c,k\].
    Reconstruct(Reconstruct),
}

/// Fused projection S = VB straight from raw checkpoint bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Encode B, row-major [n_tasks, n_atoms].
    pub encode: Vec<f32>,
    /// M.
    pub n_atoms: usize,
    /// Storage format of the atoms; rounding is to nearest, ties to even.
    pub dtype: Dtype,
}

/// Fused reconstruction θ0 + S·W into the output format.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstruct {
    /// Row-major [n_columns − 1, n_outputs].
    pub weights: Vec<f32>,
    /// K, how many outputs are formed at once.
    pub n_outputs: usize,
    /// Whether the columns beside the base are checkpoints, of which the base is taken off first (δ), or deltas already.
    pub columns: Columns,
    /// Whether θ0 is added to each output, or the output is the bare delta.
    pub base: Base,
    /// Format of the outputs; `None` keeps each segment's base format.
    pub dtype: Option<Dtype>,
}

/// What the columns beside the base hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Whole checkpoints θt: the base is subtracted from each, in f32.
    Checkpoints,
    /// Deltas (atoms, task vectors), used as they are.
    Deltas,
}

/// What an output starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Output = θ0 + edit.
    Added,
    /// Output = edit.
    Left,
}

/// What one chunk's work yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The chunk's part of the Gram matrices.
    Gram(GramPart),
    /// Atoms or edited rows: for each output k in turn, its segments in order, tightly packed in the output format.
    Rows(Vec<u8>),
}

/// One chunk's part of the Gram matrices: one lower triangle for each run of consecutive segments with the same slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GramPart {
    /// The slots, in chunk order.
    pub slots: Vec<usize>,
    /// [slots.len(), T(T+1)/2]: packed lower triangles, entry (i, j ≤ i) at i(i+1)/2 + j. f64 sums of f32 runs.
    pub values: Vec<f64>,
}

/// Entries of a packed lower triangle of order n.
pub const fn triangle_len(n: usize) -> usize {
    n * (n + 1) / 2
}
