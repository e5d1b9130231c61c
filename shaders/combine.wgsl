// combine.wgsl: weighted sums of columns, straight from raw bytes into the output format. Two entry points:
//   project      atom_m(x) = sum_t (column_t(x) - base(x)) * encode[t, m]            subtract_base 1, add_base 0
//   reconstruct  out_k(x) = [base(x) +] sum_c column_c(x) [- base(x)] * weight[c, k]    what is in brackets as the params say
// binding 0  params   uniform     CombineParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk    read        raw bytes [n_columns + 1 columns]
// binding 2  slices   read        Slice [n_segments, n_columns + 1]: where the columns lie
// binding 3  runs     read        Run: at most 2 * THREADS rows
// binding 4  weights  read        f32 [ceil(n_outputs / OUTPUTS), n_columns, OUTPUTS], zeros beyond the last output
// binding 5  output   read_write  [n_outputs, words_per_output] words, then marks [n_runs, ceil(n_outputs / OUTPUTS)]
// dispatch   x: OUTPUTS outputs, y: run. Workgroups that read the same rows follow each other: the later ones find them in a cache
// numerics   f32, columns in order; 16-bit results are rounded to nearest even
//
// A thread forms two neighbouring rows of OUTPUTS outputs: two 16-bit results make the word it writes, so no two threads
// share one. Segments start on words in the output. Its sums stay in registers over all columns. All threads want the same
// weights at the same time: one load serves them all, so they need no place in workgroup memory, and nobody waits at a barrier.

// These two and FORMAT below are one variant's: a kernel gets its own values in their place.
// Outputs formed together: 4, 8, 16 or 32.
const OUTPUTS: u32 = 4u;
// 1 where some weight is 0: such a column is left out of the output, as 0 * infinity would be NaN.
const SKIP_ZEROS: u32 = 1u;

const THREADS: u32 = 64u;
// Outputs in fours, and a row of them.
const FOURS: u32 = OUTPUTS / 4u;
alias Sums = array<vec4<f32>, FOURS>;
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
@group(0) @binding(4) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> output: array<u32>;

// ---- The chunk: the same lines in gram.wgsl, combine.wgsl, merge.wgsl, code.wgsl and decode.wgsl ----
// Offsets are multiples of the element size, not of the word: odd lengths of 16-bit tensors put the next one anywhere.

// The format of every slice, each of which starts on a word then; or MIXED, where slices differ or start anywhere.
const FORMAT: u32 = 3u;

const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;
const MIXED: u32 = 3u;
// f32 that is a difference from the base already. Where a column has any, FORMAT is MIXED.
const DELTA: u32 = 4u;
// The same, formed here from factors: the offset is the place of three entries of the table, behind those of all slices.
const LOW_RANK: u32 = 5u;
// 1 where a word holds two elements, whatever the slice.
const PAIRED: u32 = u32(FORMAT == F16 || FORMAT == BF16);

struct Slice {
    offset_bytes: u32,
    dtype: u32,
}

// The columns' bytes as they were read from the files, in whole words.
@group(0) @binding(1) var<storage, read> chunk: array<u32>;
// [n_segments, n_columns]: where each column's rows of each segment lie.
@group(0) @binding(2) var<storage, read> slices: array<Slice>;

// f16 to f32, exactly. (unpack2x16float may flush subnormals, which are common among f16 weights.)
fn from_f16(half: u32) -> f32 {
    let sign = (half & 0x8000u) << 16u;
    let magnitude = (half & 0x7fffu) << 13u;
    let normal = magnitude + (112u << 23u);
    // A subnormal m * 2^-24: put m behind the leading one of 2^-14 and take that one off again.
    let lifted = bitcast<f32>(magnitude | (113u << 23u)) - bitcast<f32>(113u << 23u);
    let finite = select(normal, bitcast<u32>(lifted), magnitude < (1u << 23u));
    // Infinity and NaN: the exponent goes all the way up.
    let all = select(finite, normal + (112u << 23u), magnitude >= (31u << 23u));
    return bitcast<f32>(sign | all);
}

