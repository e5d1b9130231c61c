//! New columns of a basis of coded tasks, beside its old ones: read, coded, checked, written, and given names.

use super::frozen::frozen_digests;
use super::newcomers::{Newcomers, fingerprint_of};
use crate::basis::atoms::{CodeFiles, ColumnRates};
use crate::basis::carry::Changing;
use crate::basis::manifest::AtomRecord;
use crate::basis::{Basis, check_read};
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::jobs::compress::check_room;
use crate::matrix::Matrix;
use crate::ops::code::{Growing, Grown, grow};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::Coding;
use std::collections::HashMap;

/// What is coded, and how.
pub(crate) struct Recoding<'a> {
    pub(crate) basis: &'a Basis,
    /// Base and checkpoints.
    pub(crate) columns: &'a Newcomers,
    /// How the columns are coded from now on.
    pub(crate) coding: &'a Coding,
    /// R, the checkpoints' rows of Q, and which own columns they have already: see [`Growing`].
    pub(crate) carried: &'a Matrix,
    pub(crate) kept: &'a Matrix,
    pub(crate) own: Option<&'a [usize]>,
    /// Take a base that is not the basis's.
    pub(crate) force: bool,
}

/// What came of it.
pub(crate) struct Recoded {
    pub(crate) grown: Grown,
    /// Of each checkpoint.
    pub(crate) fingerprints: Vec<Digest>,
    /// The new files: own columns, then the shared ones.
    pub(crate) records: Vec<AtomRecord>,
    /// \[K'\]: the squared length of what each shared column's code loses.
    pub(crate) lost: Vec<f64>,
}

impl Recoding<'_> {
    /// Reads base, checkpoints and old codes once (`n_bytes`, for the display) and writes the new columns into the folder on its way.
    ///
    /// # Errors
    /// Rejected: another base, damaged codes, checkpoints that do not fit, too little room. Failed: I/O. Interrupted.
    pub(crate) fn run(
        &self,
        changing: &Changing<'_>,
        (stage, n_bytes): (&'static str, u64),
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Recoded> {
        let Recoding { basis, columns: Newcomers { base, tasks }, coding, carried, kept, own, force } = *self;
        let atoms = basis.coded_atoms(0..basis.manifest.atoms.len())?;
        let stored: Vec<_> = atoms.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let (n_own, n_kept) = (if own.is_some() { 0 } else { tasks.len() }, coding.n_kept());
        let rates = ColumnRates { rate: coding.rate, n_own, kept_rate: coding.kept_rate, n_kept };
        check_room(&changing.target(), CodeFiles::n_bytes(rates, &stored)?)?;
        let folder = changing.room()?;
        let files = CodeFiles::create_settled(&folder, rates, &stored, |_| true)?;
        let number: HashMap<&str, usize> =
            stored.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let mut write = |column: usize, tensor: &str, first_row: usize, pieces: &[&[u8]]| {
            let tensor = number.get(tensor).ok_or_else(|| Error::failed("codes of a tensor that is not stored"))?;
            files.write_rows(column, *tensor, first_row, &pieces.concat())
        };
        progress.begin(stage, n_bytes);
        let frozen = frozen_digests(base, tasks, &basis.manifest.frozen, runtime, progress)?;
        let (rate, kept_rate) = (coding.rate, coding.kept_rate);
        let growing = Growing { atoms: &atoms, rate, kept_rate, carried, kept, own };
        let mut grown = grow(base, tasks, growing, &mut write, runtime, progress)?;
        progress.finish();
        let (of_base, of_tasks) = frozen.split_first().ok_or_else(|| Error::failed("a base that was not read"))?;
        grown.read.base.extend(of_base.iter().map(|(name, digest)| (name.clone(), *digest)));
        check_read(&grown.read, basis, (!force).then_some(base))?;
        let written = stored.iter().flat_map(|(name, _)| grown.written.get(name).into_iter().flatten().copied());
        let digests = TableOfDigests { n_columns: rates.n_columns(), digests: written.collect() };
        let records = changing.adopt(&folder, files.finish(&stored, &digests, progress)?)?;
        let read = tasks.iter().zip(&grown.newcomers).zip(of_tasks);
        let fingerprints = read.map(|((task, moved), still)| {
            fingerprint_of(task, moved.iter().chain(still).map(|(name, digest)| (name.as_str(), *digest)))
        });
        let fingerprints = fingerprints.collect();
        let lost = (0..n_kept).map(|k| grown.sums.values().map(|sums| sums.lost(tasks.len() + k)).sum()).collect();
        Ok(Recoded { grown, fingerprints, records, lost })
    }
}
