//! Coded atoms on disk: one safetensors file for each column, written in the order of the tensors.
//!
//! All of a column is one tensor of bytes, so that small models of many tensors do not pay for their names once for every
//! task: the stored tensors one after another, those that are coded in pieces of 16,384 elements, so that one read fetches
//! what a block of the base needs, the others in bf16. Where a tensor begins is known when the ones before it have ended: those
//! that turned out to be frozen take no room. The header comes last, into the room that was left for it. Coded atoms are not
//! sharded: the limits that shards are for are those of programs that load them whole.

use super::pending::Pending;
use super::plain::stem;
use crate::basis::manifest::AtomRecord;
use crate::checkpoint::{Checkpoint, Dtype, OutputFile, Place, SafetensorsLayout, Tensor, TensorSpec};
use crate::columns::coded::{CODES, block_bytes, is_coded};
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::ops::code::{CodeSink, Piece, Resumed};
use crate::ops::decode::AtomTensor;
use crate::pass::Block;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tvb_kernels::{Rate, n_blocks};

/// Bytes that are put together before they are written, of one column at most and of all columns.
const WRITTEN_BYTES: usize = 64 << 10;
const ALL_WRITTEN_BYTES: usize = 8 << 20;

/// The files of all columns, while they are written.
#[derive(Debug)]
pub struct CodeFiles {
    tensors: Vec<Laid>,
    columns: Vec<Column>,
}

/// A tensor and what became of it.
#[derive(Clone, Debug)]
struct Laid {
    name: String,
    n_rows: usize,
    is_coded: bool,
    /// `None` until its last block has come.
    stays: Option<bool>,
}

/// One column's file.
#[derive(Debug)]
struct Column {
    name: String,
    file: OutputFile,
    rate: Rate,
    /// Whether it has the tensors that are not coded.
    has_raw: bool,
    header_bytes: u64,
    /// Where in the file the tensor begins that is passing.
    tensor_at: u64,
    /// Where each tensor begins, where that is known from the start.
    starts: Vec<u64>,
    pending: Pending,
}

/// The rates of the columns: `n_own` of the atoms' own, then the shared ones.
#[derive(Clone, Copy, Debug)]
pub struct ColumnRates {
    /// Of the atoms' own columns.
    pub rate: Rate,
    /// How many there are.
    pub n_own: usize,
    /// Of the shared columns.
    pub kept_rate: Rate,
    /// How many there are.
    pub n_kept: usize,
}

impl ColumnRates {
    /// Columns in all.
    pub fn n_columns(&self) -> usize {
        self.n_own + self.n_kept
    }

    /// Of one column.
    pub fn rate_of(&self, column: usize) -> Rate {
        if column < self.n_own { self.rate } else { self.kept_rate }
    }
}

/// What the one tensor of a column's file is called.
const ALL: &str = "codes";

fn layout(tensors: &[Laid], rate: Rate, has_raw: bool) -> Result<SafetensorsLayout> {
    let sizes = tensors.iter().map(|tensor| tensor.bytes_at(rate, has_raw));
    let n_bytes = sizes.fold(0_usize, usize::saturating_add);
    let metadata = BTreeMap::from([("bits".to_owned(), rate.name().to_owned())]);
    SafetensorsLayout::new(&[TensorSpec { name: ALL.into(), dtype: Dtype::U8, shape: vec![n_bytes] }], &metadata)
}