// Element `row` of a matrix that is given by its factors: scale * sum_k left[i, k] * right[k, j].
fn form(entry: u32, row: u32) -> f32 {
    let places = slices[entry];
    let lengths = slices[entry + 1u];
    let rest = slices[entry + 2u];
    let rank = lengths.offset_bytes;
    let n_columns = lengths.dtype;
    let element = rest.offset_bytes + row;
    let left = (places.offset_bytes >> 2u) + element / n_columns * rank;
    let right = (places.dtype >> 2u) + element % n_columns;
    var sum = 0.0;
    for (var k = 0u; k < rank; k += 1u) {
        sum += bitcast<f32>(chunk[left + k]) * bitcast<f32>(chunk[right + k * n_columns]);
    }
    return sum * bitcast<f32>(rest.dtype);
}

// Element `row` of a slice, exactly; one that is formed, rounded.
fn load(slice: Slice, row: u32) -> f32 {
    if (FORMAT == MIXED && slice.dtype == LOW_RANK) {
        return form(slice.offset_bytes, row);
    }
    let dtype = select(FORMAT, slice.dtype, FORMAT == MIXED);
    if (dtype == F32 || dtype == DELTA) {
        return bitcast<f32>(chunk[(slice.offset_bytes >> 2u) + row]);
    }
    let byte = slice.offset_bytes + 2u * row;
    let half = (chunk[byte >> 2u] >> ((byte & 2u) * 8u)) & 0xffffu;
    if (dtype == F16) {
        return from_f16(half);
    }
    return bitcast<f32>(half << 16u);
}

// Whether the base is still to be taken off a slice.
fn is_whole(slice: Slice) -> bool {
    return FORMAT != MIXED || slice.dtype < DELTA;
}

