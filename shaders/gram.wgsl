// gram.wgsl: the inner products of one run of rows.
//   partial[run, i, j] = sum_x delta_i(x) * delta_j(x)      for j <= i, delta_t = column_t - base
// binding 0  params  uniform     GramParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk   read        raw bytes [n_tasks + 1 columns], in words
// binding 2  slices  read        Slice [n_segments, n_tasks + 1]: where the columns lie
// binding 3  runs    read        Run
// binding 5  output  read_write  f32 [n_runs, n_values] packed lower triangles, then a mark for each workgroup
// binding 6  loads   read        the chunk again, 16 bytes at a time
// dispatch   x: pair of task tiles (lower triangle of tiles), y: run; so neighbours read the same rows
// numerics   f32 within a run; threads that share a product each sum their own rows, then one adds those in order;
//            at most 256 additions to a sum
//
// A tile of TILE tasks by QUADS fours of rows is decoded into workgroup memory, four rows of a task in each vector. A thread
// sums a BLOCK x BLOCK block of products in registers: one or four matrices of 4 x 4. Few tasks make few blocks, so several
// threads ("lanes") share a block and split the rows. Task `block + entry * BLOCKS` belongs to a block: neighbours in
// memory go to neighbouring threads.
//
// The sums are named variables, for compilers keep an array in registers only where they unroll every loop over it: as
// array<f32, 64> with a loop that clears it, AMD's made 7,000 instructions of this where 900 do.

// These four and FORMAT below are one variant's: a kernel gets its own values in their place.
// Tasks of a tile: a multiple of BLOCK, at most 8 blocks.
const TILE: u32 = 8u;
// Tasks of a block, either way: 4 or 8.
const BLOCK: u32 = 4u;
// Fours of rows decoded at a time: even.
const QUADS: u32 = 32u;
// 2 where there is more than one tile, else 1: tiles held at a time.
const TILES_HELD: u32 = 1u;

const THREADS: u32 = 64u;
const BLOCKS: u32 = TILE / BLOCK;
const HALVES: u32 = BLOCK / 4u;
// Lanes of a block, at most: what they have summed is added up one after another.
const MOST_LANES: u32 = 16u;
// Fours of rows that 16 bytes hold (where slices differ, four rows are loaded one by one), and such loads of a task.
const LOAD_QUADS: u32 = 1u + PAIRED;
const LOADS: u32 = QUADS / LOAD_QUADS;
// Threads that load neighbouring rows of one task (the largest power of two that divides LOADS, and 32 at most), the groups of
// them, and how many tasks each loads.
const WIDTH: u32 = min(LOADS & (~LOADS + 1u), 32u);
const GROUPS: u32 = THREADS / WIDTH;
const STEPS: u32 = (TILE + GROUPS - 1u) / GROUPS;
// Vectors from one task to the next: odd, so that threads on neighbouring tasks hit different banks.
const STRIDE: u32 = QUADS | 1u;
const TILE_VECTORS: u32 = TILE * STRIDE;
// A thread's matrix takes four vectors when lanes are added up.
const MEMORY_VECTORS: u32 = max(TILES_HELD * TILE_VECTORS, 4u * THREADS);
const PLACES: u32 = 1u + TILES_HELD * TILE;

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
@group(0) @binding(6) var<storage, read> loads: array<vec4<u32>>;

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

// The staged tiles while rows are read, the lanes' sums afterwards.
var<workgroup> memory: array<vec4<f32>, MEMORY_VECTORS>;
// The slices of the run's segment: the base's, then those of the tiles' tasks.
var<workgroup> places: array<Slice, PLACES>;

// Row of the lower triangle that entry `at` lies in.
fn triangle_row(at: u32) -> u32 {
    var row = 0u;
    while ((row + 1u) * (row + 2u) / 2u <= at) {
        row += 1u;
    }
    return row;
}

