//! Every bound in one place, with how they relate.

use crate::triangles::triangle_len;

/// The most columns beside the base (T) that an engine takes.
pub const MAX_TASKS: usize = 1024;

/// The longest run of rows whose products are summed in f32, on any engine; runs are added up in f64.
pub const RUN_ROWS: usize = 1024;

/// Threads of a workgroup, in every shader.
pub(crate) const THREADS: u32 = 64;

/// The most workgroups of one dimension of a dispatch, on every adapter.
pub(crate) const MOST_GROUPS: usize = 65_535;

/// Bytes that staged slices start on a multiple of: a thread loads as many at once.
pub const SLICE_ALIGNMENT: usize = 16;

/// Rows of a run of `gram` that one thread sums, at most (about, where lanes have unequal parts): one chain of f32 additions, so a short one.
pub(crate) const CHAIN_ROWS: usize = 256;

/// Runs of one segment whose partial Grams are added up on the device before they are read back, where T is above 32:
/// at most so many, and no more than one dispatch's partials hold.
pub(crate) const FOLD_RUNS: usize = 64;

/// Outputs that a thread of `project` and `reconstruct` forms together, by how many there are.
pub(crate) const OUTPUTS: [u32; 4] = [4, 8, 16, 32];

/// Rows of a workgroup of `project`, `reconstruct` and `merge`: two a thread.
pub(crate) const BLOCK_ROWS: usize = 2 * THREADS as usize;

/// Partial Grams of one dispatch take at most this many bytes; more runs make more dispatches.
pub(crate) const PARTIALS_BYTES: u64 = 32 << 20;

/// Bytes between the parameters of one dispatch and the next, and the alignment of bindings: what every adapter takes.
pub(crate) const BINDING_ALIGNMENT: usize = 256;

/// Columns whose codes a thread of `code_kept` or `decode` goes through in one dispatch, at most: up to 600 rounds of loops each
/// where a compiler unrolls none, and Mesa's software adapter ends a thread's loops after 65,535, all of them together.
pub(crate) const CODED_TOGETHER: usize = 32;

/// Rounds of the loops of a thread of `merge`, at most, where columns are formed from factors: the same limit.
pub(crate) const MOST_ROUNDS: usize = 60_000;

/// Floats that a workgroup of theirs leaves to the next dispatch.
pub(crate) const CODED_VALUES: usize = 2048;

/// The most shared columns that `code` takes on a GPU.
pub(crate) const MOST_KEPT: usize = 32;

/// The largest orders of the variants of `eigh`: a matrix and, in the first, its vectors fit the workgroup's memory.
pub(crate) const EIGH_SIDES: [u32; 2] = [32, 64];

/// The largest matrix for the GPU's eigendecomposition.
pub(crate) const MOST_EIGH_ORDER: usize = MAX_TASKS;

/// The most sweeps of `eigh`; the shader has the same number. Half as many are enough but for clusters.
pub(crate) const EIGH_SWEEPS: usize = 14;

/// Multiplications of one submit of `eigh`, about: some tens of milliseconds on a slow GPU, since a long one gets the whole
/// device reset on macOS and Windows. One matrix of order 64 is a thirtieth of it.
pub(crate) const EIGH_WORK: usize = 1 << 30;

const _: () = {
    assert!(CHAIN_ROWS <= RUN_ROWS);
    // Row pairs make the words of 16-bit outputs: a run must not start in the middle of one.
    assert!(BLOCK_ROWS.is_multiple_of(2));
    // One partial of the largest Gram, at least, in one dispatch; and everything within the least binding size.
    let largest = triangle_len(MAX_TASKS) as u64 * 4;
    assert!(largest <= PARTIALS_BYTES && PARTIALS_BYTES + largest <= 128 << 20);
};
