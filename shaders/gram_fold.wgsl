// gram_fold.wgsl: adds up the partial Grams of neighbouring runs of one segment, so that little is read back.
//   folded[fold, v] = sum over the fold's runs of partial[run, v]
// binding 0  params  uniform     FoldParams (crates/tvb-kernels/src/params.rs)
// binding 4  folds   read        Fold
// binding 5  output  read_write  f32: partials [n_runs, n_values] in, folded [n_folds, n_values] out, then marks
// dispatch   x: 64 values, y: fold
// numerics   f32 in two levels of at most 8 additions each: a few roundings, beside the hundreds within a run

struct FoldParams {
    n_values: u32,
    first_fold: u32,
    // Run that the output's first partial belongs to.
    first_run: u32,
    // Words of the output where the folded triangles and their marks begin.
    folded: u32,
    marks: u32,
    stamp: u32,
}

struct Fold {
    first_run: u32,
    n_runs: u32,
}

@group(0) @binding(0) var<uniform> params: FoldParams;
@group(0) @binding(4) var<storage, read> folds: array<Fold>;
@group(0) @binding(5) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(64)
fn gram_fold(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) n_groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let fold = folds[params.first_fold + group.y];
    let value = group.x * 64u + thread;
    if (value < params.n_values) {
        let first = fold.first_run - params.first_run;
        var sum = 0.0;
        for (var eighth = 0u; eighth < fold.n_runs; eighth += 8u) {
            var part = 0.0;
            for (var run = eighth; run < min(eighth + 8u, fold.n_runs); run += 1u) {
                part += bitcast<f32>(output[(first + run) * params.n_values + value]);
            }
            sum += part;
        }
        output[params.folded + group.y * params.n_values + value] = bitcast<u32>(sum);
    }
    if (thread == 0u) {
        output[params.marks + group.y * n_groups.x + group.x] = params.stamp;
    }
}
