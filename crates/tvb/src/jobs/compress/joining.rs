//! All parts of a job in place of its pass over the inputs: their sums and digests added up, their rows put where they belong.
//! What comes after the pass is what one run does, and so are its bytes.

use crate::basis::atoms::join_rows::{Joined, RowsOfPart, RowsPlace, SharedPlaces, check_borders, copy_rows};
use crate::basis::atoms::part_rows::{ColumnFormat, PartLayout};
use crate::basis::atoms::{AtomFiles, CodeFiles, ColumnRates, shared_rows};
use crate::basis::part_file::{PartFile, PartKind};
use crate::checkpoint::Budget;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::Grams;
use crate::ops::code::{Coded, CodedFrom, CodedPart, DividedCodes, code_recipe};
use crate::ops::generated::RawColumns;
use crate::ops::products::{Products, ProductsPart};
use crate::ops::project::{Projected, Projection};
use crate::ops::project_part::{AtomsPart, join_projected, pieces};
use crate::ops::range::ClippedTensor;
use crate::pass::part::{Piece, n_kept};
use crate::pass::{Part, Runtime};
use crate::progress::Progress;
use crate::shown::shown_path;
use crate::solve::Coding;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the pass over the rows of one part leaves beside rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PartResult {
    /// Of tasks or mixtures that are coded.
    Codes(CodedPart),
    /// Of atoms that are stored as floats.
    Atoms(AtomsPart),
    /// Of atoms that are made from a seed.
    Products(ProductsPart),
}

/// What the tables of a part's file are called.
pub(crate) const SUMS: &str = "sums";
/// Of what was read.
pub(crate) const READ: &str = "read";
/// Of what was written.
pub(crate) const WRITTEN: &str = "written";

/// One part of a job.
#[derive(Clone, Debug)]
pub(crate) struct PartOfJob {
    /// Which one.
    pub part: Part,
    /// Its folder.
    pub folder: PathBuf,
    /// Of its record.
    pub checksum: Digest,
    /// What was clipped in it.
    pub clipped: Vec<ClippedTensor>,
}

/// All parts of a job, in order.
#[derive(Clone, Debug)]
pub(crate) struct PartsOfJob {
    /// What they are parts of.
    pub kind: PartKind,
    /// The parts.
    pub parts: Vec<PartOfJob>,
    /// The folder that all wrote their rows to; `None` where each has its own.
    pub shared: Option<PathBuf>,
    /// The digest of everything beside the inputs that decided their rows.
    pub recipe: Digest,
    /// What reading of them may take.
    pub budget: Budget,
}

impl PartOfJob {
    /// What messages call it.
    fn name(&self) -> String {
        format!("part {} in {}", self.part, shown_path(&self.folder))
    }

    /// Opens its record again.
    fn open(&self, budget: &Budget) -> Result<PartFile> {
        PartFile::reopen(&self.folder, self.checksum, budget)
    }
}

/// Of generated columns: what decides the products beside the inputs.
pub(super) fn products_recipe(raw: &RawColumns, grams: &Grams) -> Digest {
    let mut bytes = format!("random {} {}\n", raw.generator.seed, raw.n_columns).into_bytes();
    bytes.extend(grams.tensors.iter().map(|tensor| u8::from(tensor.frozen)));
    bytes.extend(grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()));
    Digest::of(&bytes)
}

/// What the columns of coded atoms have of each row.
pub(super) fn code_formats(rates: ColumnRates) -> Vec<ColumnFormat> {
    let format = |column: usize| ColumnFormat::Codes { rate: rates.rate_of(column), has_raw: column < rates.n_own };
    (0..rates.n_columns()).map(format).collect()
}

