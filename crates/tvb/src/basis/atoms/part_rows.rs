//! Rows of one part of a job on disk: for each column a file of what it has of the part's rows, piece after piece and nothing
//! between them. Joined, they are copied to where they belong in the files of one run (`join_rows.rs`).
//!
//! What lies where is known from the part's pieces alone, so these files have no header. Tensors that turn out to be frozen when
//! all parts are there take room in them, and none in what is joined.

use super::pending::Pending;
use super::plain::stem;
use crate::checkpoint::{Dtype, OutputFile};
use crate::columns::coded::{block_bytes, is_coded};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ops::code::{CodeSink, Piece as CodePiece};
use crate::ops::project::AtomSink;
use crate::pass::Block;
use crate::pass::part::Piece;
use std::path::{Path, PathBuf};
use tvb_kernels::{Rate, n_blocks};

/// How a column's file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// Floats of a type.
    Floats(Dtype),
    /// Codes, and rows in bf16 of what is not coded where the column has these.
    Codes {
        /// Of the coded tensors.
        rate: Rate,
        /// Whether it has the tensors that are not coded.
        has_raw: bool,
    },
}

impl ColumnFormat {
    /// Bytes of the first `n_rows` rows of a tensor; of a coded one whole blocks or all rows.
    pub fn bytes(self, is_coded: bool, n_rows: usize) -> u64 {
        let n_rows_bytes = |size: usize| (n_rows as u64).saturating_mul(size as u64);
        match self {
            ColumnFormat::Floats(dtype) => n_rows_bytes(dtype.size()),
            ColumnFormat::Codes { rate, .. } if is_coded => {
                (n_blocks(n_rows) as u64).saturating_mul(block_bytes(rate) as u64)
            }
            ColumnFormat::Codes { has_raw: true, .. } => n_rows_bytes(2),
            ColumnFormat::Codes { .. } => 0,
        }
    }
}

/// What of which tensors a part's files hold.
#[derive(Clone, Debug)]
pub struct PartLayout {
    pieces: Vec<Piece>,
    /// Of each piece, whether its tensor is coded.
    coded: Vec<bool>,
}

impl PartLayout {
    /// Of these pieces of tensors of these names and shapes.
    pub fn new(pieces: Vec<Piece>, tensors: &[(String, Vec<usize>)]) -> PartLayout {
        let is_coded = |piece: &Piece| tensors.get(piece.tensor).is_some_and(|(_, shape)| is_coded(shape));
        PartLayout { coded: pieces.iter().map(is_coded).collect(), pieces }
    }

    /// What it holds, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Of a piece, whether its tensor is coded.
    pub fn is_coded(&self, piece: usize) -> bool {
        self.coded.get(piece).copied().unwrap_or_default()
    }

    /// Bytes of a piece's rows up to `row` of the tensor.
    pub fn bytes_to(&self, piece: usize, row: usize, format: ColumnFormat) -> u64 {
        let first_row = self.pieces.get(piece).map_or(0, |piece| piece.rows.start);
        let coded = self.is_coded(piece);
        format.bytes(coded, row).saturating_sub(format.bytes(coded, first_row))
    }

    /// Where each piece begins in a file of this format, and where the file ends.
    pub fn starts(&self, format: ColumnFormat) -> Vec<u64> {
        let mut starts = Vec::with_capacity(self.pieces.len() + 1);
        let mut at: u64 = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            starts.push(at);
            at = at.saturating_add(self.bytes_to(index, piece.rows.end, format));
        }
        starts.push(at);
        starts
    }

    /// Bytes of all pieces in a file of this format.
    pub fn n_bytes(&self, format: ColumnFormat) -> u64 {
        self.starts(format).last().copied().unwrap_or_default()
    }

    /// The piece that a row of a tensor lies in.
    fn piece_of(&self, tensor: usize, row: usize) -> Option<usize> {
        let at = self.pieces.binary_search_by_key(&tensor, |piece| piece.tensor).ok()?;
        self.pieces.get(at).filter(|piece| piece.rows.contains(&row)).map(|_| at)
    }
}

/// The name of column `column`'s file in a part's folder.
pub fn rows_name(column: usize, n_columns: usize) -> String {
    format!("{}.rows", stem(column, n_columns))
}

/// The files of a part while they are written: of atoms by position, of codes in order.
#[derive(Debug)]
pub struct RowFiles {
    layout: PartLayout,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    file: OutputFile,
    format: ColumnFormat,
    /// Where each piece begins.
    starts: Vec<u64>,
    /// Codes that wait to be written.
    pending: Pending,
}

