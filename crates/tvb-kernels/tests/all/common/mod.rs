//! Random chunks for the tests, and the plain f64 loops that every kernel is checked against.

pub(crate) mod device;

use half::{bf16, f16};
use tvb_kernels::{Base, Chunk, ChunkLayout, Columns, Dtype, Reconstruct, Segment, Slice};

/// SplitMix64: a small generator, so that cases are the same everywhere and for ever.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Uniform in (−1, 1).
    pub(crate) fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub(crate) fn weights(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.signed() as f32).collect()
    }
}

/// Which formats the columns of a case have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Formats {
    All(Dtype),
    /// A different one for every segment and column.
    Mixed,
}

/// What a chunk is to look like.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) n_tasks: usize,
    /// Rows of each segment.
    pub(crate) segments: Vec<usize>,
    pub(crate) formats: Formats,
    /// Leave odd gaps between slices, so that offsets are multiples of the element size and of nothing more.
    pub(crate) misaligned: bool,
    pub(crate) seed: u64,
}

/// A chunk with the values its bytes stand for.
pub(crate) struct Made {
    pub(crate) layout: ChunkLayout,
    pub(crate) bytes: Vec<u8>,
    /// [segment][column][row], exactly what is stored.
    pub(crate) values: Vec<Vec<Vec<f64>>>,
}

impl Made {
    pub(crate) fn chunk(&self) -> Chunk<'_> {
        Chunk { layout: &self.layout, bytes: &self.bytes }
    }

    /// δ of one task in one segment: formed in f32, as the kernels do, or as it is stored.
    pub(crate) fn deltas(&self, segment: usize, task: usize) -> Vec<f64> {
        let columns = &self.values[segment];
        if self.layout.slice(segment, task + 1).is_delta {
            return columns[task + 1].clone();
        }
        columns[task + 1].iter().zip(&columns[0]).map(|(&x, &z)| f64::from(x as f32 - z as f32)).collect()
    }
}

/// One value as stored bytes, and what they stand for.
pub(crate) fn store(value: f64, dtype: Dtype) -> (Vec<u8>, f64) {
    match dtype {
        Dtype::F64 => (value.to_le_bytes().to_vec(), value),
        Dtype::F32 => ((value as f32).to_le_bytes().to_vec(), f64::from(value as f32)),
        Dtype::F16 => (f16::from_f64(value).to_le_bytes().to_vec(), f16::from_f64(value).to_f64()),
        Dtype::Bf16 => (bf16::from_f64(value).to_le_bytes().to_vec(), bf16::from_f64(value).to_f64()),
    }
}

/// Reads stored values back.
pub(crate) fn load(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
    bytes
        .chunks_exact(dtype.size())
        .map(|raw| match dtype {
            Dtype::F64 => f64::from_le_bytes(raw.try_into().unwrap()),
            Dtype::F32 => f64::from(f32::from_le_bytes(raw.try_into().unwrap())),
            Dtype::F16 => f16::from_le_bytes(raw.try_into().unwrap()).to_f64(),
            Dtype::Bf16 => bf16::from_le_bytes(raw.try_into().unwrap()).to_f64(),
        })
        .collect()
}

/// Makes a chunk: a base around ±1, fine-tunes a few hundredths away from it and from each other.
pub(crate) fn make(case: &Case) -> Made {
    let mut random = Random(case.seed);
    let n_columns = case.n_tasks + 1;
    let mut made = Made {
        layout: ChunkLayout { n_columns, ..ChunkLayout::default() },
        bytes: Vec::new(),
        values: vec![Vec::new(); case.segments.len()],
    };
    let base: Vec<Vec<f64>> =
        case.segments.iter().map(|&n_rows| (0..n_rows).map(|_| random.signed()).collect()).collect();
    let mut slices = vec![Slice::new(0, Dtype::F32); n_columns * case.segments.len()];
    for column in 0..n_columns {
        for (at, base) in base.iter().enumerate() {
            let dtype = match case.formats {
                Formats::All(dtype) => dtype,
                Formats::Mixed => [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64][random.below(4)],
            };
            let gap = if case.misaligned { 1 + random.below(7) } else { 0 };
            made.bytes.resize((made.bytes.len() + gap).next_multiple_of(dtype.size()), 0xff);
            let is_delta =
                matches!(case.formats, Formats::Mixed) && column > 0 && dtype == Dtype::F32 && random.below(2) == 1;
            slices[at * n_columns + column] = Slice { is_delta, ..Slice::new(made.bytes.len(), dtype) };
            let mut values = Vec::with_capacity(base.len());
            for &z in base {
                let delta = if column == 0 { 0.0 } else { 0.03 * random.signed() };
                let (raw, exact) = store(if is_delta { delta } else { z + delta }, dtype);
                made.bytes.extend(raw);
                values.push(exact);
            }
            made.values[at].push(values);
        }
    }
    made.layout.segments = case.segments.iter().map(|&n_rows| Segment::new(n_rows)).collect();
    made.layout.slices = slices;
    made.layout.n_bytes = made.bytes.len();
    made
}

/// The Gram of each segment by a plain f64 loop: packed triangles.
pub(crate) fn reference_gram(made: &Made) -> Vec<f64> {
    let n_tasks = made.layout.n_tasks();
    let mut values = Vec::new();
    for at in 0..made.layout.segments.len() {
        let deltas: Vec<Vec<f64>> = (0..n_tasks).map(|task| made.deltas(at, task)).collect();
        for i in 0..n_tasks {
            for j in 0..=i {
                values.push(deltas[i].iter().zip(&deltas[j]).map(|(a, b)| a * b).sum());
            }
        }
    }
    values
}

/// One output's rows of one segment in f64, and for each row the sum of its terms' magnitudes, which bounds rounding.
pub(crate) fn reference_rows(made: &Made, work: &Reconstruct, segment: usize, output: usize) -> Vec<(f64, f64)> {
    let columns = &made.values[segment];
    (0..columns[0].len())
        .map(|row| {
            let mut sum = match work.base {
                Base::Added => columns[0][row],
                Base::Left => 0.0,
            };
            let mut magnitude = sum.abs();
            for column in 0..made.layout.n_tasks() {
                let value = columns[column + 1][row];
                let weight = f64::from(work.weights[column * work.n_outputs + output]);
                if weight != 0.0 {
                    let is_whole =
                        work.columns == Columns::Checkpoints && !made.layout.slice(segment, column + 1).is_delta;
                    let base = if is_whole { columns[0][row] } else { 0.0 };
                    sum += weight * (value - base);
                    // The difference is rounded once in f32, and an f64 input before it.
                    let size = value.abs() + base.abs();
                    magnitude += (weight * size).abs();
                }
            }
            (sum, magnitude)
        })
        .collect()
}
