// shared/combine.wgsl: one workgroup's rows of out_k(x) = start(x) + sum_c column_c(x) * weight[c, k].
// binding 0  params   uniform     CombineParams (crates/tvb-kernels/src/params.rs)
// binding 4  weights  read        f32 [ceil(n_outputs / OUTPUTS), n_columns, OUTPUTS], zeros beyond the last output
// binding 5  output   read_write  [n_outputs, words_per_output] words, then a mark for each run
// dispatch   x: run
// numerics   f32, columns in order; 16-bit results are rounded to nearest even
//
// A thread forms two neighbouring rows of OUTPUTS outputs at a time: two 16-bit results make the word it writes, so no
// two threads share one. Segments start on words in the output.

#import shared/dtype.wgsl
#import shared/run.wgsl
// Outputs formed together: 4, 8 or 16.
#constant OUTPUTS
// 1 where some weight is 0: such a column is left out of the output, as 0 * infinity would be NaN.
#constant SKIP_ZEROS

const THREADS: u32 = 64u;
// Columns whose loads are on their way at once.
const TOGETHER: u32 = 4u;

struct CombineParams {
    // Columns beside the base.
    n_columns: u32,
    n_outputs: u32,
    first_run: u32,
    words_per_output: u32,
    // Word of the output where the marks begin.
    marks: u32,
    stamp: u32,
    // 1 where the columns are checkpoints, of which the base is taken off.
    subtract_base: u32,
    // 1 where the base is added to each output.
    add_base: u32,
}

@group(0) @binding(0) var<uniform> params: CombineParams;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<u32>;

fn store(run: Run, k: u32, pair: u32, values: vec2<f32>) {
    let place = k * params.words_per_output + run.place;
    if (run.dtype == F32) {
        output[place + 2u * pair] = bitcast<u32>(values.x);
        if (2u * pair + 1u < run.n_rows) {
            output[place + 2u * pair + 1u] = bitcast<u32>(values.y);
        }
    } else if (run.dtype == F16) {
        output[place + pair] = to_f16(values.x) | (to_f16(values.y) << 16u);
    } else {
        output[place + pair] = to_bf16(values.x) | (to_bf16(values.y) << 16u);
    }
}

fn combine(group: u32, thread: u32) {
    let run_index = params.first_run + group;
    let run = runs[run_index];
    let first_slice = run.segment * (params.n_columns + 1u);
    for (var pair = thread; 2u * pair < run.n_rows; pair += THREADS) {
        let row = run.start + 2u * pair;
        // An odd last row is formed twice and stored once.
        let next = run.start + min(2u * pair + 1u, run.n_rows - 1u);
        let base_slice = slices[first_slice];
        let base = load_pair(base_slice, row, next);
        for (var first = 0u; first < params.n_outputs; first += OUTPUTS) {
            let start = select(vec2<f32>(0.0), base, params.add_base == 1u);
            var sums: array<vec2<f32>, OUTPUTS>;
            for (var k = 0u; k < OUTPUTS; k += 1u) {
                sums[k] = start;
            }
            for (var column = 0u; column < params.n_columns; column += TOGETHER) {
                var values: array<vec2<f32>, TOGETHER>;
                for (var c = 0u; c < TOGETHER; c += 1u) {
                    // Beyond the last column, that one is read again and not used.
                    let at = min(column + c, params.n_columns - 1u);
                    let stored = load_pair(slices[first_slice + 1u + at], row, next);
                    values[c] = select(stored, stored - base, params.subtract_base == 1u);
                }
                for (var c = 0u; c < TOGETHER; c += 1u) {
                    if (column + c < params.n_columns) {
                        let weight = first * params.n_columns + (column + c) * OUTPUTS;
                        for (var k = 0u; k < OUTPUTS; k += 1u) {
                            let sum = sums[k] + values[c] * weights[weight + k];
                            sums[k] = select(sum, sums[k], SKIP_ZEROS == 1u && weights[weight + k] == 0.0);
                        }
                    }
                }
            }
            for (var k = 0u; k < OUTPUTS; k += 1u) {
                if (first + k < params.n_outputs) {
                    store(run, first + k, pair, sums[k]);
                }
            }
        }
    }
    if (thread == 0u) {
        output[params.marks + run_index] = params.stamp;
    }
}
