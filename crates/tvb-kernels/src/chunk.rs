//! A chunk: the same rows of the base and of every column beside it, as the raw bytes that were read from the files.
//!
//! ```text
//! bytes   column 0 (base)      column 1               column 2            …
//!         [seg 0][seg 1][seg2] [seg 0][seg 1][seg 2]  [seg 0][seg 1] …
//! ```
//! A *segment* is a run of rows (elements) of one tensor; it has the same number of rows in every column but may lie at
//! any offset there and in any dtype. Column 0 is the base θ0; columns 1..=n_tasks are the fine-tunes θt (for `gram` and
//! `project`) or the atoms (for `reconstruct`).

use crate::signs::Place;
use std::fmt;

/// Float formats a column may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: 5 bits of exponent, 10 of mantissa.
    F16,
    /// The upper half of a binary32: 8 bits of exponent, 7 of mantissa.
    Bf16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Dtype {
    /// Its name, as safetensors files spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        }
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The largest finite value.
    pub const fn largest(self) -> f64 {
        match self {
            Dtype::F64 => f64::MAX,
            Dtype::F32 => f32::MAX as f64,
            Dtype::F16 => 65_504.0,
            // The upper half of the largest f32.
            Dtype::Bf16 => f32::from_bits(0x7f7f_0000) as f64,
        }
    }

    /// The step between values near zero: the smallest value above it.
    pub const fn least(self) -> f64 {
        match self {
            Dtype::F64 => 5e-324,
            Dtype::F32 => f32::from_bits(1) as f64,
            // 2^-24
            Dtype::F16 => 5.960_464_477_539_063e-8,
            Dtype::Bf16 => f32::from_bits(1 << 16) as f64,
        }
    }

    /// Unit roundoff u: the largest relative error of rounding to this format, 2^-(p) with p its precision in bits.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            Dtype::F64 => 1.110_223_024_625_156_5e-16,
            Dtype::F32 => 5.960_464_477_539_063e-8,
            Dtype::F16 => 4.882_812_5e-4,
            Dtype::Bf16 => 3.906_25e-3,
        }
    }
}

/// A run of rows of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of rows (elements).
    pub n_rows: usize,
    /// Where they lie in the model; only codes depend on it.
    pub place: Place,
}

impl Segment {
    /// So many rows, of a tensor whose place does not matter.
    pub fn new(n_rows: usize) -> Segment {
        Segment { n_rows, place: Place::default() }
    }
}

/// Where one coded column's codes of one segment lie in the chunk's bytes, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeSlice {
    /// The words, as [`Codes`](crate::Codes) has them: a multiple of 4.
    pub words: usize,
    /// The scales: a multiple of 2.
    pub scales: usize,
}

/// Factors in a chunk's bytes that one column's rows of one segment are formed from where they are used: row x is
/// s·Σ_k left\[i, k\]·right\[k, j\], where (i, j) is element `first` + x of the matrix, counted from the first row of it that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorSlice {
    /// The left factor's rows in f32, \[…, rank\]: bytes from the chunk's start, a multiple of 4.
    pub left: usize,
    /// The right factor in f32, \[rank, n_columns\]: bytes from the chunk's start, a multiple of 4.
    pub right: usize,
    /// r, at least 1.
    pub rank: usize,
    /// Length of a row of the matrix, at least 1.
    pub n_columns: usize,
    /// Elements of the matrix before the segment's first row, in the row of the matrix that it lies in.
    pub first: usize,
    /// s.
    pub scale: f32,
}

impl FactorSlice {
    /// Bytes of the left factor that so many rows of a segment need; `None` where they cannot be counted.
    pub fn left_bytes(&self, n_rows: usize) -> Option<usize> {
        let n = self.first.checked_add(n_rows)?.div_ceil(self.n_columns.max(1));
        n.checked_mul(self.rank)?.checked_mul(4)
    }

    /// Bytes of the right factor; `None` where they cannot be counted.
    pub fn right_bytes(&self) -> Option<usize> {
        self.rank.checked_mul(self.n_columns)?.checked_mul(4)
    }
}

/// Where one column's rows of one segment lie in the chunk's bytes, and in which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Bytes from the chunk's start; a multiple of the dtype's size.
    pub offset: usize,
    /// How the elements are stored there (little-endian).
    pub dtype: Dtype,
    /// Whether they are differences from the base already, as an adapter's are: nothing is subtracted from them then, whatever
    /// the other columns hold. Stored in f32.
    pub is_delta: bool,
}

impl Slice {
    /// Rows of a checkpoint, or of an atom.
    pub const fn new(offset: usize, dtype: Dtype) -> Slice {
        Slice { offset, dtype, is_delta: false }
    }

    /// Rows in f32 that are differences already.
    pub const fn of_delta(offset: usize) -> Slice {
        Slice { offset, dtype: Dtype::F32, is_delta: true }
    }
}

/// The shape of a chunk: what lies where in its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkLayout {
    /// Columns including the base: n_tasks + 1.
    pub n_columns: usize,
    /// The segments in row order.
    pub segments: Vec<Segment>,
    /// [n_segments, n_columns], row-major: the slice of segment s and column c is `slices[s * n_columns + c]`.
    pub slices: Vec<Slice>,
    /// \[n_segments, n_coded\], row-major: the codes of segment s and coded column c; empty where no column is coded.
    pub codes: Vec<CodeSlice>,
    /// \[n_segments, n_columns\], row-major: the factors of segment s and column c, where its rows are not there; its slice then says
    /// nothing but that they are differences. Empty where no column has any.
    pub factors: Vec<Option<FactorSlice>>,
    /// Bytes the chunk takes, padding included.
    pub n_bytes: usize,
}

impl ChunkLayout {
    /// Number of task (or atom) columns, the base not counted: n_columns − 1.
    pub fn n_tasks(&self) -> usize {
        self.n_columns.saturating_sub(1)
    }

    /// Rows of all segments together.
    pub fn n_rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.n_rows).sum()
    }

    /// The slice of one segment and one column.
    ///
    /// # Panics
    /// Where there is no such segment or column.
    pub fn slice(&self, segment: usize, column: usize) -> Slice {
        self.slices[segment * self.n_columns + column]
    }

    /// The factors of one segment and one column, where its rows are to be formed.
    pub fn factors_of(&self, segment: usize, column: usize) -> Option<FactorSlice> {
        *self.factors.get(segment * self.n_columns + column)?
    }

    /// Where in the bytes the codes and factors begin, at a whole word, which come after all rows; `None` where there are none.
    pub(crate) fn first_behind_rows(&self) -> Option<usize> {
        let codes = self.codes.iter().map(|slice| slice.words.min(slice.scales) / 4 * 4);
        codes.chain(self.factors.iter().flatten().map(|slice| slice.left.min(slice.right))).min()
    }
}

/// What the columns beside the base hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Whole checkpoints θt: the base is subtracted from each, in f32.
    Checkpoints,
    /// Deltas (atoms, task vectors), used as they are.
    Deltas,
}

/// A chunk's bytes together with their layout.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// What lies where.
    pub layout: &'a ChunkLayout,
    /// `layout.n_bytes` bytes or more.
    pub bytes: &'a [u8],
}
