// decode.wgsl: edits straight from codes, combined in the rotated domain.
//   out_k(x) = [base(x) +] sum_c weight[c, k] * decoded_c(x)      what is in brackets as the params say
// binding 0  params  uniform     DecodeParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk   read        raw bytes: the base's rows; words and scales of the coded columns
// binding 2  slices  read        Slice [n_segments, 1 + 2 n_columns]: the base's rows, then words and scales of each column
// binding 3  runs    read        Run: up to 8 blocks of a panel; start and n_rows are the panel's
// binding 4  book    read        the rates, then u32 [n_columns] numbers of them, then f32 [n_columns, n_outputs] weights
// binding 5  output  read_write  [n_outputs, words_per_output] words, then [n_outputs, n_runs] marks of each dispatch
// dispatch   x: run, y: output
// numerics   f32, columns in order, in the order of the CPU's steps: the same bits unless a product and a sum are rounded
//            together; a column of weight 0 is left out. Scales and sums below 2^-126 may be taken for zeros. 16-bit results are
//            rounded to nearest even
//
// Two 16-bit results make a word. They are the same line of neighbouring blocks where the panel has an even number of them.
// In a last panel with an odd number, each result has a word of its own, since two workgroups would meet in one.
//
// Many columns take several dispatches: some drivers end a thread's loops after 65,535 rounds, all of them together.

struct DecodeParams {
    // Coded columns.
    n_columns: u32,
    n_outputs: u32,
    first_run: u32,
    n_runs: u32,
    words_per_output: u32,
    // Word of the output where the marks begin.
    marks: u32,
    stamp: u32,
    // 1 where the base is added to each output.
    add_base: u32,
    // Where in the book the columns' rates and their weights are.
    rates: u32,
    weights: u32,
    // The columns of this dispatch.
    first_column: u32,
    end_column: u32,
    // Word of the output where sums wait for the next dispatch: f32 [n_outputs, n_runs, HELD, THREADS].
    sums_at: u32,
}

@group(0) @binding(0) var<uniform> params: DecodeParams;
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

// ---- Blocks and codes: the same lines in code.wgsl and decode.wgsl ----
// A panel is up to 4096 rows seen as 256 lines of k elements; column j of it is block j. A workgroup has 8 neighbouring blocks
// of one panel: thread t works on block t mod 8 of them and holds 32 of its lines, either those with line mod 8 = t / 8
// ("apart") or those from 32 (t / 8) on ("together"). Blocks beyond the panel's last one are zeros that nobody keeps.
const THREADS: u32 = 64u;
const BLOCKS: u32 = 8u;
const LINES: u32 = 256u;
const HELD: u32 = 32u;
alias Held = array<f32, HELD>;
alias HeldWords = array<u32, HELD>;

// The ten rates, n_planes, n_lines, n_words and levels of each: the levels themselves from word `levels` of the book on, then
// the bounds between them where they are searched for; then what the work has to add.
@group(0) @binding(4) var<storage, read> book: array<u32>;

// How the elements of a block are coded.
struct Rate {
    // Bits of an index; 0 where indices are digits of three values.
    n_planes: u32,
    // Lines that are coded.
    n_lines: u32,
    // Words of a block.
    n_words: u32,
    // Where in the book its levels are.
    levels: u32,
}

// Which lines a part of them is: line j of the part is line (first + j * step) mod 256. `inverse` times `step` is 1.
struct Part {
    first: u32,
    step: u32,
    inverse: u32,
}

// The 256 lines of 8 blocks, bits of floats or integers, on their way from thread to thread.
var<workgroup> memory: array<u32, 2112>;

// The levels of the rate at hand, then the bounds between them where they are searched for: threads want different ones at the
// same time, which is slow from a buffer.
var<workgroup> shelf: array<f32, 128>;

// Neighbouring blocks lie beside each other; 8 words are left out after every 32 lines, so that threads that hold lines
// together hit different banks.
fn place_of(line: u32, block: u32) -> u32 {
    return BLOCKS * (line + line / HELD) + block;
}