// Two rows that are stored in 16 bits.
fn two_rows(word: u32, dtype: u32) -> vec2<f32> {
    if (dtype == F16) {
        return vec2<f32>(from_f16(word & 0xffffu), from_f16(word >> 16u));
    }
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

// Four rows of a slice that may have any format and start anywhere. Where it starts on 16 bytes, as staged ones do, with one load:
// beyond its end it is filled up with something. Elsewhere, and where they are formed, one by one, and row `last` stands in for
// those beyond it.
fn fetch_mixed(slice: Slice, row: u32, last: u32) -> vec4<f32> {
    let together = slice.dtype != LOW_RANK && (slice.offset_bytes & 15u) == 0u;
    var rows: vec4<f32>;
    if (together) {
        let is_whole_words = slice.dtype == F32 || slice.dtype == DELTA;
        let words = loads[(slice.offset_bytes >> 4u) + row / select(8u, 4u, is_whole_words)];
        let pairs = select(words.xy, words.zw, (row & 4u) != 0u);
        let halves = vec4<f32>(two_rows(pairs.x, slice.dtype), two_rows(pairs.y, slice.dtype));
        rows = select(halves, bitcast<vec4<f32>>(words), is_whole_words);
    }
    let n_alone = select(4u, 0u, together);
    for (var k = 0u; k < n_alone; k += 1u) {
        rows[k] = load(slice, min(row + k, last));
    }
    return rows;
}

// Four rows of a slice or, of one with two rows a word, eight, from `row` on, which is a multiple of that. Beyond the
// slice's end its last 16 bytes are filled up with something.
fn fetch(slice: Slice, row: u32, last: u32) -> vec4<u32> {
    if (FORMAT == MIXED) {
        return bitcast<vec4<u32>>(fetch_mixed(slice, row, last));
    }
    return loads[(slice.offset_bytes >> 4u) + row / (4u * LOAD_QUADS)];
}

// The first four of the rows that were fetched.
fn first_four(fetched: vec4<u32>) -> vec4<f32> {
    if (PAIRED == 0u) {
        return bitcast<vec4<f32>>(fetched);
    }
    return vec4<f32>(two_rows(fetched.x, FORMAT), two_rows(fetched.y, FORMAT));
}

// The other four, where there are eight.
fn last_four(fetched: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(two_rows(fetched.z, FORMAT), two_rows(fetched.w, FORMAT));
}

// What a thread has fetched of the base, and where that belongs.
struct Fetched {
    base: vec4<u32>,
    // Rows of the run from its first row on.
    n_left: u32,
    // Vector of the memory where they go, but for the task.
    to: u32,
}

// Puts one task's rows into the memory: less the base, and zeros beyond the run's end.
fn put(at: Fetched, rows: vec4<u32>, task: u32, slice: Slice) {
    let whole = is_whole(slice);
    let to = at.to + task * STRIDE;
    let four = first_four(rows) - select(vec4<f32>(0.0), first_four(at.base), whole);
    memory[to] = select(vec4<f32>(0.0), four, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(at.n_left));
    if (PAIRED == 1u) {
        let other = last_four(rows) - last_four(at.base);
        memory[to + 1u] = select(vec4<f32>(0.0), other, vec4<u32>(4u, 5u, 6u, 7u) < vec4<u32>(at.n_left));
    }
}

// Whether a thread has a task in its step `step`: all have but in the last, where tasks do not go into groups evenly. Not to be
// asked elsewhere: compilers move a load behind the question, where it waits until those before it have come.
fn has_task(group: u32, step: u32) -> bool {
    return step < STEPS && ((step + 1u) * GROUPS <= TILE || group + step * GROUPS < TILE);
}

// The slice of a thread's task in its step `step`; where it has none, the tile's last one's.
fn place_of(first_place: u32, group: u32, step: u32) -> Slice {
    let task = group + step * GROUPS;
    return places[first_place + select(min(task, TILE - 1u), task, (step + 1u) * GROUPS <= TILE)];
}

// Decodes QUADS fours of rows from the run's row `start` on of tile `held` into the memory. A thread fetches a row of all its tasks
// before it uses the first, so that they come together: up to eight and the base. Places are read before anything is
// put into the memory, which a compiler cannot tell from them.
fn stage(run: Run, start: u32, held: u32, thread: u32) {
    let group = thread / WIDTH;
    let first_place = 1u + held * TILE;
    let last = run.n_rows - 1u;
    let run_last = run.start + last;
    let base_slice = places[0];
    var slice_0: Slice;
    var slice_1: Slice;
    var slice_2: Slice;
    var slice_3: Slice;
    var slice_4: Slice;
    var slice_5: Slice;
    var slice_6: Slice;
    var slice_7: Slice;
    if (FORMAT != MIXED) {
        slice_0 = place_of(first_place, group, 0u);
        if (1u < STEPS) {
            slice_1 = place_of(first_place, group, 1u);
        }
        if (2u < STEPS) {
            slice_2 = place_of(first_place, group, 2u);
        }
        if (3u < STEPS) {
            slice_3 = place_of(first_place, group, 3u);
        }
        if (4u < STEPS) {
            slice_4 = place_of(first_place, group, 4u);
        }
        if (5u < STEPS) {
            slice_5 = place_of(first_place, group, 5u);
        }
        if (6u < STEPS) {
            slice_6 = place_of(first_place, group, 6u);
        }
        if (7u < STEPS) {
            slice_7 = place_of(first_place, group, 7u);
        }
    }
    for (var turn = 0u; turn < LOADS / WIDTH; turn += 1u) {
        let load = turn * WIDTH + thread % WIDTH;
        let row = start + load * (4u * LOAD_QUADS);
        // Beyond the run's end its last rows are read and not used.
        let here = run.start + min(row, last - last % (4u * LOAD_QUADS));
        let n_left = run.n_rows - min(row, run.n_rows);
        let base = fetch(base_slice, here, run_last);
        let at = Fetched(base, n_left, held * TILE_VECTORS + load * LOAD_QUADS);
        if (FORMAT == MIXED) {
            // One after another: their branches would not let them come together.
            for (var task = group; task < TILE; task += GROUPS) {
                let slice = places[first_place + task];
                put(at, fetch(slice, here, run_last), task, slice);
            }
            continue;
        }
        let rows_0 = fetch(slice_0, here, run_last);
        var rows_1: vec4<u32>;
        var rows_2: vec4<u32>;
        var rows_3: vec4<u32>;
        var rows_4: vec4<u32>;
        var rows_5: vec4<u32>;
        var rows_6: vec4<u32>;
        var rows_7: vec4<u32>;
        if (1u < STEPS) {
            rows_1 = fetch(slice_1, here, run_last);
        }
        if (2u < STEPS) {
            rows_2 = fetch(slice_2, here, run_last);
        }
        if (3u < STEPS) {
            rows_3 = fetch(slice_3, here, run_last);
        }
        if (4u < STEPS) {
            rows_4 = fetch(slice_4, here, run_last);
        }
        if (5u < STEPS) {
            rows_5 = fetch(slice_5, here, run_last);
        }
        if (6u < STEPS) {
            rows_6 = fetch(slice_6, here, run_last);
        }
        if (7u < STEPS) {
            rows_7 = fetch(slice_7, here, run_last);
        }
        if (has_task(group, 0u)) {
            put(at, rows_0, group, slice_0);
        }
        if (has_task(group, 1u)) {
            put(at, rows_1, group + GROUPS, slice_1);
        }
        if (has_task(group, 2u)) {
            put(at, rows_2, group + 2u * GROUPS, slice_2);
        }
        if (has_task(group, 3u)) {
            put(at, rows_3, group + 3u * GROUPS, slice_3);
        }
        if (has_task(group, 4u)) {
            put(at, rows_4, group + 4u * GROUPS, slice_4);
        }
        if (has_task(group, 5u)) {
            put(at, rows_5, group + 5u * GROUPS, slice_5);
        }
        if (has_task(group, 6u)) {
            put(at, rows_6, group + 6u * GROUPS, slice_6);
        }
        if (has_task(group, 7u)) {
            put(at, rows_7, group + 7u * GROUPS, slice_7);
        }
    }
}

// Four rows of four tasks of a block, a task in each column.
fn four_tasks(at: u32) -> mat4x4<f32> {
    let step = BLOCKS * STRIDE;
    return mat4x4<f32>(memory[at], memory[at + step], memory[at + 2u * step], memory[at + 3u * step]);
}

// Four rows of products onto a column of sums. In small blocks, which wait for memory anyway, first among themselves: a quarter
// of the roundings of the sum for a quarter more instructions. In large ones one after another.
fn add_column(sum: vec4<f32>, rows: mat4x4<f32>, right: vec4<f32>) -> vec4<f32> {
    if (BLOCK == 4u) {
        return sum + (rows[0] * right.x + rows[1] * right.y + rows[2] * right.z + rows[3] * right.w);
    }
    return sum + rows[0] * right.x + rows[1] * right.y + rows[2] * right.z + rows[3] * right.w;
}

// Adds four rows of products to 4 x 4 sums: column of the right task, row of the left one. `rows` is the left tasks' transposed.
fn add(sum: mat4x4<f32>, rows: mat4x4<f32>, right: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        add_column(sum[0], rows, right[0]),
        add_column(sum[1], rows, right[1]),
        add_column(sum[2], rows, right[2]),
        add_column(sum[3], rows, right[3]),
    );
}

