// code.wgsl: task vectors into a few bits an element. Three entry points, one after another:
//   code       the codes of each task, y = H(signs * (column - base)), and three sums, <y, y>, <y, z> and <z, z>, of what they
//              decode to
//   code_kept  the codes of each shared column, sum_t kept[t, k] * (y_t - decoded_t), where something is kept
//   measure    where something is kept: the last two sums anew, of what the codes of each task and the shared ones decode to
//              together
// binding 0  params  uniform     CodeParams (crates/tvb-kernels/src/params.rs)
// binding 1  chunk   read        raw bytes [n_tasks + 1 columns]
// binding 2  slices  read        Slice [n_segments, n_tasks + 1]: where the columns lie
// binding 3  runs    read        Run: up to 8 blocks of a panel; start and n_rows are the panel's
// binding 4  book    read        the rates, then f32 [n_tasks, n_kept], the kept expressions
// binding 5  output  read_write  words of the tasks' columns, then of the shared ones, of each panel [word, block]; a word for
//                                each scale [n_tasks + n_kept, n_scales]; f32 sums [n_runs, n_tasks, 3]; a mark for each workgroup
// dispatch   x: run, y: task (code, measure) or shared column (code_kept)
// numerics   f32, in the order of the CPU's steps but for parts of the lines, whose magnitudes are added up by words. Divisions
//            and square roots may be a few units off, products and sums may be rounded together: a value on the border of two
//            cells may get the other cell, a scale the next one. Where rotated values or their scale are below 2^-126 they may be
//            taken for zeros; so may what is below that in a block's sums. The three sums are an eighth of those of the run's
//            blocks, so that they are finite where each block's are. What is not finite makes the first one a NaN.
//
// Rotated values are not stored: later entry points form them anew, with the same bits. Many tasks take several dispatches of
// code_kept: some drivers end a thread's loops after 65,535 rounds, all of them together.

struct CodeParams {
    n_tasks: u32,
    n_kept: u32,
    first_run: u32,
    n_runs: u32,
    // Numbers of the rates, in the book.
    rate: u32,
    kept_rate: u32,
    // Words of a task's column and of a shared one, and scales of either.
    words: u32,
    kept_words: u32,
    n_scales: u32,
    // Words of the output where the shared columns, the scales, the sums and this entry point's marks begin.
    kept_at: u32,
    scales_at: u32,
    sums_at: u32,
    marks: u32,
    stamp: u32,
    // Where in the book the kept expressions are.
    kept: u32,
    // The tasks of this dispatch of code_kept.
    first_task: u32,
    end_task: u32,
    // Word of the output where what is lacking waits for the next dispatch: f32 [n_kept, n_runs, HELD, THREADS].
    lacking_at: u32,
}

@group(0) @binding(0) var<uniform> params: CodeParams;
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

// Coefficients of the function whose cells are of one size where there are many: close to erf(a / sqrt(6)).
const COMPAND_1: f32 = 0.278393;
const COMPAND_2: f32 = 0.230389;
const COMPAND_3: f32 = 0.000972;
const COMPAND_4: f32 = 0.078108;
const INV_SQRT_6: f32 = 0.4082483;

// Sums of 16 neighbouring lines, of two kinds.
var<workgroup> parts: array<f32, 256>;

// A word of a column's codes.
fn code_word(at: u32) -> u32 {
    return output[at];
}