/// The file of a column as a checkpoint of its parts: `NAME.codes` for the tensors that are coded, `NAME` for the others.
///
/// # Errors
/// Rejected: a file that does not hold just them.
pub fn parts(file: &Checkpoint, tensors: &[AtomTensor], rate: Rate, has_raw: bool) -> Result<Checkpoint> {
    let rejected = |what: String| {
        Error::rejected(format!("{}: {what}", file.path().display())).hint("make the basis again, or copy it again")
    };
    let all = file.get(ALL).ok_or_else(|| rejected(format!("tensor {ALL} expected, none found")))?;
    let Place::Contiguous { file: number, offset } = all.place else {
        return Err(rejected(format!("tensor {ALL} in one piece expected")));
    };
    let (mut places, mut n_bytes) = (Vec::with_capacity(tensors.len()), 0_usize);
    for tensor in tensors {
        let laid = Laid::new(&tensor.name, &tensor.shape);
        let size = laid.bytes_at(rate, has_raw);
        let place = Place::Contiguous { file: number, offset: offset.saturating_add(n_bytes as u64) };
        if tensor.coded {
            let name = format!("{}{CODES}", tensor.name);
            places.push(Tensor { name, dtype: Dtype::U8, shape: vec![size], place });
        } else if has_raw {
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            places.push(Tensor { name, dtype: Dtype::Bf16, shape, place });
        }
        n_bytes = n_bytes.saturating_add(size);
    }
    if file.tensors().len() != 1 || all.dtype != Dtype::U8 || all.shape != [n_bytes] {
        return Err(rejected(format!(
            "tensor {ALL}: u8 [{n_bytes}] expected at {} bits and nothing else, {} {:?} of {} tensors found",
            rate.name(),
            all.dtype,
            all.shape,
            file.tensors().len()
        )));
    }
    file.with_tensors(places)
}

fn laid(tensors: &[(String, Vec<usize>)]) -> Vec<Laid> {
    tensors.iter().map(|(name, shape)| Laid::new(name, shape)).collect()
}

fn create(path: &Path, n_bytes: u64) -> Result<Option<OutputFile>> {
    OutputFile::create(path, n_bytes).map(Some)
}

fn no_file(folder: &Path) -> Error {
    Error::failed(format!("{}: no file for an atom", folder.display()))
}

impl Laid {
    fn new(name: &str, shape: &[usize]) -> Laid {
        Laid {
            name: name.to_owned(),
            n_rows: shape.iter().fold(1_usize, |n, &side| n.saturating_mul(side)),
            is_coded: is_coded(shape),
            stays: None,
        }
    }

    /// Bytes that it takes in a column at this rate.
    fn bytes_at(&self, rate: Rate, has_raw: bool) -> usize {
        match (self.is_coded, has_raw) {
            (true, _) => n_blocks(self.n_rows).saturating_mul(block_bytes(rate)),
            (false, true) => self.n_rows.saturating_mul(2),
            (false, false) => 0,
        }
    }

    /// Bytes that it takes in a column.
    fn n_bytes(&self, column: &Column) -> u64 {
        if self.stays == Some(false) { 0 } else { self.bytes_at(column.rate, column.has_raw) as u64 }
    }
}

impl CodeFiles {
    /// Creates the files in `folder`, with room for all of these tensors.
    ///
    /// # Errors
    /// Rejected: sizes that overflow. Failed: the disk has too little room.
    pub fn create(folder: &Path, rates: ColumnRates, tensors: &[(String, Vec<usize>)]) -> Result<CodeFiles> {
        CodeFiles::with(folder, rates, laid(tensors), create)?.ok_or_else(|| no_file(folder))
    }

    /// Creates the files in `folder` for tensors of which it is known whether they stay, with room for those that do. They are
    /// written by [`write_rows`](CodeFiles::write_rows), and not as a sink.
    ///
    /// # Errors
    /// As [`create`](CodeFiles::create).
    pub fn create_settled(
        folder: &Path,
        rates: ColumnRates,
        tensors: &[(String, Vec<usize>)],
        stays: impl Fn(usize) -> bool,
    ) -> Result<CodeFiles> {
        let mut tensors = laid(tensors);
        tensors.iter_mut().enumerate().for_each(|(index, tensor)| tensor.stays = Some(stays(index)));
        let mut files = CodeFiles::with(folder, rates, tensors, create)?.ok_or_else(|| no_file(folder))?;
        let CodeFiles { tensors, columns } = &mut files;
        for column in columns {
            for tensor in tensors.iter() {
                column.starts.push(column.tensor_at);
                column.tensor_at += tensor.n_bytes(column);
            }
        }
        Ok(files)
    }