// Where a workgroup's results belong.
struct Tiles {
    first_i: u32,
    first_j: u32,
    diagonal: bool,
    n_lanes: u32,
    n_positions: u32,
    // Word of the output where the run's triangle begins.
    triangle: u32,
}

// The block (i, j) at a position; on the diagonal the blocks above it would repeat those below.
fn block_at(position: u32, diagonal: bool) -> vec2<u32> {
    if (diagonal) {
        let row = triangle_row(position);
        return vec2<u32>(row, position - row * (row + 1u) / 2u);
    }
    return vec2<u32>(position / BLOCKS, position % BLOCKS);
}

fn write_sum(tiles: Tiles, i: u32, j: u32, is_twice: bool, sum: f32) {
    // Within a diagonal block both halves are there: keep the lower one.
    if (max(i, j) < params.n_tasks && !(is_twice && j > i)) {
        let low = min(i, j);
        let high = max(i, j);
        output[tiles.triangle + high * (high + 1u) / 2u + low] = bitcast<u32>(sum);
    }
}

// Adds up the lanes' matrices of one of a block's quarters, in order, and writes them. Its tasks are the block's from `entry.x` on
// to the left and from `entry.y` on to the right.
fn finish(tiles: Tiles, sum: mat4x4<f32>, entry: vec2<u32>, thread: u32) {
    workgroupBarrier();
    memory[thread] = sum[0];
    memory[THREADS + thread] = sum[1];
    memory[2u * THREADS + thread] = sum[2];
    memory[3u * THREADS + thread] = sum[3];
    workgroupBarrier();
    for (var item = thread; item < 4u * tiles.n_positions; item += THREADS) {
        let position = item / 4u;
        let column = item % 4u;
        let first = column * THREADS + position * tiles.n_lanes;
        var total = memory[first];
        for (var lane = 1u; lane < tiles.n_lanes; lane += 1u) {
            total += memory[first + lane];
        }
        let block = block_at(position, tiles.diagonal);
        let i = tiles.first_i + block.x + entry.x * BLOCKS;
        let j = tiles.first_j + block.y + (entry.y + column) * BLOCKS;
        let is_twice = tiles.diagonal && block.x == block.y;
        write_sum(tiles, i, j, is_twice, total.x);
        write_sum(tiles, i + BLOCKS, j, is_twice, total.y);
        write_sum(tiles, i + 2u * BLOCKS, j, is_twice, total.z);
        write_sum(tiles, i + 3u * BLOCKS, j, is_twice, total.w);
    }
}