fn mix(value: u32) -> u32 {
    var x = value;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// 32 signs of a panel: lines of one block. 1 means minus.
fn sign_word(key: u32, word: u32) -> u32 {
    return mix(key + word * 0x9e3779b9u);
}

fn part_of(key: u32) -> Part {
    // A word that no element's sign comes from.
    let word = sign_word(key, 128u);
    let step = ((word >> 8u) & 0xffu) | 1u;
    // Newton's steps: each doubles the bits that are right, of which an odd number has three.
    var inverse = step;
    inverse *= 2u - step * inverse;
    inverse *= 2u - step * inverse;
    return Part(word & 0xffu, step, inverse & 0xffu);
}

// Where in the part a line is; from n_lines on, it is not.
fn place_in_part(part: Part, line: u32) -> u32 {
    return ((line - part.first) * part.inverse) & 0xffu;
}

fn blocks_of(run: Run) -> u32 {
    return (run.n_rows + LINES - 1u) / LINES;
}

fn rate_of(number: u32) -> Rate {
    let at = 4u * number;
    return Rate(book[at], book[at + 1u], book[at + 2u], book[at + 3u]);
}

fn n_levels(rate: Rate) -> u32 {
    return select(1u << (max(rate.n_planes, 1u) - 1u), 2u, rate.n_planes == 0u);
}

// Puts a rate's levels on the shelf.
fn open_book(rate: Rate, thread: u32) {
    let n = n_levels(rate);
    let n_words = select(n, 2u * n - 1u, rate.n_planes <= 4u);
    workgroupBarrier();
    for (var at = thread; at < n_words; at += THREADS) {
        shelf[at] = bitcast<f32>(book[rate.levels + at]);
    }
    // What a line that is not coded decodes to: parts have one level.
    if (n_words == 1u && thread == 0u) {
        shelf[1] = 0.0;
    }
    workgroupBarrier();
}

fn scale_from_bits(bits: u32) -> f32 {
    return bitcast<f32>(bits << 15u);
}

// value, minus where the lowest bit of `minus` is 1.
fn with_sign(value: f32, minus: u32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) ^ (minus << 31u));
}

// A stage of the transform, over held lines `distance` places apart.
fn stage(values: ptr<function, Held>, distance: u32) {
    for (var pair = 0u; pair < HELD / 2u; pair += 1u) {
        let low = pair & (distance - 1u);
        let i = 2u * (pair - low) + low;
        let a = (*values)[i];
        let b = (*values)[i + distance];
        (*values)[i] = a + b;
        (*values)[i + distance] = a - b;
    }
}

// The Walsh-Hadamard transform of every block, unnormalised, in the natural order. Lines come apart and leave together. The
// stages are in the order of the CPU's, the farthest first.
fn transform(values: ptr<function, Held>, thread: u32) {
    let block = thread % BLOCKS;
    let slot = thread / BLOCKS;
    stage(values, 16u);
    stage(values, 8u);
    stage(values, 4u);
    stage(values, 2u);
    stage(values, 1u);
    workgroupBarrier();
    for (var j = 0u; j < HELD; j += 1u) {
        memory[place_of(slot + BLOCKS * j, block)] = bitcast<u32>((*values)[j]);
    }
    workgroupBarrier();
    for (var q = 0u; q < HELD; q += 1u) {
        (*values)[q] = bitcast<f32>(memory[place_of(HELD * slot + q, block)]);
    }
    stage(values, 4u);
    stage(values, 2u);
    stage(values, 1u);
}

