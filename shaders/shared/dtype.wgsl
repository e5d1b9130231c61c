// shared/dtype.wgsl: how a chunk's raw bytes become f32 values, and how results become 16-bit formats again.
// binding 1  chunk   read   the columns' bytes as they were read from the files, in whole words
// binding 2  slices  read   [n_segments, n_columns]: where each column's rows of each segment lie
// Offsets are multiples of the element size, not of the word: odd lengths of 16-bit tensors put the next one anywhere.

// The format of every slice, each of which starts on a word then; or MIXED, where slices differ or start anywhere.
#constant FORMAT

const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;
const MIXED: u32 = 3u;
// 1 where a word holds two elements, whatever the slice.
const PAIRED: u32 = u32(FORMAT == F16 || FORMAT == BF16);

struct Slice {
    offset_bytes: u32,
    dtype: u32,
}

@group(0) @binding(1) var<storage, read> chunk: array<u32>;
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

// Element `row` of a slice, exactly.
fn load(slice: Slice, row: u32) -> f32 {
    let dtype = select(FORMAT, slice.dtype, FORMAT == MIXED);
    if (dtype == F32) {
        return bitcast<f32>(chunk[(slice.offset_bytes >> 2u) + row]);
    }
    let byte = slice.offset_bytes + 2u * row;
    let half = (chunk[byte >> 2u] >> ((byte & 2u) * 8u)) & 0xffffu;
    if (dtype == F16) {
        return from_f16(half);
    }
    return bitcast<f32>(half << 16u);
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
