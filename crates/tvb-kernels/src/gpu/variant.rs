//! Which variant of a shader a chunk and a device call for: chosen by what they are, never by a clock, so that the same
//! chunk gives the same bits on the same kind of device.
//!
//! - [`Format`] by the segment (`gram`) or the chunk (the others): kernels that know their one format load without asking, and two 16-bit rows with one word.
//! - [`Shape`] by the device's class.
//! - The tile by T (`gram.rs`), the outputs at a time by M or K and whether weights are 0 (`combine.rs`).
//!
//! Not built: a choice by a benchmark on the user's device. A pass takes its chunks over a bus or out of files, at a few
//! tens of GB/s at most, and the device works on one while the next comes; a faster kernel would shorten no job, and its
//! other order of additions would let the bits of a result depend on a clock.

use crate::chunk::{Dtype, Slice};
use crate::device::AdapterFacts;
use crate::limits::TILES;
use crate::params;

/// The format of a chunk's or a segment's slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// All are f32, and each starts on a word.
    F32,
    /// All are f16, and each starts on a word.
    F16,
    /// All are bf16, and each starts on a word.
    Bf16,
    /// They differ, or start anywhere.
    Mixed,
}

impl Format {
    /// Every one.
    pub(crate) const ALL: [Format; 4] = [Format::F32, Format::F16, Format::Bf16, Format::Mixed];

    /// Of these slices.
    pub(crate) fn of(slices: &[Slice]) -> Self {
        let on_words = slices.iter().all(|slice| slice.offset.is_multiple_of(4));
        let Some(first) = slices.first().filter(|_| on_words) else { return Format::Mixed };
        match first.dtype {
            _ if slices.iter().any(|slice| slice.is_delta || slice.dtype != first.dtype) => Format::Mixed,
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::Bf16 => Format::Bf16,
            Dtype::F64 => Format::Mixed,
        }
    }

    /// The shaders' FORMAT.
    pub(crate) fn code(self) -> u32 {
        match self {
            Format::F32 => params::F32,
            Format::F16 => params::F16,
            Format::Bf16 => params::BF16,
            Format::Mixed => params::MIXED,
        }
    }
}

/// How a kernel's work is cut among threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// A thread of `gram` sums block × block products: 4 or 8.
    pub(crate) block: u32,
}

impl Shape {
    /// For threads with many registers.
    pub(crate) const LARGE: Shape = Shape { block: 8 };
    /// For threads with few: 64 sums would not stay in them.
    pub(crate) const SMALL: Shape = Shape { block: 4 };

    /// Tasks of a Gram tile, by how many tasks there are; beyond the last there are several tiles. A tile has at most 8 × 8
    /// blocks, one for each thread of a workgroup.
    pub(crate) fn tiles(self) -> &'static [u32] {
        match self.block {
            4 => &TILES[..4],
            _ => &TILES,
        }
    }

    /// The largest T with several threads to a block, each with its own rows.
    pub(crate) fn most_shared_tasks(self) -> usize {
        4 * self.block as usize
    }

    /// By the device's class. Intel's, Arm's and Qualcomm's threads have 64 registers or fewer where many run at once; 4 × 4
    /// is what others' tuning on them came to (llama.cpp's discussion 22241 of matrix products in WGSL). None of them was at
    /// hand to be measured.
    pub(crate) fn of(facts: &AdapterFacts) -> Self {
        match facts.vendor.as_str() {
            "Intel" | "Arm" | "Qualcomm" => Shape::SMALL,
            _ => Shape::LARGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn slices_have_a_format_where_all_have_it_and_start_on_words() {
        let of = |slices: &[(usize, Dtype)]| {
            Format::of(&slices.iter().map(|&(offset, dtype)| Slice::new(offset, dtype)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[(0, Dtype::F32), (12, Dtype::F32)]), Format::F32);
        assert_eq!(of(&[(0, Dtype::Bf16), (8, Dtype::Bf16)]), Format::Bf16);
        assert_eq!(of(&[(0, Dtype::F16), (6, Dtype::F16)]), Format::Mixed);
        assert_eq!(of(&[(0, Dtype::F16), (8, Dtype::Bf16)]), Format::Mixed);
        assert_eq!(of(&[]), Format::Mixed);
    }
}