    /// Opens the files that all parts of a job write to, or creates them: each part what its rows have, from `first_row` of
    /// `tensor` on. No tensor of these is dropped.
    ///
    /// # Errors
    /// Rejected: files of another job. Failed: the system refuses.
    pub fn share(
        folder: &Path,
        rates: ColumnRates,
        tensors: &[(String, Vec<usize>)],
        first: Option<(usize, usize)>,
    ) -> Result<CodeFiles> {
        let share = |path: &Path, n_bytes: u64| OutputFile::share(path, n_bytes).map(Some);
        let mut files = CodeFiles::with(folder, rates, laid(tensors), share)?.ok_or_else(|| no_file(folder))?;
        files.go_to(|tensor| first.is_some_and(|(first, _)| tensor < first).then_some(true), first);
        Ok(files)
    }

    /// [n_columns, n_tensors]: the file of each column in `folder`, and where a tensor begins in it where none is dropped.
    ///
    /// # Errors
    /// Rejected: sizes that overflow.
    pub fn places(
        folder: &Path,
        rates: ColumnRates,
        tensors: &[(String, Vec<usize>)],
    ) -> Result<Vec<Vec<(PathBuf, u64)>>> {
        let tensors = laid(tensors);
        let place = |index: usize| {
            let (rate, has_raw) = (rates.rate_of(index), index < rates.n_own);
            let mut at = layout(&tensors, rate, has_raw)?.header().len() as u64;
            let path = folder.join(format!("{}.safetensors", stem(index, rates.n_columns())));
            let begin = |tensor: &Laid| {
                at += tensor.bytes_at(rate, has_raw) as u64;
                (path.clone(), at - tensor.bytes_at(rate, has_raw) as u64)
            };
            Ok(tensors.iter().map(begin).collect())
        };
        (0..rates.n_columns()).map(place).collect()
    }

    /// Opens finished files of tensors that all stay, but for their headers.
    pub fn reopen_all(folder: &Path, rates: ColumnRates, tensors: &[(String, Vec<usize>)]) -> Option<CodeFiles> {
        CodeFiles::reopen(folder, rates, tensors, &Resumed { ended: vec![Some(true); tensors.len()], next: None })
    }

    /// Writes rows of a tensor from `first_row` on, where they belong; several threads at once.
    ///
    /// # Errors
    /// Failed: the system cannot write, or there is no such place.
    pub fn write_rows(&self, column: usize, tensor: usize, first_row: usize, bytes: &[u8]) -> Result<()> {
        let place = self.columns.get(column).zip(self.tensors.get(tensor));
        let place = place.and_then(|(column, tensor_)| Some((column, *column.starts.get(tensor)?, tensor_)));
        let (column, start, tensor) = place.ok_or_else(|| Error::failed("codes of a tensor that was not laid out"))?;
        column.file.write_at(start + column.before(tensor, first_row), bytes)
    }

    /// Opens the files that an interrupted run left, to write on from where it had come; `None` where they are not all there
    /// as [`create`](CodeFiles::create) made them.
    pub fn reopen(
        folder: &Path,
        rates: ColumnRates,
        tensors: &[(String, Vec<usize>)],
        resumed: &Resumed,
    ) -> Option<CodeFiles> {
        let mut files = CodeFiles::with(folder, rates, laid(tensors), OutputFile::reopen).ok()??;
        files.go_to(|tensor| resumed.ended.get(tensor).copied().flatten(), resumed.next);
        Some(files)
    }