/// Bytes of codes that are put together before they are written, of one column at most and of all columns.
const WRITTEN_BYTES: usize = 256 << 10;
const ALL_WRITTEN_BYTES: usize = 16 << 20;

impl RowFiles {
    /// Creates the files in `folder`, with room for all of their rows.
    ///
    /// # Errors
    /// Failed: the disk has too little room, or the system refuses.
    pub fn create(folder: &Path, layout: PartLayout, formats: &[ColumnFormat]) -> Result<RowFiles> {
        let most_bytes = WRITTEN_BYTES.min(ALL_WRITTEN_BYTES / formats.len().max(1));
        let create = |(index, format): (usize, &ColumnFormat)| {
            let path: PathBuf = folder.join(rows_name(index, formats.len()));
            let starts = layout.starts(*format);
            let file = OutputFile::create(&path, layout.n_bytes(*format))?.one_of(formats.len());
            Ok(Column { file, format: *format, starts, pending: Pending::new(most_bytes) })
        };
        let columns = formats.iter().enumerate().map(create).collect::<Result<_>>()?;
        Ok(RowFiles { layout, columns })
    }

    /// Puts everything on the disk.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub fn finish(mut self) -> Result<()> {
        CodeSink::sync(&mut self)
    }
}

impl CodeSink for RowFiles {
    fn put(&mut self, _block: &Block, columns: &[CodePiece<'_>]) -> Result<()> {
        // Blocks come in the order in which they lie here.
        for (column, piece) in self.columns.iter_mut().zip(columns) {
            match piece {
                CodePiece::Coded { words, scales } => {
                    column.pending.bytes.extend_from_slice(words);
                    column.pending.put(scales, &column.file)?;
                }
                CodePiece::Raw(rows) => column.pending.put(rows, &column.file)?,
                CodePiece::Nothing => {}
            }
        }
        Ok(())
    }

    fn end(&mut self, _tensor: usize, _stays: bool) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        for column in &mut self.columns {
            column.pending.write(&column.file)?;
            column.file.sync()?;
        }
        Ok(())
    }
}

impl AtomSink for RowFiles {
    fn sync(&self) -> Result<()> {
        self.columns.iter().try_for_each(|column| column.file.sync())
    }

    fn write_rows(&self, blocks: &[Block], rows: &[u8]) -> Result<Vec<Digest>> {
        let n_columns = self.columns.len();
        let mut digests = vec![Digest::default(); blocks.len() * n_columns];
        let mut rest = rows;
        for (index, column) in self.columns.iter().enumerate() {
            for (block, row) in blocks.iter().zip(digests.chunks_exact_mut(n_columns)) {
                let n_bytes = column.format.bytes(false, block.n_rows) as usize;
                let (own, behind) = rest
                    .split_at_checked(n_bytes)
                    .ok_or_else(|| Error::failed("an atom's rows are fewer than its blocks"))?;
                rest = behind;
                let piece = self.layout.piece_of(block.tensor, block.first_row);
                let start = piece.and_then(|piece| Some((piece, *column.starts.get(piece)?)));
                let (piece, start) = start.ok_or_else(|| Error::failed("rows of another part"))?;
                column.file.write_at(start + self.layout.bytes_to(piece, block.first_row, column.format), own)?;
                if let Some(digest) = row.get_mut(index) {
                    *digest = Digest::of(own);
                }
            }
        }
        Ok(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_one_after_another() {
        let tensors =
            [("a".to_owned(), vec![100]), ("b".to_owned(), vec![1 << 10, 1 << 11]), ("c".to_owned(), vec![7])];
        let pieces = vec![
            Piece { tensor: 1, rows: 1 << 20..1 << 21, n_rows: 1 << 21 },
            Piece { tensor: 2, rows: 0..7, n_rows: 7 },
        ];
        let layout = PartLayout::new(pieces, &tensors);
        assert_eq!(layout.starts(ColumnFormat::Floats(Dtype::Bf16)), [0, 2 << 20, (2 << 20) + 14]);
        let codes = |has_raw| ColumnFormat::Codes { rate: Rate::Signs, has_raw };
        let coded = (1_u64 << 12) * (32 + 2);
        assert_eq!(layout.starts(codes(true)), [0, coded, coded + 14]);
        assert_eq!(layout.starts(codes(false)), [0, coded, coded]);
        assert_eq!(layout.bytes_to(0, (1 << 20) + 512, codes(true)), 2 * 34);
        assert_eq!((layout.piece_of(1, 1 << 20), layout.piece_of(1, 5), layout.piece_of(0, 0)), (Some(0), None, None));
    }
}
