//! Gram matrices in f64, for the few blocks whose products f32 cannot hold.
//!
//! Engines square deltas in f32: below about 1e-19 the squares lose bits and then vanish (deltas of 1e-25 would be dropped
//! as if the task had not moved), and above 1.8e19 they are infinite. Both are seen in the block's matrix. Such a block is
//! read again and multiplied in f64, where squares of f32 numbers are exact and far from either end.

use crate::digest::Digest;
use crate::pass::decode_deltas;
use tvb_kernels::{Chunk, ChunkLayout, triangle_len};

/// A sum of squares below this for each row is doubtful. Each product may be off by 2^-126, the smallest f32 that every
/// device keeps; so what is larger than this is off by at most 2^-24 of itself, as f32 sums are anyway.
const DOUBTFUL: f64 = 1.0 / (1_u128 << 102) as f64;

/// Whether f32 may have been too narrow for a block's matrix `triangle` \[T(T+1)/2\]. `digests` \[T+1\] tell the tasks that
/// are the base itself over this block: nothing of theirs can be lost.
pub(super) fn is_doubtful(triangle: &[f64], layout: &ChunkLayout, segment: usize, digests: &[Digest]) -> bool {
    let least = layout.segments[segment].n_rows as f64 * DOUBTFUL;
    let is_base = |column: usize| {
        digests.get(column) == digests.first() && layout.slice(segment, column).dtype == layout.slice(segment, 0).dtype
    };
    let is_small = |task: usize| triangle[triangle_len(task) + task] < least && !is_base(task + 1);
    triangle.iter().any(|value| !value.is_finite()) || (0..layout.n_tasks()).any(is_small)
}

/// The matrix of one segment in f64, packed; `None` where a delta is not finite.
pub(super) fn gram_in_f64(chunk: Chunk<'_>, segment: usize) -> Option<Vec<f64>> {
    let deltas = decode_deltas(chunk, segment, chunk.layout.n_tasks());
    if deltas.iter().flatten().any(|delta| !delta.is_finite()) {
        return None;
    }
    // A task that has not moved has no products; among many of those that is most of the work.
    let is_still: Vec<bool> = deltas.iter().map(|rows| rows.iter().all(|delta| *delta == 0.0)).collect();
    let dot = |i: usize, j: usize| match is_still[i] || is_still[j] {
        true => 0.0,
        false => deltas[i].iter().zip(&deltas[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum(),
    };
    Some((0..deltas.len()).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| dot(i, j)).collect())
}