// What held lines decode to, together, before the scale; the rate's book is open. `first` is the word where the panel's codes
// begin: its words lie [word, block], of n_blocks blocks.
fn levels_of(rate: Rate, first: u32, n_blocks: u32, block: u32, part: Part, thread: u32, levels: ptr<function, Held>) {
    let slot = thread / BLOCKS;
    // The number of each one's level; its sign is bit 7.
    var cells: HeldWords;
    if (rate.n_planes > 0u && rate.n_lines == LINES) {
        let signs = code_word(first + slot * n_blocks + block);
        for (var q = 0u; q < HELD; q += 1u) {
            cells[q] = 0u;
        }
        // A plane at a time, the highest bit first.
        for (var plane = 1u; plane < rate.n_planes; plane += 1u) {
            let word = code_word(first + (plane * BLOCKS + slot) * n_blocks + block);
            for (var q = 0u; q < HELD; q += 1u) {
                cells[q] = 2u * cells[q] + ((word >> q) & 1u);
            }
        }
        for (var q = 0u; q < HELD; q += 1u) {
            cells[q] |= ((signs >> q) & 1u) << 7u;
        }
    } else {
        // Digits and parts of the lines. By way of this thread's own places in memory, so that the loop over lines stays one:
        // it would be long where compilers unroll it.
        for (var line = HELD * slot; line < HELD * slot + HELD; line += 1u) {
            memory[place_of(line, thread % BLOCKS)] = rare_cell(rate, line, first, n_blocks, block, part);
        }
        for (var q = 0u; q < HELD; q += 1u) {
            cells[q] = memory[place_of(HELD * slot + q, thread % BLOCKS)];
        }
    }
    for (var q = 0u; q < HELD; q += 1u) {
        (*levels)[q] = with_sign(shelf[cells[q] & 0x7fu], cells[q] >> 7u);
    }
}

// The cell of a line where elements are digits or few lines are coded. Behind the one level of a part there is a zero.
fn rare_cell(rate: Rate, line: u32, first: u32, n_blocks: u32, block: u32, part: Part) -> u32 {
    let is_digit = rate.n_planes == 0u;
    let at = select(place_in_part(part, line), line, is_digit);
    let is_coded = at < rate.n_lines;
    let word_at = select(0u, select(at / HELD, at / 20u, is_digit), is_coded);
    let word = code_word(first + word_at * n_blocks + block);
    let byte = (word >> (at % 20u / 5u * 8u)) & 0xffu;
    let digit = ((byte * inverse_power_of_three(at % 5u)) >> 16u) % 3u;
    let of_digit = select(0u, select(1u, 0x81u, digit == 2u), digit != 0u);
    let of_part = select(1u, ((word >> (at % HELD)) & 1u) << 7u, is_coded);
    return select(of_part, of_digit, is_digit);
}

// 65536 / 3^n, rounded up: a byte times this, without its last 16 bits, is the byte divided by 3^n, rounded down.
fn inverse_power_of_three(n: u32) -> u32 {
    let low = select(65536u, 21846u, n == 1u);
    let high = select(select(7282u, 2428u, n == 3u), 810u, n == 4u);
    return select(low, high, n >= 2u);
}
// ---- End of blocks and codes ----

// A word of a column's codes.
fn code_word(at: u32) -> u32 {
    return chunk[at];
}

fn store_alone(run: Run, at: u32, value: f32) {
    if (run.dtype == F32) {
        output[at] = bitcast<u32>(value);
    } else if (run.dtype == F16) {
        output[at] = to_f16(value);
    } else {
        output[at] = to_bf16(value);
    }
}

fn round_pair(run: Run, values: vec2<f32>) -> u32 {
    if (run.dtype == F16) {
        return to_f16(values.x) | (to_f16(values.y) << 16u);
    }
    return to_bf16(values.x) | (to_bf16(values.y) << 16u);
}