@compute @workgroup_size(THREADS)
fn gram(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run = runs[params.first_run + group.y];
    let tile_i = triangle_row(group.x);
    let tile_j = group.x - tile_i * (tile_i + 1u) / 2u;
    let diagonal = TILES_HELD == 1u || tile_i == tile_j;

    let n_positions = select(BLOCKS * BLOCKS, BLOCKS * (BLOCKS + 1u) / 2u, diagonal);
    let n_lanes = min(THREADS / n_positions, MOST_LANES);
    let position = thread / n_lanes;
    let lane = thread % n_lanes;
    let block = block_at(position, diagonal);
    let right_tile = select(TILE_VECTORS * (TILES_HELD - 1u), 0u, diagonal);

    // Beyond the last task, that one again: its products are not written.
    let first_slice = run.segment * (params.n_tasks + 1u);
    for (var place = thread; place < PLACES; place += THREADS) {
        let of_tile = place - min(place, 1u);
        let first = select(tile_i, tile_j, of_tile >= TILE) * TILE;
        let column = select(min(first + of_tile % TILE, params.n_tasks - 1u) + 1u, 0u, place == 0u);
        places[place] = slices[first_slice + column];
    }

    // Quarters of the block: left half, right half.
    var sum_00: mat4x4<f32>;
    var sum_01: mat4x4<f32>;
    var sum_10: mat4x4<f32>;
    var sum_11: mat4x4<f32>;
    let left_at = block.x * STRIDE;
    let right_at = right_tile + block.y * STRIDE;
    let half_block = 4u * BLOCKS * STRIDE;
    for (var start = 0u; start < run.n_rows; start += 4u * QUADS) {
        workgroupBarrier();
        stage(run, start, 0u, thread);
        if (!diagonal) {
            stage(run, start, 1u, thread);
        }
        workgroupBarrier();
        if (position < n_positions) {
            for (var quad = lane; quad < QUADS; quad += n_lanes) {
                let right_0 = four_tasks(right_at + quad);
                var right_1: mat4x4<f32>;
                if (BLOCK == 8u) {
                    right_1 = four_tasks(right_at + half_block + quad);
                }
                let rows_0 = transpose(four_tasks(left_at + quad));
                sum_00 = add(sum_00, rows_0, right_0);
                if (BLOCK == 8u) {
                    sum_01 = add(sum_01, rows_0, right_1);
                    let rows_1 = transpose(four_tasks(left_at + half_block + quad));
                    sum_10 = add(sum_10, rows_1, right_0);
                    sum_11 = add(sum_11, rows_1, right_1);
                }
            }
        }
    }

    let triangle = group.y * params.n_values;
    let tiles = Tiles(tile_i * TILE, tile_j * TILE, diagonal, n_lanes, n_positions, triangle);
    for (var quarter = 0u; quarter < HALVES * HALVES; quarter += 1u) {
        var sum = sum_00;
        if (quarter == 1u) {
            sum = sum_01;
        } else if (quarter == 2u) {
            sum = sum_10;
        } else if (quarter == 3u) {
            sum = sum_11;
        }
        finish(tiles, sum, 4u * vec2<u32>(quarter / HALVES, quarter % HALVES), thread);
    }
    if (thread == 0u) {
        output[params.marks + group.y * params.n_tile_pairs + group.x] = params.stamp;
    }
}
