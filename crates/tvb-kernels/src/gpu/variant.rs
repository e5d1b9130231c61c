//! Which variant of a shader a chunk and a device call for: chosen by what they are, never by a clock, so that the same
//! chunk gives the same bits on the same kind of device.
//!
//! - [`Format`] by the segment (`gram`) or the chunk (the others): kernels that know their one format load without asking, and two 16-bit rows with one word.
//! - [`Shape`] by the device's class.
//! - [`Tile`] by T (`gram`), the outputs at a time by M or K and whether weights are 0 (`combine.rs`).
//!
//! Not built: a choice by a benchmark on the user's device. A pass takes its chunks over a bus or out of files, at a few
//! tens of GB/s at most, and the device works on one while the next comes; a faster kernel would shorten no job, and its
//! other order of additions would let the bits of a result depend on a clock.

use crate::chunk::{Dtype, Slice};
use crate::device::AdapterFacts;
use crate::limits::{SLICE_ALIGNMENT, THREADS};
use crate::params;

/// The format of a chunk's or a segment's slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// All are f32, and each starts on 16 bytes.
    F32,
    /// All are f16, and each starts on 16 bytes.
    F16,
    /// All are bf16, and each starts on 16 bytes.
    Bf16,
    /// They differ, or start anywhere.
    Mixed,
}

impl Format {
    /// Every one.
    pub(crate) const ALL: [Format; 4] = [Format::F32, Format::F16, Format::Bf16, Format::Mixed];

    /// Of these slices.
    pub(crate) fn of(slices: &[Slice]) -> Self {
        let aligned = slices.iter().all(|slice| slice.offset.is_multiple_of(SLICE_ALIGNMENT));
        let Some(first) = slices.first().filter(|_| aligned) else { return Format::Mixed };
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
    /// A thread of `gram` sums at most so many times as many products: 4 or 8.
    pub(crate) block: u32,
}

impl Shape {
    /// For threads with many registers.
    pub(crate) const LARGE: Shape = Shape { block: 8 };
    /// For threads with few: 64 sums would not stay in them.
    pub(crate) const SMALL: Shape = Shape { block: 4 };

    /// Tiles by how many tasks there are, the smallest first: the first that holds all, alone, or else the last, of which two are
    /// held at a time.
    ///
    /// Up to 24 tasks 4 × 4 products a thread: 8 × 8 would compute more above the diagonal, and memory is what such a Gram
    /// waits for. Of 57 to 64 two tiles of 32: a single one of 64 has 36 blocks on and below the diagonal, so that 28 of 64
    /// threads would have nothing to do.
    pub(crate) fn tiles(self) -> &'static [Tile] {
        const ALL: [Tile; 11] = [
            Tile::alone(8, 4),
            Tile::alone(12, 4),
            Tile::alone(16, 4),
            Tile::alone(20, 4),
            Tile::alone(24, 4),
            Tile::alone(32, 8),
            Tile::alone(40, 8),
            Tile::alone(48, 8),
            Tile::alone(56, 8),
            Tile::of_pair(32, 8),
            Tile::of_pair(64, 8),
        ];
        const SMALL: [Tile; 7] = [ALL[0], ALL[1], ALL[2], ALL[3], ALL[4], Tile::alone(32, 4), Tile::of_pair(32, 4)];
        if self.block == 4 { &SMALL } else { &ALL }
    }

    /// The tile for so many tasks.
    pub(crate) fn tile(self, n_tasks: usize) -> Tile {
        let tiles = self.tiles();
        tiles.iter().copied().find(|tile| tile.most_tasks() >= n_tasks).unwrap_or(tiles[tiles.len() - 1])
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

/// How `gram` cuts the tasks among workgroups and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// Tasks of a tile: a multiple of `block`, at most 8 blocks.
    pub(crate) tasks: u32,
    /// A thread sums block × block products: 4 or 8.
    pub(crate) block: u32,
    /// Tiles that a workgroup holds: 2 where there are several.
    pub(crate) held: u32,
}

impl Tile {
    const fn alone(tasks: u32, block: u32) -> Tile {
        Tile { tasks, block, held: 1 }
    }

    const fn of_pair(tasks: u32, block: u32) -> Tile {
        Tile { tasks, block, held: 2 }
    }

    /// The most tasks that it is the tile for.
    fn most_tasks(self) -> usize {
        (self.tasks * self.held) as usize
    }

    /// Fours of rows that a workgroup decodes at a time. As many as keep the tiles within 8 KiB of its memory (13 where two are
    /// held), so that several workgroups fit a processor, and the lanes have about as many each.
    pub(crate) fn quads(self) -> u32 {
        match (self.held, self.tasks) {
            (1, ..=8) => 32,
            (1, ..=32) => 16,
            (1, _) => 8,
            (_, ..=32) if self.block == 8 => 12,
            (_, ..=32) => 8,
            (_, _) => 4,
        }
    }

    /// Threads that share a block of products, each with its own rows: those of the pair of tiles with the fewest.
    pub(crate) fn lanes(self) -> u32 {
        let blocks = self.tasks / self.block;
        let positions = if self.held == 1 { blocks * (blocks + 1) / 2 } else { blocks * blocks };
        (THREADS / positions).min(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_tasks_has_a_tile() {
        for shape in [Shape::SMALL, Shape::LARGE] {
            for n_tasks in 1..=crate::limits::MAX_TASKS {
                let tile = shape.tile(n_tasks);
                assert!(tile.held == 2 || tile.tasks as usize >= n_tasks, "{n_tasks}: {tile:?}");
                assert!(tile.tasks.is_multiple_of(tile.block) && tile.tasks / tile.block <= 8 && tile.lanes() >= 1);
            }
        }
        assert_eq!(Shape::LARGE.tile(20), Tile { tasks: 20, block: 4, held: 1 });
        assert_eq!(Shape::LARGE.tile(57), Tile { tasks: 32, block: 8, held: 2 });
        assert_eq!(Shape::LARGE.tile(65), Tile { tasks: 64, block: 8, held: 2 });
    }

    #[test]
    fn slices_have_a_format_where_all_have_it_and_start_on_16_bytes() {
        let of = |slices: &[(usize, Dtype)]| {
            Format::of(&slices.iter().map(|&(offset, dtype)| Slice::new(offset, dtype)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[(0, Dtype::F32), (48, Dtype::F32)]), Format::F32);
        assert_eq!(of(&[(0, Dtype::Bf16), (16, Dtype::Bf16)]), Format::Bf16);
        assert_eq!(of(&[(0, Dtype::F16), (8, Dtype::F16)]), Format::Mixed);
        assert_eq!(of(&[(0, Dtype::F16), (16, Dtype::Bf16)]), Format::Mixed);
        assert_eq!(of(&[]), Format::Mixed);
    }
}
