// merge.wgsl: one value from all tasks' values at an element, straight from raw bytes into the output format. Entry point
//   merge        out(x) = base * base(x) + lambda * m(x)      m(x) is what the rule makes of the values that stay
// binding 0  params   uniform     MergeParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk    read        raw bytes [n_tasks + 1 columns]
// binding 2  slices   read        Slice [n_segments, n_tasks + 1]: where the columns lie
// binding 3  runs     read        Run: at most 2 * THREADS rows; the key is the place of the first in its tensor
// binding 4  tasks    read        u32 [n_tasks, TASK_WORDS]: what stays of each task, and its factor and weight
// binding 5  output   read_write  words_per_output words, then marks [n_runs]
// dispatch   y: run
// numerics   f32, tasks in order; 16-bit results are rounded to nearest even. What stays is decided on bits, so it is the same on
//            every device; where a device multiplies and adds in one step, or divides less exactly, a sum that is all but zero
//            may have the other sign, and a last bit may differ
//
// A thread forms two neighbouring rows, as in combine.wgsl. It holds no task's value: each rule reads the columns again as often as
// it goes over them, and finds them in a cache.

const THREADS: u32 = 64u;

// Words of a task in the table: factor, weight, what is kept, then a low and a high edge (bits, first place and place behind the
// last of the equals that stay), or key and chance.
const TASK_WORDS: u32 = 9u;
const KEEP_ALL: u32 = 0u;
const KEEP_BAND: u32 = 1u;
const KEEP_BELOW: u32 = 2u;
const KEEP_RANDOM: u32 = 3u;

// Rules.
const SUM: u32 = 0u;
const ELECTED: u32 = 1u;
const DIVIDED: u32 = 2u;
const ERASED: u32 = 3u;
const NEEDED: u32 = 4u;
const NEEDED_BY: u32 = 5u;
const LARGEST: u32 = 6u;
const LARGEST_FOR: u32 = 7u;

struct MergeParams {
    n_tasks: u32,
    // Run of the first workgroup.
    first_run: u32,
    // Word of the output where the marks begin.
    marks: u32,
    stamp: u32,
    // One of the rules.
    rule: u32,
    // How many tasks must need an element, or the task that the result is for.
    number: u32,
    // A float: lambda of the comparison of what is needed, or the floor of a divisor.
    bound: u32,
    // Floats.
    base: u32,
    lambda: u32,
    // 1 where elements stay by their variance.
    has_variance: u32,
    // An edge of variances.
    variance: u32,
    variance_from: u32,
    variance_to: u32,
}

@group(0) @binding(0) var<uniform> params: MergeParams;
@group(0) @binding(4) var<storage, read> tasks: array<u32>;
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

