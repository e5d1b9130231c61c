//! What comes out of one chunk, and how it is put together.

use super::sink::Piece;
use crate::columns::coded::is_coded;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pass::Block;
use crate::shown::shown;
use tvb_kernels::{Code, Codes, Dtype, n_blocks};

/// Sums that are kept of each block and column: energy, product and decoded energy.
pub(super) const N_MEASURED: usize = 3;
/// The engine's sums are of rotated elements, whose squares are larger by this.
pub(super) const ROTATED: f64 = tvb_kernels::BLOCK as f64;

/// A chunk's codes, to be written in their turn.
pub(super) struct CodedChunk {
    codes: Codes,
    /// Rows in bf16 of the blocks that are not coded, \[n_own\] after one another for each.
    raw: Vec<u8>,
    /// [n_blocks, T(T+1)/2], where the Gram matrix is formed in the same pass.
    pub(super) triangles: Vec<f64>,
    /// [n_blocks, n_own, N_MEASURED]
    pub(super) measured: Vec<f64>,
    /// [n_blocks, n_own + K]: of what is written.
    pub(super) digests: Vec<Digest>,
}

/// Makes parts of what the engine gives.
pub(super) struct Coder<'a> {
    /// What is read.
    pub(super) plan: &'a Plan,
    /// The engine's operation.
    pub(super) code: Code,
    /// Columns that are coded, without the shared ones.
    pub(super) n_own: usize,
    /// What they are called in messages.
    pub(super) name: &'a (dyn Fn(usize) -> String + Sync),
}

impl Coder<'_> {
    /// Columns that are written.
    pub(super) fn n_columns(&self) -> usize {
        self.n_own + self.code.n_kept
    }

    /// Whether a block is coded.
    pub(super) fn is_coded(&self, block: &Block) -> bool {
        self.plan.tensors.get(block.tensor).is_some_and(|tensor| is_coded(&tensor.shape))
    }

    fn words(&self, column: usize) -> usize {
        if column < self.n_own { self.code.rate.words() } else { self.code.kept_rate.words() }
    }

    /// The part of a chunk. `rows` answers a block's own rows in f32, column by column; asked for the few that are not coded.
    pub(super) fn part(
        &self,
        blocks: &[Block],
        codes: Codes,
        triangles: Vec<f64>,
        rows: impl Fn(usize) -> Result<Vec<Vec<f32>>>,
    ) -> Result<CodedChunk> {
        let mut raw = Vec::new();
        let mut measured = Vec::with_capacity(blocks.len() * self.n_own * N_MEASURED);
        for (index, block) in blocks.iter().enumerate() {
            if self.is_coded(block) {
                let own = &codes.measured[index * self.n_own..][..self.n_own];
                // What is shared makes the others not finite too: the one whose own elements are is the one to name.
                let by_energy = own.iter().position(|of_column| !of_column.energy.is_finite());
                let bad = by_energy.or_else(|| own.iter().position(|of_column| !of_column.decoded.is_finite()));
                if let Some(column) = bad {
                    return Err(self.too_large(block, column));
                }
                for of_column in own {
                    measured.extend([of_column.energy, of_column.product, of_column.decoded].map(|sum| sum / ROTATED));
                }
                continue;
            }
            for (column, rows) in rows(index)?.iter().enumerate() {
                let exact: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                let stored = tvb_kernels::convert(&exact, Dtype::F32, Dtype::Bf16);
                if tvb_kernels::count_non_finite(&stored, Dtype::Bf16) > 0 {
                    return Err(self.too_large(block, column));
                }
                let mut sums = [0.0; N_MEASURED];
                for (value, back) in rows.iter().zip(tvb_kernels::decode(&stored, Dtype::Bf16)) {
                    let (value, back) = (f64::from(*value), f64::from(back));
                    sums[0] += value * value;
                    sums[1] += value * back;
                    sums[2] += back * back;
                }
                measured.extend(sums);
                raw.extend(stored);
            }
        }
        let mut part = CodedChunk { codes, raw, triangles, measured, digests: Vec::new() };
        for word in &mut part.codes.words {
            *word = word.to_le();
        }
        for scale in &mut part.codes.scales {
            *scale = scale.to_le();
        }
        let mut digests = Vec::with_capacity(blocks.len() * self.n_columns());
        self.each_block(&part, blocks, |_, pieces| {
            digests.extend(pieces.iter().map(|piece| match piece {
                Piece::Coded { words, scales } => Digest::of_parts([*words, *scales]),
                Piece::Raw(rows) => Digest::of(rows),
                Piece::Nothing => Digest::of(&[]),
            }));
            Ok(())
        })?;
        part.digests = digests;
        Ok(part)
    }

    /// Every block of a part with what each column has of it.
    pub(super) fn each_block<'p>(
        &self,
        part: &'p CodedChunk,
        blocks: &[Block],
        mut each: impl FnMut(&Block, &[Piece<'p>]) -> Result<()>,
    ) -> Result<()> {
        let words: &[u8] = bytemuck::cast_slice(&part.codes.words);
        let scales: &[u8] = bytemuck::cast_slice(&part.codes.scales);
        let all_blocks: usize = blocks.iter().map(|block| n_blocks(block.n_rows)).sum();
        let mut pieces = Vec::with_capacity(self.n_columns());
        let (mut before, mut raw_at) = (0, 0);
        for block in blocks {
            let n_blocks = n_blocks(block.n_rows);
            pieces.clear();
            let mut column_at = 0;
            for column in 0..self.n_columns() {
                let size = 4 * self.words(column);
                let coded = Piece::Coded {
                    words: &words[column_at + before * size..][..n_blocks * size],
                    scales: &scales[2 * (column * all_blocks + before)..][..2 * n_blocks],
                };
                column_at += all_blocks * size;
                pieces.push(match (self.is_coded(block), column < self.n_own) {
                    (true, _) => coded,
                    (false, true) => {
                        let n_bytes = 2 * block.n_rows;
                        raw_at += n_bytes;
                        Piece::Raw(&part.raw[raw_at - n_bytes..raw_at])
                    }
                    (false, false) => Piece::Nothing,
                });
            }
            before += n_blocks;
            each(block, &pieces)?;
        }
        Ok(())
    }

    fn too_large(&self, block: &Block, column: usize) -> Error {
        let tensor = self.plan.tensors.get(block.tensor).map_or("", |tensor| &tensor.name);
        Error::rejected(format!(
            "{}, tensor {}: deltas whose sums fit in f32 expected, larger ones found from element {} on",
            (self.name)(column),
            shown(tensor),
            block.first_row
        ))
        .hint("repair or leave out this checkpoint, or leave out the tensor with --exclude")
    }
}
