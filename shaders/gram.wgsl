// gram.wgsl: the inner products of one run of rows.
//   partial[run, i, j] = sum_x delta_i(x) * delta_j(x)      for j <= i, delta_t = column_t - base
// binding 0  params  uniform     GramParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk   read        raw bytes [n_tasks + 1 columns]
// binding 2  slices  read        Slice [n_segments, n_tasks + 1]: where the columns lie
// binding 3  runs    read        Run
// binding 5  output  read_write  f32 [n_runs, n_values] packed lower triangles, then a mark for each workgroup
// dispatch   x: run, y: pair of task tiles (lower triangle of tiles)
// numerics   f32 within a run; threads that share a product each sum their own rows, then one adds those in order
//
// A tile of TILE tasks by STAGE_ROWS rows is decoded into workgroup memory; each thread then sums a BLOCK x BLOCK block
// of products in registers. Few tasks make few blocks, so several threads ("lanes") share a block and split the rows.
// Task `block + entry * BLOCKS` belongs to a block: neighbours in memory go to neighbouring threads.

// These four and FORMAT below are one variant's: a kernel gets its own values in their place.
// Tasks of a tile: a multiple of BLOCK, at most 8 blocks.
const TILE: u32 = 8u;
// Tasks of a block, either way: 4 or 8.
const BLOCK: u32 = 8u;
// Rows decoded at a time: a power of two.
const STAGE_ROWS: u32 = 128u;
// 2 where there is more than one tile, else 1: tiles held at a time.
const TILES_HELD: u32 = 1u;

const THREADS: u32 = 64u;
// Products that a thread sums in registers.
const SUMS: u32 = BLOCK * BLOCK;
const BLOCKS: u32 = TILE / BLOCK;
// Rows that a thread decodes at a time, and the threads that decode neighbouring rows of one task.
const STEP_ROWS: u32 = 1u + PAIRED;
const STEP_THREADS: u32 = min(STAGE_ROWS / STEP_ROWS, THREADS);
// One float more than a row of the tile, so that threads on successive rows hit different banks.
const STRIDE: u32 = TILE + 1u;
const TILE_WORDS: u32 = STAGE_ROWS * STRIDE;
// Lanes are added up in parts of at most 32 values a thread; again a stride that is odd.
const PART: u32 = min(SUMS, 32u);
const LANE_STRIDE: u32 = THREADS + 1u;
const MEMORY_WORDS: u32 = max(TILES_HELD * TILE_WORDS, PART * LANE_STRIDE);

struct GramParams {
    n_tasks: u32,
    n_values: u32,
    first_run: u32,
    n_tile_pairs: u32,
    // Word of the output where the marks begin.
    marks: u32,
    stamp: u32,
}

@group(0) @binding(0) var<uniform> params: GramParams;
@group(0) @binding(5) var<storage, read_write> output: array<u32>;

// ---- The chunk: the same lines in gram.wgsl, combine.wgsl, code.wgsl and decode.wgsl ----
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

// The staged tiles while rows are read, the lanes' sums afterwards.
var<workgroup> memory: array<f32, MEMORY_WORDS>;

// Row of the lower triangle that entry `at` lies in.
fn triangle_row(at: u32) -> u32 {
    var row = 0u;
    while ((row + 1u) * (row + 2u) / 2u <= at) {
        row += 1u;
    }
    return row;
}

// Decodes rows start.. of the tasks first.. into memory[place..]; beyond the last row or task, zeros.
fn stage(run: Run, start: u32, first: u32, place: u32, thread: u32) {
    let step_of_thread = thread % STEP_THREADS;
    let group = thread / STEP_THREADS;
    let n_groups = THREADS / STEP_THREADS;
    let first_slice = run.segment * (params.n_tasks + 1u);
    for (var step = step_of_thread; step < STAGE_ROWS / STEP_ROWS; step += STEP_THREADS) {
        let row = step * STEP_ROWS;
        // Out of range, the run's last rows are read and not used.
        let last = run.n_rows - 1u;
        let inside = vec2<bool>(start + row <= last, start + row + 1u <= last);
        let at = min(start + row, last - last % STEP_ROWS);
        let here = run.start + at;
        let next = run.start + min(at + 1u, last);
        let base = load_step(slices[first_slice], here, next);
        for (var task = group; task < TILE; task += n_groups) {
            let column = min(first + task, params.n_tasks - 1u) + 1u;
            let slice = slices[first_slice + column];
            let delta = load_step(slice, here, next) - select(vec2<f32>(0.0), base, is_whole(slice));
            let wanted = inside & vec2<bool>(first + task < params.n_tasks);
            memory[place + row * STRIDE + task] = select(0.0, delta.x, wanted.x);
            if (STEP_ROWS == 2u) {
                memory[place + (row + 1u) * STRIDE + task] = select(0.0, delta.y, wanted.y);
            }
        }
    }
}