// Elements `row`, which is even, and `next`, which is the one behind it or `row` again. Where PAIRED, always the one behind
// it: beyond the slice's end that is what its last word is filled up with.
fn load_pair(slice: Slice, row: u32, next: u32) -> vec2<f32> {
    if (PAIRED == 0u) {
        return vec2<f32>(load(slice, row), load(slice, next));
    }
    let word = chunk[(slice.offset_bytes >> 2u) + (row >> 1u)];
    if (FORMAT == F16) {
        return vec2<f32>(from_f16(word & 0xffffu), from_f16(word >> 16u));
    }
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

// One workgroup's rows.
struct Run {
    segment: u32,
    // First row within the segment; even.
    start: u32,
    n_rows: u32,
    // Where the first row's result goes in each output, in words (project, reconstruct, decode); blocks before the panel (code).
    place: u32,
    // Format of the result (project, reconstruct, decode).
    dtype: u32,
    // First of its blocks within the panel whose rows these are (code, decode).
    first_block: u32,
    // Where that panel's signs come from (code, decode).
    key: u32,
}

// The runs of a chunk.
@group(0) @binding(3) var<storage, read> runs: array<Run>;
// ---- End of the chunk ----

// ---- Rounding: the same lines in combine.wgsl, merge.wgsl and decode.wgsl ----
// f32 to bf16, to nearest even. On bits alone, so that no fast-math setting can change it.
fn to_bf16(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    let nan = (bits >> 16u) | 0x40u;
    return select(rounded, nan, (bits & 0x7fffffffu) > 0x7f800000u);
}

// f32 to f16, to nearest even; beyond the range, infinity. (pack2x16float leaves both open.)
fn to_f16(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    let exponent = magnitude >> 23u;
    // Normal results: take the difference of the biases off the exponent, then round away 13 bits.
    let normal = (magnitude - (112u << 23u) + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u;
    // Subnormal results: shift the mantissa, leading one and all, down to units of 2^-24, rounding what falls off.
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let shift = min(126u - min(exponent, 126u), 25u);
    let kept = mantissa >> shift;
    let cut = mantissa & ((1u << shift) - 1u);
    let half = (1u << shift) >> 1u;
    let up = select(0u, 1u, cut > half || (cut == half && (kept & 1u) == 1u));
    let small = select(kept + up, 0u, exponent < 101u);
    let finite = select(normal, small, magnitude < (113u << 23u));
    let bounded = select(finite, 0x7c00u, magnitude >= 0x477ff000u);
    let nan = 0x7e00u | ((magnitude >> 13u) & 0x3ffu);
    return sign | select(bounded, nan, magnitude > 0x7f800000u);
}
// ---- End of rounding ----

fn store(run: Run, k: u32, pair: u32, values: vec2<f32>) {
    if (k >= params.n_outputs) {
        return;
    }
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

fn add(sums: vec4<f32>, value: f32, weight: vec4<f32>) -> vec4<f32> {
    let more = sums + value * weight;
    return select(more, sums, vec4<bool>(SKIP_ZEROS == 1u) & (weight == vec4<f32>(0.0)));
}

fn combine(group: vec3<u32>, thread: u32) {
    let run_index = params.first_run + group.y;
    let run = runs[run_index];
    let first_slice = run.segment * (params.n_columns + 1u);
    // Threads without rows of their own form the last ones again. An odd last row is formed twice and stored once.
    let pair = min(thread, (run.n_rows - 1u) / 2u);
    let row = run.start + 2u * pair;
    let next = run.start + min(2u * pair + 1u, run.n_rows - 1u);
    let base = load_pair(slices[first_slice], row, next);
    let start = select(vec2<f32>(0.0), base, params.add_base == 1u);
    var sums: Sums;
    var next_sums: Sums;
    for (var k = 0u; k < FOURS; k += 1u) {
        sums[k] = vec4<f32>(start.x);
        next_sums[k] = vec4<f32>(start.y);
    }
    for (var column = 0u; column < params.n_columns; column += TOGETHER) {
        var values: array<vec2<f32>, TOGETHER>;
        for (var c = 0u; c < TOGETHER; c += 1u) {
            // Beyond the last column, that one is read again and not used.
            let slice = slices[first_slice + 1u + min(column + c, params.n_columns - 1u)];
            let stored = load_pair(slice, row, next);
            values[c] = select(stored, stored - base, params.subtract_base == 1u && is_whole(slice));
        }
        for (var c = 0u; c < TOGETHER; c += 1u) {
            if (column + c < params.n_columns) {
                let place = (group.x * params.n_columns + column + c) * FOURS;
                for (var k = 0u; k < FOURS; k += 1u) {
                    let weight = weights[place + k];
                    sums[k] = add(sums[k], values[c].x, weight);
                    next_sums[k] = add(next_sums[k], values[c].y, weight);
                }
            }
        }
    }
    if (2u * thread < run.n_rows) {
        for (var k = 0u; k < FOURS; k += 1u) {
            let first = group.x * OUTPUTS + 4u * k;
            store(run, first, pair, vec2<f32>(sums[k].x, next_sums[k].x));
            store(run, first + 1u, pair, vec2<f32>(sums[k].y, next_sums[k].y));
            store(run, first + 2u, pair, vec2<f32>(sums[k].z, next_sums[k].z));
            store(run, first + 3u, pair, vec2<f32>(sums[k].w, next_sums[k].w));
        }
    }
    if (thread == 0u) {
        let n_groups = (params.n_outputs + OUTPUTS - 1u) / OUTPUTS;
        output[params.marks + run_index * n_groups + group.x] = params.stamp;
    }
}

@compute @workgroup_size(THREADS)
fn project(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    combine(group, thread);
}

@compute @workgroup_size(THREADS)
fn reconstruct(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    combine(group, thread);
}