// A mixing of 32 bits (signs.rs).
fn mix_bits(word: u32) -> u32 {
    var x = word;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// Whether equals of an edge stay at a place.
fn stays_among_equals(first: u32, behind: u32, place: u32) -> bool {
    return first <= place && place < behind;
}

fn is_above(bits: u32, edge: u32, first: u32, behind: u32, place: u32) -> bool {
    return bits > edge || (bits == edge && stays_among_equals(first, behind, place));
}

// What stays of a task's value at a place, times its factor.
fn keep(task: u32, value: f32, place: u32) -> f32 {
    let at = task * TASK_WORDS;
    let kind = tasks[at + 2u];
    let bits = bitcast<u32>(value) & 0x7fffffffu;
    var stays = true;
    if (kind == KEEP_BAND || kind == KEEP_BELOW) {
        stays = is_above(bits, tasks[at + 3u], tasks[at + 4u], tasks[at + 5u], place);
    }
    if (kind == KEEP_BELOW) {
        let high = tasks[at + 6u];
        stays = stays && (bits < high || (bits == high && stays_among_equals(tasks[at + 7u], tasks[at + 8u], place)));
    }
    if (kind == KEEP_RANDOM) {
        stays = mix_bits(tasks[at + 3u] + place * 0x9e3779b9u) < tasks[at + 4u];
    }
    return select(0.0, value * bitcast<f32>(tasks[at]), stays);
}

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

// Two neighbouring rows.
struct Rows {
    first_slice: u32,
    row: u32,
    next: u32,
    // Places in the tensor.
    places: vec2<u32>,
    base: vec2<f32>,
}

// A task's two values, the base taken off.
fn stored(rows: Rows, task: u32) -> vec2<f32> {
    let slice = slices[rows.first_slice + 1u + task];
    let values = load_pair(slice, rows.row, rows.next);
    return select(values, values - rows.base, is_whole(slice));
}

// What stays of them.
fn kept(rows: Rows, task: u32) -> vec2<f32> {
    let values = stored(rows, task);
    return vec2<f32>(keep(task, values.x, rows.places.x), keep(task, values.y, rows.places.y));
}

// Which of two values have the sign that their sums elect; a sum of zero is positive.
fn agree(values: vec2<f32>, sums: vec2<f32>) -> vec2<bool> {
    let zero = vec2<f32>(0.0);
    let below = values < zero;
    let above = values > zero;
    return select(below, above, sums >= zero);
}

fn need(values: vec2<f32>, sums: vec2<f32>) -> vec2<bool> {
    let others = bitcast<f32>(params.bound) * abs(sums - values);
    return abs(values) > others;
}

fn merged(rows: Rows, sums: vec2<f32>) -> vec2<f32> {
    if (params.rule == SUM) {
        return sums;
    }
    var made = vec2<f32>(0.0);
    var counts = vec2<f32>(0.0);
    if (params.rule == NEEDED_BY) {
        return select(made, sums, need(kept(rows, params.number), sums));
    }
    for (var task = 0u; task < params.n_tasks; task += 1u) {
        let values = kept(rows, task);
        let agrees = agree(values, sums);
        let weight = bitcast<f32>(tasks[task * TASK_WORDS + 1u]);
        if (params.rule == NEEDED) {
            counts += select(vec2<f32>(0.0), vec2<f32>(1.0), need(values, sums));
        } else if (params.rule == LARGEST || params.rule == LARGEST_FOR) {
            let is_larger = abs(values) > abs(made);
            made = select(made, values, agrees & is_larger);
        } else {
            let factor = select(1.0, weight, params.rule == ERASED);
            made += select(vec2<f32>(0.0), values * factor, agrees);
            counts += select(vec2<f32>(0.0), vec2<f32>(weight), agrees);
        }
    }
    if (params.rule == DIVIDED) {
        return made / select(counts, vec2<f32>(1.0), counts == vec2<f32>(0.0));
    }
    if (params.rule == ERASED) {
        let divisors = max(counts, vec2<f32>(bitcast<f32>(params.bound)));
        let is_none = counts == vec2<f32>(0.0);
        return select(made / select(divisors, vec2<f32>(1.0), is_none), vec2<f32>(0.0), is_none);
    }
    if (params.rule == NEEDED) {
        return select(vec2<f32>(0.0), sums, counts >= vec2<f32>(f32(params.number)));
    }
    if (params.rule == LARGEST_FOR) {
        return select(vec2<f32>(0.0), made, agree(kept(rows, params.number), sums));
    }
    return made;
}

// Variances over the tasks.
fn variances(rows: Rows, sums: vec2<f32>) -> vec2<f32> {
    let n = f32(params.n_tasks);
    let means = sums / n;
    var squares = vec2<f32>(0.0);
    for (var task = 0u; task < params.n_tasks; task += 1u) {
        let values = kept(rows, task) - means;
        squares += values * values;
    }
    return squares / n;
}

fn store(run: Run, pair: u32, values: vec2<f32>) {
    if (run.dtype == F32) {
        output[run.place + 2u * pair] = bitcast<u32>(values.x);
        if (2u * pair + 1u < run.n_rows) {
            output[run.place + 2u * pair + 1u] = bitcast<u32>(values.y);
        }
    } else if (run.dtype == F16) {
        output[run.place + pair] = to_f16(values.x) | (to_f16(values.y) << 16u);
    } else {
        output[run.place + pair] = to_bf16(values.x) | (to_bf16(values.y) << 16u);
    }
}

@compute @workgroup_size(THREADS)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.y;
    let run = runs[run_index];
    // Threads without rows of their own form the last ones again. An odd last row is formed twice and stored once.
    let pair = min(thread, (run.n_rows - 1u) / 2u);
    var rows: Rows;
    rows.first_slice = run.segment * (params.n_tasks + 1u);
    rows.row = run.start + 2u * pair;
    rows.next = run.start + min(2u * pair + 1u, run.n_rows - 1u);
    rows.places = vec2<u32>(run.key + 2u * pair, run.key + 2u * pair + 1u);
    rows.base = load_pair(slices[rows.first_slice], rows.row, rows.next);
    var sums = vec2<f32>(0.0);
    var faulty = vec2<bool>(false);
    for (var task = 0u; task < params.n_tasks; task += 1u) {
        let values = stored(rows, task);
        faulty = faulty | vec2<bool>(!is_finite(values.x), !is_finite(values.y));
        sums += vec2<f32>(keep(task, values.x, rows.places.x), keep(task, values.y, rows.places.y));
    }
    var made = merged(rows, sums);
    if (params.has_variance == 1u) {
        let found = bitcast<vec2<u32>>(variances(rows, sums));
        let stays_x = is_above(found.x, params.variance, params.variance_from, params.variance_to, rows.places.x);
        let stays_y = is_above(found.y, params.variance, params.variance_from, params.variance_to, rows.places.y);
        made = select(vec2<f32>(0.0), made, vec2<bool>(stays_x, stays_y));
    }
    let edited = rows.base * bitcast<f32>(params.base) + made * bitcast<f32>(params.lambda);
    // A NaN on bits: a constant one is refused by compilers.
    let bits = select(bitcast<vec2<u32>>(edited), vec2<u32>(0x7fc00000u), faulty);
    if (2u * thread < run.n_rows) {
        store(run, pair, bitcast<vec2<f32>>(bits));
    }
    if (thread == 0u) {
        output[params.marks + run_index] = params.stamp;
    }
}
