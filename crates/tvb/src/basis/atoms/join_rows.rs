//! Rows of all parts of a job → the files of one run: each part's bytes are read once, in order, compared with the digests that
//! the part recorded, and written where they belong.
//!
//! Files are copied side by side, a thread for each, since neither a disk nor a digest alone fills a machine.

use super::part_rows::{ColumnFormat, PartLayout, rows_name};
use super::{AtomFiles, CodeFiles};
use crate::checkpoint::DataFile;
use crate::digest::{BLOCK_ROWS, Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::part::Piece;
use crate::progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are read at once.
const READ_BYTES: u64 = 4 << 20;
/// Threads that copy, at most: more only make a disk seek.
const MOST_THREADS: usize = 8;
/// Blocks of a tensor that are read back where parts wrote to one place.
const MOST_LOOKED_AT: usize = 64;

/// The rows of one part.
#[derive(Debug)]
pub struct RowsOfPart {
    /// What messages call the part.
    pub name: String,
    /// What it holds.
    pub layout: PartLayout,
    /// [n_kept, n_columns] digests of what it wrote: of a whole tensor one of each column, else those of its blocks.
    pub digests: Vec<Digest>,
    /// Where its rows are.
    pub place: RowsPlace,
}

/// Where the rows of a part are.
#[derive(Clone, Debug)]
pub enum RowsPlace {
    /// In the files of this folder, which hold nothing else.
    Own(PathBuf),
    /// Where they belong, beside those of the other parts.
    Shared(Arc<SharedPlaces>),
}

/// [n_columns, n_tensors]: the file of each column that holds a tensor, and where it begins there.
pub type SharedPlaces = Vec<Vec<(PathBuf, u64)>>;

/// Where rows go.
#[derive(Clone, Copy, Debug)]
pub enum Joined<'a> {
    /// Atoms as floats.
    Floats(&'a AtomFiles),
    /// Codes.
    Codes(&'a CodeFiles),
}

impl Joined<'_> {
    fn write(self, column: usize, tensor: usize, first_row: usize, bytes: &[u8]) -> Result<()> {
        match self {
            Joined::Floats(files) => files.write_rows_of(column, tensor, first_row, bytes),
            Joined::Codes(files) => files.write_rows(column, tensor, first_row, bytes),
        }
    }
}

/// Copies the rows of the tensors that stay; `formats` are those of the columns.
///
/// # Errors
/// Rejected: a file that is damaged or of another length. Failed: I/O. Interrupted.
pub fn copy_rows(
    parts: &[RowsOfPart],
    formats: &[ColumnFormat],
    stays: &(dyn Fn(usize) -> bool + Sync),
    to: Joined<'_>,
    n_threads: usize,
    progress: &dyn Progress,
) -> Result<()> {
    let of_part = |part: &RowsOfPart| formats.iter().map(|format| part.layout.n_bytes(*format)).sum::<u64>();
    progress.begin("join", parts.iter().map(of_part).sum());
    // Column by column, so that an output's bytes come one after another where there is one thread.
    let units: Vec<(usize, usize)> =
        (0..formats.len()).flat_map(|column| (0..parts.len()).map(move |part| (part, column))).collect();
    side_by_side(units.len(), n_threads, |unit| {
        let Some(((part, column), format)) =
            units.get(unit).and_then(|(part, column)| Some(((parts.get(*part)?, *column), *formats.get(*column)?)))
        else {
            return Ok(());
        };
        let mut buffer = Vec::new();
        part.each_piece((column, formats.len()), format, |index, piece, open, digests| {
            if !stays(piece.tensor) {
                progress.advance(part.layout.bytes_to(index, piece.rows.end, format));
                return Ok(());
            }
            let (file, start) = open()?;
            let mut found = Vec::with_capacity(piece.rows.len().div_ceil(BLOCK_ROWS));
            let mut row = piece.rows.start;
            while row < piece.rows.end {
                progress.check()?;
                let end = part.layout.rows_within(index, row, READ_BYTES, format);
                let at = start + part.layout.bytes_to(index, row, format);
                let n_bytes = part.read_blocks(&file, (index, row..end), (at, format), &mut buffer, &mut found)?;
                to.write(column, piece.tensor, row, &buffer)?;
                progress.advance(n_bytes);
                row = end;
            }
            if fits(piece, &found, digests) { Ok(()) } else { Err(part.damaged(&file)) }
        })
    })?;
    progress.finish();
    Ok(())
}

/// Reads back what parts wrote into one place where they meet: the first and the last rows of each, or the tensors there. What
/// one part has written over another's rows would be in these.
///
/// # Errors
/// Rejected: bytes that are not those that the part wrote. Failed: I/O. Interrupted.
pub fn check_borders(
    parts: &[RowsOfPart],
    formats: &[ColumnFormat],
    n_threads: usize,
    progress: &dyn Progress,
) -> Result<()> {
    let n_units = parts.len() * formats.len();
    side_by_side(n_units, n_threads, |unit| {
        let (column, part) = (unit / parts.len().max(1), unit % parts.len().max(1));
        let (Some(part), Some(&format)) = (parts.get(part), formats.get(column)) else { return Ok(()) };
        progress.check()?;
        let n_pieces = part.layout.pieces().len();
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        part.each_piece((column, formats.len()), format, |index, piece, open, digests| {
            let n_blocks = piece.rows.len().div_ceil(BLOCK_ROWS);
            let is_outer = index == 0 || index + 1 == n_pieces;
            if !is_outer || (piece.is_whole() && n_blocks > MOST_LOOKED_AT) {
                return Ok(());
            }
            let last = piece.rows.start + (n_blocks - 1) * BLOCK_ROWS;
            let looked_at = if piece.is_whole() {
                vec![piece.rows.clone()]
            } else {
                vec![piece.rows.start..(piece.rows.start + BLOCK_ROWS).min(piece.rows.end), last..piece.rows.end]
            };
            let expected = match (piece.is_whole(), digests) {
                (true, digests) => digests.to_vec(),
                (false, [first, .., last]) => vec![*first, *last],
                (false, digests) => digests.iter().chain(digests).copied().collect(),
            };
            let (file, start) = open()?;
            found.clear();
            for rows in looked_at {
                let at = start + part.layout.bytes_to(index, rows.start, format);
                part.read_blocks(&file, (index, rows), (at, format), &mut buffer, &mut found)?;
            }
            if fits(piece, &found, &expected) { Ok(()) } else { Err(part.damaged(&file)) }
        })
    })
}

/// Whether blocks have the digests that were recorded of a piece.
fn fits(piece: &Piece, blocks: &[Digest], recorded: &[Digest]) -> bool {
    if !piece.is_whole() {
        return blocks == recorded;
    }
    let mut folded = TensorDigests::new(1);
    blocks.iter().for_each(|block| folded.push(0, std::slice::from_ref(block)));
    folded.finish(1).digests == recorded
}

impl PartLayout {
    /// The row before which at most `n_bytes` lie after `row`, or those of one block: where a block ends.
    fn rows_within(&self, piece: usize, row: usize, n_bytes: u64, format: ColumnFormat) -> usize {
        let end = self.pieces().get(piece).map_or(row, |piece| piece.rows.end);
        let of_block = format.bytes(self.is_coded(piece), BLOCK_ROWS).max(1);
        let n_blocks = usize::try_from(n_bytes / of_block).unwrap_or(1).clamp(1, 1 << 16);
        row.saturating_add(n_blocks * BLOCK_ROWS).min(end)
    }
}

impl RowsOfPart {
    /// Opens a file that holds just this part's rows of a column.
    fn open_own(&self, path: &Path, n_bytes: u64) -> Result<DataFile> {
        let file = DataFile::open(path).map_err(|error| error.context(&self.name))?;
        if file.len == n_bytes {
            return Ok(file);
        }
        Err(Error::rejected(format!("{}: {}: {n_bytes} bytes expected, {} found", self.name, path.display(), file.len))
            .hint("run this part again, or copy it again"))
    }

    /// Every piece with how to open the file that holds it in a column, where it begins there, and the digests that were
    /// recorded of it.
    fn each_piece(
        &self,
        (column, n_columns): (usize, usize),
        format: ColumnFormat,
        mut each: impl FnMut(usize, &Piece, &dyn Fn() -> Result<(DataFile, u64)>, &[Digest]) -> Result<()>,
    ) -> Result<()> {
        let own = match &self.place {
            RowsPlace::Own(folder) => {
                let path = folder.join(rows_name(column, n_columns));
                Some((self.open_own(&path, self.layout.n_bytes(format))?, self.layout.starts(format)))
            }
            RowsPlace::Shared(_) => None,
        };
        let mut rows = self.digests.chunks_exact(n_columns.max(1));
        for (index, piece) in self.layout.pieces().iter().enumerate() {
            let digests: Vec<Digest> =
                rows.by_ref().take(piece.n_digests()).filter_map(|row| row.get(column).copied()).collect();
            let no_place = || Error::failed("a part without a place for its rows");
            let open = || match (&self.place, &own) {
                (RowsPlace::Shared(places), _) => {
                    let (path, start) =
                        places.get(column).and_then(|places| places.get(piece.tensor)).ok_or_else(no_place)?;
                    let before = format.bytes(self.layout.is_coded(index), piece.rows.start);
                    let file = DataFile::open(path).map_err(|error| error.context(&self.name))?;
                    Ok((file, start.saturating_add(before)))
                }
                (RowsPlace::Own(_), Some((file, starts))) => {
                    Ok((file.clone(), *starts.get(index).ok_or_else(no_place)?))
                }
                (RowsPlace::Own(_), None) => Err(no_place()),
            };
            each(index, piece, &open, &digests)?;
        }
        Ok(())
    }

    /// Reads rows of a piece that lie at `at`, and adds the digest of each block to `found`.
    fn read_blocks(
        &self,
        file: &DataFile,
        (index, rows): (usize, std::ops::Range<usize>),
        (at, format): (u64, ColumnFormat),
        buffer: &mut Vec<u8>,
        found: &mut Vec<Digest>,
    ) -> Result<u64> {
        let n_before = self.layout.bytes_to(index, rows.start, format);
        let n_bytes = self.layout.bytes_to(index, rows.end, format) - n_before;
        buffer.resize(n_bytes as usize, 0);
        file.read_at(at, buffer).map_err(|error| error.context(&self.name))?;
        for first_row in rows.clone().step_by(BLOCK_ROWS) {
            let end_row = (first_row + BLOCK_ROWS).min(rows.end);
            let [from, to] =
                [first_row, end_row].map(|row| (self.layout.bytes_to(index, row, format) - n_before) as usize);
            found.push(Digest::of(buffer.get(from..to).unwrap_or_default()));
        }
        Ok(n_bytes)
    }

    fn damaged(&self, file: &DataFile) -> Error {
        Error::rejected(format!(
            "{}: {}: its checksum does not match: the file was damaged",
            self.name,
            file.path.display()
        ))
        .hint("run this part again, or copy it again")
    }
}

/// Does units of work on several threads; the error of the first unit that has one is answered.
fn side_by_side(n_units: usize, n_threads: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            if unit >= n_units {
                return;
            }
            if let Err(error) = work(unit) {
                stop.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(first, _)| unit < *first) {
                    *failed = Some((unit, error));
                }
            }
        }
    };
    std::thread::scope(|threads| {
        (1..n_threads.min(n_units).min(MOST_THREADS)).for_each(|_| drop(threads.spawn(worker)));
        worker();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