// 1 where a value is an infinity or a NaN: by its bits, whatever compilers assume of floats.
fn not_finite(value: f32) -> u32 {
    return u32((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u);
}

// Sums over each block, of two kinds, each thread's of its first and of its last 16 lines. Sixteens are added up in order.
fn block_sums(first: vec2<f32>, second: vec2<f32>, thread: u32) -> vec2<f32> {
    let block = thread % BLOCKS;
    let at = thread / BLOCKS * 2u * BLOCKS + block;
    workgroupBarrier();
    parts[at] = first.x;
    parts[at + BLOCKS] = first.y;
    parts[at + 128u] = second.x;
    parts[at + 128u + BLOCKS] = second.y;
    workgroupBarrier();
    var sums = vec2<f32>(0.0);
    for (var sixteen = block; sixteen < 128u; sixteen += BLOCKS) {
        sums += vec2<f32>(parts[sixteen], parts[128u + sixteen]);
    }
    return sums;
}

// A task's rotated lines, together; 1 where a row that they come from is not finite. `column` 0 is the base.
fn load_rotated(run: Run, column: u32, thread: u32, y: ptr<function, Held>) -> u32 {
    let n_blocks = blocks_of(run);
    let slot = thread / BLOCKS;
    let block = run.first_block + thread % BLOCKS;
    let first_slice = run.segment * (params.n_tasks + 1u);
    let base_slice = slices[first_slice];
    let slice = slices[first_slice + column];
    var bad = 0u;
    var signs = 0u;
    for (var j = 0u; j < HELD; j += 1u) {
        // Four of these lines share a word of signs.
        if (j % 4u == 0u) {
            signs = sign_word(run.key, j / 4u * n_blocks + block) >> slot;
        }
        let row = (slot + BLOCKS * j) * n_blocks + block;
        let is_there = block < n_blocks && row < run.n_rows;
        // What is missing is zero; the last row is read in its place.
        let at = run.start + min(row, run.n_rows - 1u);
        let base = load(base_slice, at);
        let value = load(slice, at);
        bad |= not_finite(base) | not_finite(value);
        let delta = value - select(0.0, base, is_whole(slice));
        (*y)[j] = with_sign(select(0.0, delta, is_there), (signs >> (BLOCKS * (j % 4u))) & 1u);
    }
    transform(y, thread);
    return bad;
}

// The numbers of the cells that held magnitudes fall into, in deviations whose inverse this is.
fn find_cells(rate: Rate, inverse: f32, y: ptr<function, Held>, cells: ptr<function, HeldWords>) {
    let n = n_levels(rate);
    for (var q = 0u; q < HELD; q += 1u) {
        (*cells)[q] = 0u;
    }
    if (rate.n_planes > 4u) {
        for (var q = 0u; q < HELD; q += 1u) {
            (*cells)[q] = companded(abs((*y)[q]) * inverse, n);
        }
        return;
    }
    // By search among the bounds, a step of all lines at a time.
    for (var bit = 1u; (n >> bit) > 0u; bit += 1u) {
        for (var q = 0u; q < HELD; q += 1u) {
            let next = (*cells)[q] + (n >> bit);
            (*cells)[q] = select((*cells)[q], next, abs((*y)[q]) * inverse >= shelf[n + next - 1u]);
        }
    }
}

// The cell of a magnitude where there are many.
fn companded(magnitude: f32, n: u32) -> u32 {
    let x = magnitude * INV_SQRT_6;
    let t = 1.0 + x * (COMPAND_1 + x * (COMPAND_2 + x * (COMPAND_3 + x * COMPAND_4)));
    let t2 = t * t;
    let share = 1.0 - 1.0 / (t2 * t2);
    let cell = clamp(share * f32(n) - 0.5, 0.0, f32(n - 1u));
    // 2^23 leaves the nearest integer in the lowest bits.
    return min(bitcast<u32>(cell + 8388608.0) & 0x7fffffu, n - 1u);
}

// Sums over a block: <y, y>, and of what its codes decode to, <y, z> and <z, z>.
struct Sums {
    energy: f32,
    product: f32,
    decoded: f32,
}

// Codes held lines, whose rate's book is open: words from word `first` of the output on, [word, block], scales from `scales` on. The
// lines are left in the block's unit.
fn code_lines(
    run: Run,
    rate: Rate,
    is_kept: bool,
    first: u32,
    scales: u32,
    thread: u32,
    y: ptr<function, Held>,
) -> Sums {
    let n_blocks = blocks_of(run);
    let slot = thread / BLOCKS;
    let block = run.first_block + thread % BLOCKS;
    let part = part_of(run.key);

    // Very small and very large blocks are coded in other units, so that no square leaves the range of f32.
    var halves = vec2<f32>(0.0);
    for (var q = 0u; q < 16u; q += 1u) {
        halves += vec2<f32>(abs((*y)[q]), abs((*y)[q + 16u]));
    }
    let magnitude = block_sums(halves, vec2<f32>(0.0), thread).x;
    let is_easy = magnitude == 0.0 || (magnitude >= 1e-12 && magnitude < 1e18) || not_finite(magnitude) == 1u;
    // A power of two whose inverse is a normal f32 too.
    let exponent = clamp(bitcast<u32>(magnitude) & 0x7f800000u, 1u << 23u, 253u << 23u);
    let unit = select(exponent, 127u << 23u, is_easy);
    let inverse_unit = bitcast<f32>((254u << 23u) - unit);

    var energies = vec2<f32>(0.0);
    var in_units = vec2<f32>(0.0);
    for (var q = 0u; q < 16u; q += 1u) {
        let values = vec2<f32>((*y)[q], (*y)[q + 16u]);
        energies += values * values;
        let scaled = values * inverse_unit;
        in_units += scaled * scaled;
    }
    let energy = block_sums(energies, in_units, thread);
    let deviation = sqrt(energy.y * (1.0 / f32(LINES)));
    let inverse = select(0.0, 1.0 / deviation, deviation > 0.0);

    for (var q = 0u; q < HELD; q += 1u) {
        (*y)[q] *= inverse_unit;
    }
    var cells: HeldWords;
    find_cells(rate, inverse, y, &cells);
    // <|y|, level> and <level, level>. Searched levels are added up by words, others by sixteens, as on the CPU.
    let by_words = rate.n_planes <= 4u;
    let is_part = rate.n_lines < LINES;
    var found_sums = vec2<f32>(0.0);
    for (var q = 0u; q < 16u; q += 1u) {
        let found = shelf[cells[q]];
        found_sums += vec2<f32>(abs((*y)[q]) * found, found * found);
    }
    let early = found_sums;
    found_sums = select(vec2<f32>(0.0), early, by_words);
    for (var q = 16u; q < HELD; q += 1u) {
        let found = shelf[cells[q]];
        found_sums += vec2<f32>(abs((*y)[q]) * found, found * found);
    }
    let with_y = select(vec2<f32>(early.x, found_sums.x), vec2<f32>(found_sums.x, 0.0), by_words);
    let squares = select(vec2<f32>(early.y, found_sums.y), vec2<f32>(found_sums.y, 0.0), by_words);
    // The sign in bit 7 of the cell.
    for (var q = 0u; q < HELD; q += 1u) {
        cells[q] |= (bitcast<u32>((*y)[q]) >> 24u) & 0x80u;
    }
    // Digits and parts are put together from other threads' lines: cells, or of a part the values themselves.
    let own = place_of(HELD * slot, thread % BLOCKS);
    if (is_part || rate.n_planes == 0u) {
        for (var q = 0u; q < HELD; q += 1u) {
            memory[own + BLOCKS * q] = select(cells[q], bitcast<u32>((*y)[q]), is_part);
        }
    }
    let products = block_sums(with_y, squares, thread);

    // A part of the lines: word `slot` of theirs.
    var part_word = 0u;
    var part_sum = 0.0;
    let end = select(HELD * slot, HELD * slot + HELD, is_part);
    for (var at = HELD * slot; at < end; at += 1u) {
        let line = (part.first + at * part.step) & 0xffu;
        let bits = memory[place_of(line, thread % BLOCKS)];
        part_word |= (bits >> 31u) << (at % HELD);
        part_sum += bitcast<f32>(bits & 0x7fffffffu);
    }
    let is_in_part = HELD * slot < rate.n_lines;
    let of_part = block_sums(vec2<f32>(select(0.0, part_sum, is_in_part), 0.0), vec2<f32>(0.0), thread).x;

    // The scale as it is stored: in the block's unit first.
    var product = products.x;
    var square = products.y;
    if (rate.n_planes == 1u) {
        product = select(magnitude * inverse_unit, of_part, is_part);
        square = f32(rate.n_lines);
    }
    let over = select(energy.y, product, is_kept);
    let under = select(product, square, is_kept);
    let in_unit = select(0u, scale_bits(over / under), under > 0.0);
    let bits = scale_bits(scale_from_bits(in_unit) * bitcast<f32>(unit));

    if (block < n_blocks) {
        // Blocks of zeros have no code, whatever the signs of their zeros.
        let kept = select(0u, 0xffffffffu, in_unit != 0u);
        if (rate.n_planes == 0u) {
            for (var word = slot; word < rate.n_words; word += BLOCKS) {
                output[first + word * n_blocks + block] = kept & digits(word, thread % BLOCKS);
            }
        } else if (is_part) {
            if (is_in_part) {
                output[first + slot * n_blocks + block] = kept & part_word;
            }
        } else {
            for (var plane = 0u; plane < rate.n_planes; plane += 1u) {
                // The sign, then the cell's bits, the highest first.
                let shift = select(rate.n_planes - 1u - plane, 7u, plane == 0u);
                var word = 0u;
                for (var q = 0u; q < HELD; q += 1u) {
                    word |= ((cells[q] >> shift) & 1u) << q;
                }
                output[first + (plane * BLOCKS + slot) * n_blocks + block] = kept & word;
            }
        }
        if (slot == 0u) {
            output[scales + block] = bits;
        }
    }
    let scale = scale_from_bits(bits);
    return Sums(energy.x, scale * (product * bitcast<f32>(unit)), scale * scale * square);
}

// The bits of an f32 below its sign, rounded to nearest.
fn scale_bits(scale: f32) -> u32 {
    return ((bitcast<u32>(scale) + (1u << 14u)) >> 15u) & 0xffffu;
}

// 20 digits of a block, five in each byte.
fn digits(word: u32, block: u32) -> u32 {
    var sum = 0u;
    var power = 1u;
    for (var at = 0u; at < 20u; at += 1u) {
        if (at % 5u == 0u) {
            power = 1u << (8u * (at / 5u));
        }
        let line = 20u * word + at;
        let code = memory[place_of(min(line, LINES - 1u), block)];
        let digit = (code & 1u) * (1u + (code >> 7u));
        sum += select(0u, digit * power, line < LINES);
        power *= 3u;
    }
    return sum;
}

// <y, decoded> and <decoded, decoded> of a block.
fn products_of(y: ptr<function, Held>, decoded: ptr<function, Held>, thread: u32) -> vec2<f32> {
    var product = vec2<f32>(0.0);
    var square = vec2<f32>(0.0);
    for (var q = 0u; q < 16u; q += 1u) {
        let hats = vec2<f32>((*decoded)[q], (*decoded)[q + 16u]);
        product += vec2<f32>((*y)[q], (*y)[q + 16u]) * hats;
        square += hats * hats;
    }
    return block_sums(product, square, thread);
}

// An eighth of the sums over the workgroup's blocks.
fn run_sums(sums: vec2<f32>, thread: u32) -> vec2<f32> {
    workgroupBarrier();
    if (thread < BLOCKS) {
        parts[thread] = sums.x * 0.125;
        parts[BLOCKS + thread] = sums.y * 0.125;
    }
    workgroupBarrier();
    var all = vec2<f32>(0.0);
    for (var block = 0u; block < BLOCKS; block += 1u) {
        all += vec2<f32>(parts[block], parts[BLOCKS + block]);
    }
    return all;
}

@compute @workgroup_size(THREADS)
fn code(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.x;
    let run = runs[run_index];
    let rate = rate_of(params.rate);
    let task = group.y;
    var y: Held;
    var bad = load_rotated(run, task + 1u, thread, &y);
    let words = task * params.words + rate.n_words * run.place;
    let scales = params.scales_at + task * params.n_scales + run.place;
    open_book(rate, thread);
    let sums = code_lines(run, rate, false, words, scales, thread, &y);
    let energy = run_sums(vec2<f32>(sums.energy, 0.0), thread).x;
    let others = run_sums(vec2<f32>(sums.product, sums.decoded), thread);
    bad |= not_finite(sums.energy);
    workgroupBarrier();
    memory[thread] = bad;
    workgroupBarrier();
    if (thread == 0u) {
        for (var other = 0u; other < THREADS; other += 1u) {
            bad |= memory[other];
        }
        let at = params.sums_at + 3u * (run_index * params.n_tasks + task);
        output[at] = select(bitcast<u32>(energy), 0x7fc00000u, bad == 1u);
        // Where there are shared columns too, these two are measured anew.
        output[at + 1u] = bitcast<u32>(others.x);
        output[at + 2u] = bitcast<u32>(others.y);
        output[params.marks + run_index * params.n_tasks + task] = params.stamp;
    }
}

@compute @workgroup_size(THREADS)
fn code_kept(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.x;
    let run = runs[run_index];
    let n_blocks = blocks_of(run);
    let block = min(run.first_block + thread % BLOCKS, n_blocks - 1u);
    let part = part_of(run.key);
    let rate = rate_of(params.rate);
    let kept = group.y;
    let lacking_at = params.lacking_at + (kept * params.n_runs + run_index) * HELD * THREADS + thread;
    open_book(rate, thread);
    var lacking: Held;
    for (var q = 0u; q < HELD; q += 1u) {
        lacking[q] = 0.0;
        if (params.first_task > 0u) {
            lacking[q] = bitcast<f32>(output[lacking_at + q * THREADS]);
        }
    }
    for (var task = params.first_task; task < params.end_task; task += 1u) {
        let weight = bitcast<f32>(book[params.kept + task * params.n_kept + kept]);
        var y: Held;
        _ = load_rotated(run, task + 1u, thread, &y);
        var levels: Held;
        let words = task * params.words + rate.n_words * run.place;
        levels_of(rate, words, n_blocks, block, part, thread, &levels);
        let scale = scale_from_bits(output[params.scales_at + task * params.n_scales + run.place + block]);
        for (var q = 0u; q < HELD; q += 1u) {
            lacking[q] += weight * (y[q] - levels[q] * scale);
        }
    }
    if (params.end_task < params.n_tasks) {
        for (var q = 0u; q < HELD; q += 1u) {
            output[lacking_at + q * THREADS] = bitcast<u32>(lacking[q]);
        }
    } else {
        // Beyond the panel's last block nothing is lacking.
        if (run.first_block + thread % BLOCKS >= n_blocks) {
            for (var q = 0u; q < HELD; q += 1u) {
                lacking[q] = 0.0;
            }
        }
        let kept_rate = rate_of(params.kept_rate);
        let words = params.kept_at + kept * params.kept_words + kept_rate.n_words * run.place;
        let scales = params.scales_at + (params.n_tasks + kept) * params.n_scales + run.place;
        open_book(kept_rate, thread);
        _ = code_lines(run, kept_rate, true, words, scales, thread, &lacking);
    }
    if (thread == 0u) {
        output[params.marks + run_index * params.n_kept + kept] = params.stamp;
    }
}

@compute @workgroup_size(THREADS)
fn measure(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let run_index = params.first_run + group.x;
    let run = runs[run_index];
    let n_blocks = blocks_of(run);
    let is_there = run.first_block + thread % BLOCKS < n_blocks;
    let block = min(run.first_block + thread % BLOCKS, n_blocks - 1u);
    let part = part_of(run.key);
    let task = group.y;
    var decoded: Held;
    for (var q = 0u; q < HELD; q += 1u) {
        decoded[q] = 0.0;
    }
    // The shared columns first, then the task's own.
    open_book(rate_of(params.kept_rate), thread);
    for (var kept = 0u; kept <= params.n_kept; kept += 1u) {
        let is_own = kept == params.n_kept;
        let rate = rate_of(select(params.kept_rate, params.rate, is_own));
        let column_at = select(params.kept_at + kept * params.kept_words, task * params.words, is_own);
        let scales_at = params.scales_at + select(params.n_tasks + kept, task, is_own) * params.n_scales;
        var weight = 1.0;
        if (!is_own) {
            weight = bitcast<f32>(book[params.kept + task * params.n_kept + kept]);
        }
        // All threads, or none.
        if (is_own) {
            open_book(rate, thread);
        }
        var levels: Held;
        levels_of(rate, column_at + rate.n_words * run.place, n_blocks, block, part, thread, &levels);
        let scale = scale_from_bits(output[scales_at + run.place + block]);
        for (var q = 0u; q < HELD; q += 1u) {
            decoded[q] += weight * (levels[q] * scale);
        }
    }
    for (var q = 0u; q < HELD; q += 1u) {
        decoded[q] = select(0.0, decoded[q], is_there);
    }
    var y: Held;
    _ = load_rotated(run, task + 1u, thread, &y);
    let products = products_of(&y, &decoded, thread);
    let sums = run_sums(products, thread);
    if (thread == 0u) {
        let at = params.sums_at + 3u * (run_index * params.n_tasks + task);
        output[at + 1u] = bitcast<u32>(sums.x);
        output[at + 2u] = bitcast<u32>(sums.y);
        output[params.marks + run_index * params.n_tasks + task] = params.stamp;
    }
}
