//! Chunks of chosen values for the test of a device.

use crate::chunk::{ChunkLayout, Dtype, FactorSlice, Segment, Slice};
use crate::gpu::variant::Format;
use crate::limits::SLICE_ALIGNMENT;

/// A chunk for a test.
pub(super) struct Case {
    pub(super) layout: ChunkLayout,
    pub(super) bytes: Vec<u8>,
}

/// What one segment holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows {
    /// So many rows of multiples of 1/16 from −1 to 1: their differences, products with multiples of 1/8, and sums of thousands of
    /// products are exact in f32.
    Plain(usize),
    /// So many rows of multiples of 2⁻²⁴ up to 2⁻¹⁶: subnormal as f16.
    Tiny(usize),
    /// Small numbers, among which one column in three holds a NaN and one an infinity, or the base an infinity or a NaN; which, the
    /// number from 0 to 3 says.
    NotFinite(usize),
    /// A row for each column beside the base in which that column is 1, then [`ODD`] rows with these in one column each, all else 0.
    Single,
    /// What rounding gets wrong first ([`odd`]), the same in every column.
    Odd,
}

/// What single rows hold beside ones. The last two may be taken for 0 where they are not f16.
pub(super) const ODD: [f32; 5] = [NAN, f32::INFINITY, f32::NEG_INFINITY, LEAST, -3.0 * LEAST];
/// The NaN with all bits set, which some devices give for every NaN: to round it as a number would make it a zero.
const NAN: f32 = f32::from_bits(0x7fff_ffff);
/// A subnormal f32.
const LEAST: f32 = f32::from_bits(1 << 16);
/// The first of those in [`ODD`] that may be taken for 0.
pub(super) const FIRST_LEAST: usize = 3;

impl Rows {
    pub(super) fn n_rows(self, n_columns: usize) -> usize {
        match self {
            Rows::Plain(n_rows) | Rows::Tiny(n_rows) => n_rows,
            Rows::NotFinite(_) => 37,
            Rows::Single => n_columns - 1 + ODD.len(),
            Rows::Odd => 2 * ODD_BITS.len() + 1,
        }
    }

    fn value(self, row: usize, column: usize, n_columns: usize, dtype: Dtype) -> f32 {
        // Multiples of a 16th from -1 to 1; every column is another pattern.
        let plain = ((row * 37 + column * 101 + row * column * 11) % 33) as f32 / 16.0 - 1.0;
        match self {
            Rows::Plain(_) => plain,
            // 2^-20
            Rows::Tiny(_) => plain * f32::from_bits((127 - 20) << 23),
            Rows::NotFinite(number) => match (column, (column + number) % 3, row) {
                (0, _, 11) if number == 2 => f32::INFINITY,
                (0, _, 13) if number == 3 => NAN,
                (0, ..) => plain,
                (_, 0, 5) => NAN,
                (_, 1, 7) => f32::INFINITY,
                (_, 1, 30) => f32::NEG_INFINITY,
                _ => plain,
            },
            Rows::Odd => odd(row),
            Rows::Single => {
                let n_tasks = n_columns - 1;
                let least = if dtype == Dtype::F16 { f32::from_bits((127 - 24) << 23) } else { LEAST };
                match row.checked_sub(n_tasks) {
                    None => f32::from(u8::from(row + 1 == column)),
                    Some(odd) if column == 1 + odd % n_tasks => match ODD[odd] {
                        value if odd >= FIRST_LEAST => value / LEAST * least,
                        value => value,
                    },
                    Some(_) => 0.0,
                }
            }
        }
    }
}

/// What rounding gets wrong first, each a normal f32: ties of both 16-bit formats, the ends of their ranges, f16's subnormals.
pub(super) fn odd(at: usize) -> f32 {
    let bits = ODD_BITS[at % ODD_BITS.len()];
    // Every other round of them is negative.
    f32::from_bits(bits | (((at / ODD_BITS.len()) % 2) as u32) << 31)
}