impl PartsOfJob {
    /// In place of a coding pass: the files in `folder`, without their headers, and what the pass answers.
    pub(super) fn codes(
        &self,
        plan: &Plan,
        (from, coding): (CodedFrom<'_>, &Coding),
        (rates, tensors): (ColumnRates, &[(String, Vec<usize>)]),
        folder: &Path,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<(CodeFiles, Coded)> {
        self.check_recipe(code_recipe(from, coding))?;
        let divided = DividedCodes::new(plan, from, coding, runtime);
        self.check_kind(PartKind::Codes)?;
        let (mut joining, (n_values, n_read, n_written)) = (divided.joining(), divided.widths());
        let mut digests = Vec::with_capacity(self.parts.len());
        for of_job in &self.parts {
            progress.check()?;
            let mut file = of_job.open(&self.budget)?;
            let (n_sums, n_digests) = n_kept(&divided.pieces(of_job.part));
            let found = CodedPart {
                n_values,
                n_columns: n_written,
                sums: file.sums(SUMS, n_sums, n_values)?,
                read: file.digests(READ, n_digests, n_read)?,
                written: file.digests(WRITTEN, n_digests, n_written)?,
            };
            file.finish()?;
            joining.add(of_job.part, &found)?;
            digests.push(found.written);
        }
        let coded = joining.finish(plan)?;
        let stays = |tensor: usize| match &coded.grams {
            Some(grams) => grams.tensors.get(tensor).is_some_and(|tensor| !tensor.frozen),
            None => true,
        };
        let formats = code_formats(rates);
        let all_stay = (0..tensors.len()).all(stays);
        let places = |folder: &Path| CodeFiles::places(folder, rates, tensors);
        if let Some(shared) = self.shared.as_deref().filter(|_| all_stay) {
            let places = places(shared)?;
            let names =
                places.iter().filter_map(|of_tensors| of_tensors.first()).filter_map(|(path, _)| path.file_name());
            shared_rows::take_over(shared, names, folder)?;
            let rows = self.rows(|part| divided.pieces(part), tensors, digests, Some(places));
            check_borders(&rows, &formats, runtime.n_threads, progress)?;
            let files =
                CodeFiles::reopen_all(folder, rates, tensors).ok_or_else(|| shared_rows::not_as_left(shared))?;
            return Ok((files, coded));
        }
        let shared = self.shared.as_deref().map(places).transpose()?;
        let files = CodeFiles::create_settled(folder, rates, tensors, stays)?;
        let rows = self.rows(|part| divided.pieces(part), tensors, digests, shared);
        copy_rows(&rows, &formats, &stays, Joined::Codes(&files), runtime.n_threads, progress)?;
        Ok((files, coded))
    }

    /// In place of a projection: the files in `folder`, and what it answers.
    pub(super) fn atoms(
        &self,
        projection: &Projection<'_>,
        tensors: &[(String, Vec<usize>)],
        folder: &Path,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<(AtomFiles, Projected)> {
        self.check_recipe(projection.recipe())?;
        self.check_kind(PartKind::Atoms)?;
        let (n_read, n_written) = (projection.plan.n_columns(), projection.encode.n_columns());
        let mut found = Vec::with_capacity(self.parts.len());
        for of_job in &self.parts {
            progress.check()?;
            let mut file = of_job.open(&self.budget)?;
            let (_, n_digests) = n_kept(&pieces(projection, of_job.part));
            let own = AtomsPart {
                n_atoms: n_written,
                read: file.digests(READ, n_digests, n_read)?,
                written: file.digests(WRITTEN, n_digests, n_written)?,
                clipped: of_job.clipped.clone(),
            };
            file.finish()?;
            found.push((of_job.part, own));
        }
        let projected = join_projected(projection, &found)?;
        let digests = found.into_iter().map(|(_, own)| own.written).collect();
        let (n_atoms, dtype) = (projection.encode.n_columns(), projection.dtype.into());
        let formats = vec![ColumnFormat::Floats(dtype); n_atoms];
        let pieces = |part| pieces(projection, part);
        if let Some(shared) = &self.shared {
            let names = AtomFiles::names(n_atoms, tensors, dtype)?;
            shared_rows::take_over(shared, names.iter().map(AsRef::as_ref), folder)?;
            let places = AtomFiles::places(shared, n_atoms, tensors, dtype)?;
            check_borders(&self.rows(pieces, tensors, digests, Some(places)), &formats, runtime.n_threads, progress)?;
            let files =
                AtomFiles::reopen(folder, n_atoms, tensors, dtype).ok_or_else(|| shared_rows::not_as_left(shared))?;
            return Ok((files, projected));
        }
        let files = AtomFiles::create(folder, n_atoms, tensors, dtype)?;
        let rows = self.rows(pieces, tensors, digests, None);
        copy_rows(&rows, &formats, &|_| true, Joined::Floats(&files), runtime.n_threads, progress)?;
        Ok((files, projected))
    }

    /// In place of the pass that measures generated columns.
    pub(super) fn products(&self, raw: &RawColumns, plan: &Plan, grams: &Grams) -> Result<(Matrix, Matrix)> {
        self.check_recipe(products_recipe(raw, grams))?;
        self.check_kind(PartKind::Products)?;
        let products = Products::new(raw, plan, grams);
        let (n_values, n_read) = products.widths();
        let mut found = Vec::with_capacity(self.parts.len());
        for of_job in &self.parts {
            let mut file = of_job.open(&self.budget)?;
            let (n_sums, n_digests) = n_kept(&products.pieces(of_job.part));
            let own = ProductsPart {
                n_values,
                sums: file.sums(SUMS, n_sums, n_values)?,
                read: file.digests(READ, n_digests, n_read)?,
            };
            file.finish()?;
            found.push((of_job.part, own));
        }
        products.join(plan, grams, &found)
    }

    /// The rows of every part, in its own files or in those that all share.
    fn rows(
        &self,
        pieces: impl Fn(Part) -> Vec<Piece>,
        tensors: &[(String, Vec<usize>)],
        digests: Vec<Vec<Digest>>,
        shared: Option<SharedPlaces>,
    ) -> Vec<RowsOfPart> {
        let shared = shared.map(Arc::new);
        let of_part = |(of_job, digests): (&PartOfJob, Vec<Digest>)| RowsOfPart {
            name: of_job.name(),
            layout: PartLayout::new(pieces(of_job.part), tensors),
            digests,
            place: match &shared {
                Some(shared) => RowsPlace::Shared(Arc::clone(shared)),
                None => RowsPlace::Own(of_job.folder.clone()),
            },
        };
        self.parts.iter().zip(digests).map(of_part).collect()
    }

    fn check_kind(&self, kind: PartKind) -> Result<()> {
        if kind == self.kind {
            return Ok(());
        }
        let (expected, found) = (kind.in_words(), self.kind.in_words());
        Err(Error::rejected(format!("parts of {expected} expected, as their options say, parts of {found} found"))
            .hint("run the parts again"))
    }

    /// Whether what is solved here is what the parts were made of.
    fn check_recipe(&self, recipe: Digest) -> Result<()> {
        if recipe == self.recipe {
            return Ok(());
        }
        Err(Error::rejected("the coefficients that are found here are not those that the parts were made with")
            .hint("join on a machine of the kind that made the parts, with the same version of this program"))
    }
}