    /// Sets the places for tensors that have ended, and stay or not, and for the row of one that comes next.
    fn go_to(&mut self, ended: impl Fn(usize) -> Option<bool>, next: Option<(usize, usize)>) {
        let CodeFiles { tensors, columns } = self;
        for (index, tensor) in tensors.iter_mut().enumerate() {
            tensor.stays = ended(index);
            if tensor.stays == Some(true) {
                columns.iter_mut().for_each(|column| column.tensor_at += tensor.n_bytes(column));
            }
        }
        if let Some((tensor, first_row)) = next
            && first_row > 0
            && let Some(tensor) = tensors.get(tensor)
        {
            columns.iter_mut().for_each(|column| column.begin(tensor, first_row));
        }
    }

    fn with(
        folder: &Path,
        rates: ColumnRates,
        tensors: Vec<Laid>,
        open: impl Fn(&Path, u64) -> Result<Option<OutputFile>>,
    ) -> Result<Option<CodeFiles>> {
        let mut columns = Vec::with_capacity(rates.n_columns());
        for index in 0..rates.n_columns() {
            let (rate, has_raw) = (rates.rate_of(index), index < rates.n_own);
            let layout = layout(&tensors, rate, has_raw)?;
            let name = format!("{}.safetensors", stem(index, rates.n_columns()));
            let header_bytes = layout.header().len() as u64;
            let dropped = tensors.iter().filter(|tensor| tensor.stays == Some(false));
            let dropped_bytes: u64 = dropped.map(|tensor| tensor.bytes_at(rate, has_raw) as u64).sum();
            let n_bytes = layout.file_bytes() - dropped_bytes;
            let Some(file) = open(&folder.join(&name), n_bytes)? else { return Ok(None) };
            let file = file.one_of(rates.n_columns());
            let most_bytes = WRITTEN_BYTES.min(ALL_WRITTEN_BYTES / rates.n_columns().max(1));
            let (tensor_at, pending) = (header_bytes, Pending::new(most_bytes));
            columns.push(Column { name, file, rate, has_raw, header_bytes, tensor_at, starts: Vec::new(), pending });
        }
        Ok(Some(CodeFiles { tensors, columns }))
    }

    /// Bytes that the files of these tensors take at most.
    ///
    /// # Errors
    /// As [`create`](CodeFiles::create), but for the disk.
    pub fn n_bytes(rates: ColumnRates, tensors: &[(String, Vec<usize>)]) -> Result<u64> {
        let tensors = laid(tensors);
        let own = layout(&tensors, rates.rate, true)?.file_bytes();
        let kept = layout(&tensors, rates.kept_rate, false)?.file_bytes();
        let all = own.checked_mul(rates.n_own as u64).zip(kept.checked_mul(rates.n_kept as u64));
        all.and_then(|(own, kept)| own.checked_add(kept)).ok_or_else(|| Error::rejected("more bytes than any disk has"))
    }

    /// Writes the headers and puts everything on the disk. `stored` are the tensors that a task moves, in order; `digests` is
    /// [n_stored, n_columns].
    ///
    /// # Errors
    /// Failed: the system cannot write. Interrupted: each file is waited for, and there may be many.
    pub fn finish(
        self,
        stored: &[(String, Vec<usize>)],
        digests: &TableOfDigests,
        progress: &dyn Progress,
    ) -> Result<Vec<AtomRecord>> {
        let names: std::collections::HashSet<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
        let tensors: Vec<Laid> =
            self.tensors.iter().filter(|tensor| names.contains(tensor.name.as_str())).cloned().collect();
        let differs = self
            .tensors
            .iter()
            .any(|tensor| tensor.n_rows > 0 && (tensor.stays == Some(true)) != names.contains(tensor.name.as_str()));
        if differs {
            return Err(Error::failed("the codes are not of the tensors that the tasks move"));
        }
        let records = self.columns.into_iter().enumerate().map(|(index, column)| {
            progress.check()?;
            let layout = layout(&tensors, column.rate, column.has_raw)?.with_header_bytes(column.header_bytes)?;
            let Column { name, file, tensor_at, .. } = column;
            if layout.file_bytes() != tensor_at {
                return Err(Error::failed(format!(
                    "{name}: {tensor_at} bytes expected, {} found",
                    layout.file_bytes()
                )));
            }
            file.write_at(0, layout.header())?;
            let file = file.cut(layout.file_bytes())?;
            file.sync()?;
            let parts = std::iter::once(Digest::of(layout.header()));
            let in_file =
                tensors.iter().zip(digests.column(index)).filter(|(tensor, _)| tensor.is_coded || column.has_raw);
            Ok(AtomRecord {
                checksum: Digest::of_digests(parts.chain(in_file.map(|(_, digest)| digest))),
                bytes: layout.file_bytes(),
                dtype: Dtype::U8,
                shards: Vec::new(),
                file: name,
            })
        });
        records.collect()
    }
}