// The sums transformed back, with their signs, on the base, rounded and stored.
fn finish(run: Run, output_index: u32, thread: u32, sums: ptr<function, Held>) {
    let n_blocks = blocks_of(run);
    let slot = thread / BLOCKS;
    let block = min(run.first_block + thread % BLOCKS, n_blocks - 1u);

    // Back: lines apart, transformed, with their signs.
    workgroupBarrier();
    for (var q = 0u; q < HELD; q += 1u) {
        memory[place_of(HELD * slot + q, thread % BLOCKS)] = bitcast<u32>((*sums)[q]);
    }
    workgroupBarrier();
    for (var j = 0u; j < HELD; j += 1u) {
        (*sums)[j] = bitcast<f32>(memory[place_of(slot + BLOCKS * j, thread % BLOCKS)]);
    }
    transform(sums, thread);
    let signs = sign_word(run.key, slot * n_blocks + block);
    workgroupBarrier();
    for (var q = 0u; q < HELD; q += 1u) {
        let value = with_sign((*sums)[q] * (1.0 / f32(LINES)), (signs >> q) & 1u);
        memory[place_of(HELD * slot + q, thread % BLOCKS)] = bitcast<u32>(value);
    }
    workgroupBarrier();

    // Two blocks of a line at a time.
    let is_even = n_blocks % 2u == 0u;
    let base_slice = slices[run.segment * (1u + 2u * params.n_columns)];
    let place = output_index * params.words_per_output + run.place;
    for (var pair = thread; pair < LINES * BLOCKS / 2u; pair += THREADS) {
        let line = pair / (BLOCKS / 2u);
        let first = pair % (BLOCKS / 2u) * 2u;
        let row = line * n_blocks + run.first_block + first;
        let is_there = vec2<bool>(
            run.first_block + first < n_blocks && row < run.n_rows,
            run.first_block + first + 1u < n_blocks && row + 1u < run.n_rows,
        );
        if (is_there.x) {
            let at = place_of(line, first);
            var values = vec2<f32>(bitcast<f32>(memory[at]), bitcast<f32>(memory[at + 1u]));
            if (params.add_base == 1u) {
                let here = run.start + row;
                let next = select(here, here + 1u, is_there.y);
                if (is_even) {
                    values += load_pair(base_slice, here, next);
                } else {
                    values += vec2<f32>(load(base_slice, here), load(base_slice, next));
                }
            }
            if (run.dtype != F32 && is_even) {
                output[place + row / 2u] = round_pair(run, values);
            } else {
                store_alone(run, place + row, values.x);
                if (is_there.y) {
                    store_alone(run, place + row + 1u, values.y);
                }
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.x;
    let run = runs[run_index];
    let n_blocks = blocks_of(run);
    // Threads without a block of their own read the last one's codes, and what they make of them is not stored.
    let block = min(run.first_block + thread % BLOCKS, n_blocks - 1u);
    // Whole panels of the segment lie before this one.
    let blocks_before = run.start / LINES;
    let first_slice = run.segment * (1u + 2u * params.n_columns);
    let part = part_of(run.key);

    let sums_at = params.sums_at + (group.y * params.n_runs + run_index) * HELD * THREADS + thread;
    var sums: Held;
    for (var q = 0u; q < HELD; q += 1u) {
        sums[q] = 0.0;
        if (params.first_column > 0u) {
            sums[q] = bitcast<f32>(output[sums_at + q * THREADS]);
        }
    }
    // The rate whose book is open; none yet.
    var open = 0xffffffffu;
    for (var column = params.first_column; column < params.end_column; column += 1u) {
        let weight = bitcast<f32>(book[params.weights + column * params.n_outputs + group.y]);
        if (weight != 0.0) {
            let number = book[params.rates + column];
            let rate = rate_of(number);
            // All threads, or none: they have the same weights and rates.
            if (number != open) {
                open_book(rate, thread);
                open = number;
            }
            let words = slices[first_slice + 1u + 2u * column].offset_bytes / 4u + rate.n_words * blocks_before;
            let scale_at = slices[first_slice + 2u + 2u * column].offset_bytes + 2u * (blocks_before + block);
            let scale = scale_from_bits((chunk[scale_at / 4u] >> (8u * (scale_at & 2u))) & 0xffffu);
            var levels: Held;
            levels_of(rate, words, n_blocks, block, part, thread, &levels);
            for (var q = 0u; q < HELD; q += 1u) {
                sums[q] += weight * (levels[q] * scale);
            }
        }
    }

    if (params.end_column < params.n_columns) {
        for (var q = 0u; q < HELD; q += 1u) {
            output[sums_at + q * THREADS] = bitcast<u32>(sums[q]);
        }
    } else {
        finish(run, group.y, thread, &sums);
    }
    if (thread == 0u) {
        output[params.marks + group.y * params.n_runs + run_index] = params.stamp;
    }
}