// The rows of a step: two where a word holds both, else the first alone.
fn load_step(slice: Slice, here: u32, next: u32) -> vec2<f32> {
    if (STEP_ROWS == 2u) {
        return load_pair(slice, here, next);
    }
    return vec2<f32>(load(slice, here), 0.0);
}

@compute @workgroup_size(THREADS)
fn gram(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.x;
    let run = runs[run_index];
    let tile_i = triangle_row(group.y);
    let tile_j = group.y - tile_i * (tile_i + 1u) / 2u;
    let diagonal = tile_i == tile_j;

    // On the diagonal the blocks above it would repeat those below.
    let n_positions = select(BLOCKS * BLOCKS, BLOCKS * (BLOCKS + 1u) / 2u, diagonal);
    let n_lanes = THREADS / n_positions;
    let position = thread / n_lanes;
    let lane = thread % n_lanes;
    let busy = position < n_positions;
    let triangle = triangle_row(position);
    let block_i = select(position / BLOCKS, triangle, diagonal);
    let block_j = select(position % BLOCKS, position - triangle * (triangle + 1u) / 2u, diagonal);
    let right_tile = select(TILE_WORDS * (TILES_HELD - 1u), 0u, diagonal);

    var sums: array<f32, SUMS>;
    for (var k = 0u; k < SUMS; k += 1u) {
        sums[k] = 0.0;
    }
    for (var start = 0u; start < run.n_rows; start += STAGE_ROWS) {
        workgroupBarrier();
        stage(run, start, tile_i * TILE, 0u, thread);
        if (!diagonal) {
            stage(run, start, tile_j * TILE, right_tile, thread);
        }
        workgroupBarrier();
        if (busy) {
            for (var row = lane; row < STAGE_ROWS; row += n_lanes) {
                var right: array<f32, BLOCK>;
                for (var b = 0u; b < BLOCK; b += 1u) {
                    right[b] = memory[right_tile + row * STRIDE + block_j + b * BLOCKS];
                }
                for (var a = 0u; a < BLOCK; a += 1u) {
                    let left = memory[row * STRIDE + block_i + a * BLOCKS];
                    for (var b = 0u; b < BLOCK; b += 1u) {
                        sums[a * BLOCK + b] += left * right[b];
                    }
                }
            }
        }
    }

    // Add up the lanes, PART products of every block at a time.
    for (var part = 0u; part < SUMS / PART; part += 1u) {
        workgroupBarrier();
        for (var k = 0u; k < PART; k += 1u) {
            memory[k * LANE_STRIDE + thread] = sums[part * PART + k];
        }
        workgroupBarrier();
        for (var value = thread; value < PART * n_positions; value += THREADS) {
            let k = value % PART;
            let at = value / PART;
            var sum = 0.0;
            for (var other = 0u; other < n_lanes; other += 1u) {
                sum += memory[k * LANE_STRIDE + at * n_lanes + other];
            }
            let entry = part * PART + k;
            let triangle_at = triangle_row(at);
            let at_i = select(at / BLOCKS, triangle_at, diagonal);
            let at_j = select(at % BLOCKS, at - triangle_at * (triangle_at + 1u) / 2u, diagonal);
            let i = tile_i * TILE + at_i + (entry / BLOCK) * BLOCKS;
            let j = tile_j * TILE + at_j + (entry % BLOCK) * BLOCKS;
            // Within a diagonal block both halves are there: keep the lower one.
            let wanted = i < params.n_tasks && j < params.n_tasks && !(diagonal && at_i == at_j && j > i);
            if (wanted) {
                let low = min(i, j);
                let high = max(i, j);
                output[group.x * params.n_values + high * (high + 1u) / 2u + low] = bitcast<u32>(sum);
            }
        }
    }
    if (thread == 0u) {
        output[params.marks + group.x * params.n_tile_pairs + group.y] = params.stamp;
    }
}