/// The checksum of a coded atom that was read: `digest_of` answers each tensor's digest by its name. `None` where it does not
/// know them all.
///
/// # Errors
/// Failed: a header cannot be read again.
pub fn checksum(
    atom: &Checkpoint,
    tensors: &[AtomTensor],
    is_own: bool,
    digest_of: impl Fn(&str) -> Option<Digest>,
) -> Result<Option<Digest>> {
    let mut parts = Vec::with_capacity(tensors.len() + 1);
    for file in atom.files() {
        parts.push(Digest::of(&file.safetensors_header()?));
    }
    for tensor in tensors.iter().filter(|tensor| tensor.coded || is_own) {
        match digest_of(&tensor.name) {
            Some(digest) => parts.push(digest),
            None => return Ok(None),
        }
    }
    Ok(Some(Digest::of_digests(parts)))
}

impl Column {
    /// Sets the places for `first_row` of a tensor that begins where the ones before it have ended.
    fn begin(&mut self, tensor: &Laid, first_row: usize) {
        self.pending.at = self.tensor_at + self.before(tensor, first_row);
    }

    /// Bytes of the tensor before a row that begins a block.
    fn before(&self, tensor: &Laid, row: usize) -> u64 {
        let before = match (tensor.is_coded, self.has_raw) {
            (true, _) => n_blocks(row) * block_bytes(self.rate),
            (false, true) => 2 * row,
            (false, false) => 0,
        };
        before as u64
    }

    fn flush(&mut self) -> Result<()> {
        self.pending.write(&self.file)
    }
}

impl CodeSink for CodeFiles {
    fn put(&mut self, block: &Block, columns: &[Piece<'_>]) -> Result<()> {
        let tensor = self.tensors.get(block.tensor);
        let tensor = tensor.ok_or_else(|| Error::failed("codes of a tensor that was not laid out"))?;
        for (column, piece) in self.columns.iter_mut().zip(columns) {
            if block.first_row == 0 {
                column.begin(tensor, 0);
            }
            match piece {
                Piece::Coded { words, scales } => {
                    column.pending.bytes.extend_from_slice(words);
                    column.pending.put(scales, &column.file)?;
                }
                Piece::Raw(rows) => column.pending.put(rows, &column.file)?,
                Piece::Nothing => {}
            }
        }
        Ok(())
    }

    fn end(&mut self, tensor: usize, stays: bool) -> Result<()> {
        let tensor = self.tensors.get_mut(tensor);
        let tensor = tensor.ok_or_else(|| Error::failed("codes of a tensor that was not laid out"))?;
        tensor.stays = Some(stays);
        for column in &mut self.columns {
            if stays {
                column.flush()?;
                column.tensor_at += tensor.n_bytes(column);
            } else {
                column.pending.bytes.clear();
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        for column in &mut self.columns {
            column.flush()?;
            column.file.sync()?;
        }
        Ok(())
    }
}
