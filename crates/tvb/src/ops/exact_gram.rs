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
    let is_base = |column: usize| {
        let slice = layout.slice(segment, column);
        let same = digests.get(column) == digests.first() && slice.dtype == layout.slice(segment, 0).dtype;
        same && !slice.is_delta
    };
    triangle.iter().any(|value| !value.is_finite())
        || (0..layout.n_tasks()).any(|task| is_small(triangle, layout, segment, task) && !is_base(task + 1))
}

fn is_small(triangle: &[f64], layout: &ChunkLayout, segment: usize, task: usize) -> bool {
    triangle[triangle_len(task) + task] < layout.segments[segment].n_rows as f64 * DOUBTFUL
}

/// What a second look at a block tells.
pub(super) enum SecondLook {
    /// Its matrix is right: what looked small has not moved.
    Right,
    /// The matrix in f64, packed.
    Exact(Vec<f64>),
    /// A delta is not finite.
    NotFinite,
}

/// Looks at one segment of a doubtful chunk again.
pub(super) fn look_again(triangle: &[f64], chunk: Chunk<'_>, segment: usize) -> SecondLook {
    let n_tasks = chunk.layout.n_tasks();
    let deltas = decode_deltas(chunk, segment, n_tasks);
    if deltas.iter().flatten().any(|delta| !delta.is_finite()) {
        return SecondLook::NotFinite;
    }
    let is_still: Vec<bool> = deltas.iter().map(|rows| rows.iter().all(|delta| *delta == 0.0)).collect();
    let is_right = |task: usize| is_still[task] || !is_small(triangle, chunk.layout, segment, task);
    if triangle.iter().all(|value| value.is_finite()) && (0..n_tasks).all(is_right) {
        return SecondLook::Right;
    }
    let dot = |i: usize, j: usize| match is_still[i] || is_still[j] {
        true => 0.0,
        false => deltas[i].iter().zip(&deltas[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum(),
    };
    SecondLook::Exact((0..n_tasks).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| dot(i, j)).collect())
}