const ODD_BITS: [u32; 23] = [
    // bf16: ties above 1, to even down and up; a last bit less and more than a tie.
    0x3f80_8000,
    0x3f81_8000,
    0x3f80_7fff,
    0x3f80_8001,
    // f16: the same.
    0x3f80_1000,
    0x3f80_3000,
    0x3f80_0fff,
    0x3f80_1001,
    // f16: 65504, the largest that rounds to it, the tie above it, 65536 and more.
    0x477f_e000,
    0x477f_efff,
    0x477f_f000,
    0x4780_0000,
    0x4900_0000,
    // f16's subnormals: 2^-24, half of it (a tie with 0), a little more, three halves of it (a tie), the largest, a tie with the least
    // normal, and what is nothing.
    0x3380_0000,
    0x3300_0000,
    0x3300_0001,
    0x33c0_0000,
    0x387f_c000,
    0x387f_f000,
    0x2f80_0000,
    // bf16: the largest that is finite, the tie above it, the largest f32.
    0x7f7f_7fff,
    0x7f7f_8000,
    0x7f7f_ffff,
];

/// A chunk of these segments. Where formats are mixed, each slice has another one; in plain segments the second column is differences
/// already, and in every second one of them the third is formed from factors.
pub(super) fn case(n_columns: usize, segments: &[Rows], format: Format) -> Case {
    let mut layout = ChunkLayout {
        n_columns,
        segments: segments.iter().map(|rows| Segment::new(rows.n_rows(n_columns))).collect(),
        slices: vec![Slice::new(0, Dtype::F32); segments.len() * n_columns],
        n_bytes: 0,
        ..ChunkLayout::default()
    };
    let mut bytes = Vec::new();
    let is_mixed = format == Format::Mixed;
    let is_factored = |column: usize, segment: usize| {
        is_mixed && column == 2 && segment % 2 == 1 && matches!(segments[segment], Rows::Plain(_))
    };
    for column in 0..n_columns {
        for (segment, &rows) in segments.iter().enumerate() {
            let is_delta = is_mixed && column == 1 && matches!(rows, Rows::Plain(_));
            let dtype = match format {
                Format::F32 => Dtype::F32,
                Format::F16 => Dtype::F16,
                Format::Bf16 => Dtype::Bf16,
                Format::Mixed if is_delta => Dtype::F32,
                Format::Mixed => [Dtype::F32, Dtype::F16, Dtype::Bf16][(column + segment) % 3],
            };
            if is_factored(column, segment) {
                layout.slices[segment * n_columns + column] = Slice::of_delta(0);
                continue;
            }
            // As it is staged.
            bytes.resize(bytes.len().next_multiple_of(SLICE_ALIGNMENT), 0);
            layout.slices[segment * n_columns + column] = Slice { is_delta, ..Slice::new(bytes.len(), dtype) };
            let n_rows = rows.n_rows(n_columns);
            (0..n_rows).for_each(|row| put(&mut bytes, dtype, rows.value(row, column, n_columns, dtype)));
        }
    }
    if (0..segments.len()).any(|segment| n_columns > 2 && is_factored(2, segment)) {
        layout.factors = vec![None; layout.slices.len()];
        for (segment, rows) in segments.iter().enumerate().filter(|(segment, _)| is_factored(2, *segment)) {
            let factors = push_factors(&mut bytes, rows.n_rows(n_columns));
            layout.factors[segment * n_columns + 2] = Some(factors);
        }
    }
    layout.n_bytes = bytes.len();
    Case { layout, bytes }
}

/// One value in a format.
fn put(bytes: &mut Vec<u8>, dtype: Dtype, value: f32) {
    match dtype {
        Dtype::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
        Dtype::F32 | Dtype::F64 => bytes.extend(value.to_le_bytes()),
    }
}

/// Factors of rank 2 in halves from −1 to 1, whose products are exact; rows of seven, the first of which begins in its middle.
fn push_factors(bytes: &mut Vec<u8>, n_rows: usize) -> FactorSlice {
    let mut factors = FactorSlice { left: 0, right: 0, rank: 2, n_columns: 7, first: 3, scale: 0.5 };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let halves = |bytes: &mut Vec<u8>, n: usize| {
        let at = bytes.len();
        bytes.extend((0..n).flat_map(|at| (((at * 3 + at / 5) % 5) as f32 / 2.0 - 1.0).to_le_bytes()));
        at
    };
    let n_left = (factors.first + n_rows).div_ceil(factors.n_columns) * factors.rank;
    factors.left = halves(bytes, n_left);
    factors.right = halves(bytes, factors.rank * factors.n_columns);
    factors
}
