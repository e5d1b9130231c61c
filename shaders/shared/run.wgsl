// shared/run.wgsl: one workgroup's rows.
// binding 3  runs  read  the runs of a chunk, in row order

struct Run {
    segment: u32,
    // First row within the segment; even.
    start: u32,
    n_rows: u32,
    // Where the first row's result goes in each output, in words (project, reconstruct).
    place: u32,
    // Format of the result (project, reconstruct).
    dtype: u32,
}

@group(0) @binding(3) var<storage, read> runs: array<Run>;
