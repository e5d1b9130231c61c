//! The decoder of host-side operations: a chunk's rows as numbers, and the task vectors among them.

use tvb_kernels::Chunk;

/// The rows of one segment and one column, as f32: \[n_rows\].
pub fn decode_rows(chunk: Chunk<'_>, segment: usize, column: usize) -> Vec<f32> {
    let slice = chunk.layout.slice(segment, column);
    let n_bytes = chunk.layout.segments[segment].n_rows * slice.dtype.size();
    tvb_kernels::decode(&chunk.bytes[slice.offset..slice.offset + n_bytes], slice.dtype)
}

/// The task vectors τt = θt − θ0 of columns 1 to `n_tasks` over one segment, formed in f32 as the engines do:
/// \[n_tasks\]\[n_rows\].
pub fn decode_deltas(chunk: Chunk<'_>, segment: usize, n_tasks: usize) -> Vec<Vec<f32>> {
    let base = decode_rows(chunk, segment, 0);
    let delta = |task| {
        let mut rows = decode_rows(chunk, segment, task + 1);
        if !chunk.layout.slice(segment, task + 1).is_delta {
            rows.iter_mut().zip(&base).for_each(|(tuned, base)| *tuned -= base);
        }
        rows
    };
    (0..n_tasks).map(delta).collect()
}
