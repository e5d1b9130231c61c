//! What rows take in a staging buffer on their way to a GPU, and so how many of them make a chunk.
//!
//! Counted as they are staged: f64 as f32, 16 bits as they are, rows of low rank as their factors where those are smaller.

use super::block::Block;
use super::chunks::Grid;
use crate::checkpoint::Place;
use crate::columns::plan::{Plan, PlannedTensor};
use crate::digest::BLOCK_ROWS;
use tvb_kernels::{AdapterKind, Dtype, SLICE_ALIGNMENT};

/// Bytes of one chunk, all columns together: large enough to hide what a submit costs, small enough to overlap. A card behind a
/// bus has more to hide.
const CHUNK_BYTES: usize = 16 << 20;
const CHUNK_BYTES_DISCRETE: usize = 32 << 20;
/// Bytes of its rows where all are formed and f32, at most (one block's always fit): what the CPU has to hold where it goes on.
const MOST_F32_BYTES: usize = 64 << 20;
/// What factors are filled up with, at most.
const PADDING: usize = 128;

/// Rows of one tensor.
struct TensorBytes {
    n_rows: usize,
    /// Bytes of a row of all columns but those of low rank.
    row_bytes: usize,
    /// Rank and row length of each column of low rank.
    low_rank: Vec<(usize, usize)>,
}

impl TensorBytes {
    fn of(plan: &Plan, tensor: &PlannedTensor) -> TensorBytes {
        let mut found = TensorBytes { n_rows: tensor.n_rows, row_bytes: 0, low_rank: Vec::new() };
        for column in 0..plan.n_columns() {
            let own = plan.column_tensor(tensor, column);
            match &own.place {
                Place::LowRank(factors) => found.low_rank.push((factors.rank(), factors.n_columns().max(1))),
                _ => found.row_bytes += own.dtype.size().min(Dtype::F32.size()),
            }
        }
        found
    }

    /// Bytes of `n_rows` neighbouring rows of it, at most.
    fn staged(&self, n_rows: usize, leaves_factors: bool) -> usize {
        let as_rows = n_rows.saturating_mul(Dtype::F32.size());
        let low_rank = self.low_rank.iter().map(|&(rank, n_columns)| {
            let held = n_rows.div_ceil(n_columns) + 1;
            let factors = rank.saturating_mul(held.saturating_add(n_columns)).saturating_mul(Dtype::F32.size());
            if leaves_factors { as_rows.min(factors.saturating_add(PADDING)) } else { as_rows }
        });
        low_rank.fold(n_rows.saturating_mul(self.row_bytes), usize::saturating_add)
    }
}

/// Rows of a chunk on a GPU of this kind: whole blocks, so many that a chunk of average rows has the bytes above.
pub(super) fn chunk_rows(plan: &Plan, kind: AdapterKind) -> usize {
    let tensors: Vec<TensorBytes> = plan.tensors.iter().map(|tensor| TensorBytes::of(plan, tensor)).collect();
    rows_of(&tensors, plan.n_columns(), kind)
}

fn rows_of(tensors: &[TensorBytes], n_columns: usize, kind: AdapterKind) -> usize {
    let enough = if kind == AdapterKind::Discrete { CHUNK_BYTES_DISCRETE } else { CHUNK_BYTES };
    let all_rows: u128 = tensors.iter().map(|tensor| tensor.n_rows as u128).sum();
    // What a chunk of each tensor alone would take; each counts as often as it has rows.
    let bytes = |n_rows: usize| {
        let of = |tensor: &TensorBytes| {
            let own = n_rows.min(tensor.n_rows).max(1);
            tensor.staged(own, true) as u128 * n_rows as u128 / own as u128 * tensor.n_rows as u128
        };
        tensors.iter().map(of).sum::<u128>() / all_rows.max(1)
    };
    let most_rows = MOST_F32_BYTES / (Dtype::F32.size() * n_columns) / BLOCK_ROWS * BLOCK_ROWS;
    let mut n_rows = BLOCK_ROWS;
    while n_rows < most_rows && bytes(n_rows) < enough as u128 {
        n_rows += BLOCK_ROWS;
    }
    n_rows
}

/// Bytes of the largest chunk of a grid, codes not counted; each slice starts on 16 bytes.
pub(super) fn most_staged_bytes(plan: &Plan, grid: &Grid, leaves_factors: bool) -> usize {
    let of_chunk = |blocks: &[Block]| {
        let runs = blocks.chunk_by(|a, b| a.tensor == b.tensor).map(|run| {
            let n_rows: usize = run.iter().map(|block| block.n_rows).sum();
            let gaps = run.len() * plan.n_columns() * SLICE_ALIGNMENT;
            TensorBytes::of(plan, &plan.tensors[run[0].tensor]).staged(n_rows, leaves_factors).saturating_add(gaps)
        });
        runs.fold(0, usize::saturating_add)
    };
    grid.largest_chunks().map(|blocks| of_chunk(&blocks)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_as_many_rows_as_their_bytes_allow() {
        use AdapterKind::{Discrete, Integrated};
        let tensor = |n_rows, row_bytes| TensorBytes { n_rows, row_bytes, low_rank: Vec::new() };
        let many = 1 << 30;
        // Nine columns: 28.4 blocks of f32 are 16 MiB.
        let cases = [
            ("f32", vec![tensor(many, 9 * 4)], 9, [29, 57]),
            ("bf16", vec![tensor(many, 9 * 2)], 9, [57, 113]),
            ("bf16, and a few f32", vec![tensor(many, 9 * 2), tensor(1 << 20, 9 * 4)], 9, [57, 113]),
            ("half of it f32", vec![tensor(many, 9 * 2), tensor(many, 9 * 4)], 9, [38, 76]),
            ("two columns: all of them as f32 would be more", vec![tensor(many, 4)], 2, [256, 512]),
            ("a block of many columns", vec![tensor(many, 1025 * 4)], 1025, [1, 1]),
            ("nothing", Vec::new(), 3, [341, 341]),
            // Eight adapters of rank 16 on a base in bf16: a right factor takes 256 KiB whatever the rows are, so as many rows are
            // taken as may be where they have to be formed.
            (
                "adapters",
                vec![TensorBytes { n_rows: 4096 * 4096, row_bytes: 2, low_rank: vec![(16, 4096); 8] }],
                9,
                [113, 113],
            ),
        ];
        for (name, tensors, n_columns, expected) in cases {
            let found = [Integrated, Discrete].map(|kind| rows_of(&tensors, n_columns, kind) / BLOCK_ROWS);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn factors_count_where_they_are_smaller() {
        let tensor = TensorBytes { n_rows: 1 << 24, row_bytes: 2, low_rank: vec![(16, 4096)] };
        let n_rows = 1 << 18;
        let factors = 16 * (64 + 1 + 4096) * 4 + PADDING;
        assert_eq!(tensor.staged(n_rows, true), 2 * n_rows + factors);
        assert_eq!(tensor.staged(n_rows, false), 6 * n_rows);
        // A few rows are smaller than the factor on the right.
        assert_eq!(tensor.staged(1000, true), 6 * 1000);
    }
}
