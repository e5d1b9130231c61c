//! All parts of a job in place of its pass over the inputs: their sums and digests added up, their rows put where they belong.
//! What comes after the pass is what one run does, and so are its bytes.

use crate::basis::atoms::join_rows::{Joined, RowsOfPart, RowsPlace, SharedPlaces, check_borders, copy_rows};
use crate::basis::atoms::part_rows::{ColumnFormat, PartLayout};
use crate::basis::atoms::{AtomFiles, CodeFiles, ColumnRates};
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
use crate::pass::part::Piece;
use crate::pass::{Part, Runtime};
use crate::progress::Progress;
use crate::solve::Coding;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the pass over the rows of one part leaves beside rows.
#[derive(Clone, Debug, PartialEq)]
pub enum PartResult {
    /// Of tasks or mixtures that are coded.
    Codes(CodedPart),
    /// Of atoms that are stored as floats.
    Atoms(AtomsPart),
    /// Of atoms that are made from a seed.
    Products(ProductsPart),
}

/// One part of a job.
#[derive(Clone, Debug)]
pub struct PartOfJob {
    /// Which one.
    pub part: Part,
    /// What messages call it.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it left.
    pub result: PartResult,
}

/// All parts of a job, in order.
#[derive(Clone, Debug)]
pub struct PartsOfJob {
    /// The parts.
    pub parts: Vec<PartOfJob>,
    /// The folder that all wrote their rows to; `None` where each has its own.
    pub shared: Option<PathBuf>,
    /// The digest of everything beside the inputs that decided their rows.
    pub recipe: Digest,
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
        let mut joining = divided.joining();
        for of_job in &self.parts {
            let PartResult::Codes(found) = &of_job.result else { return Err(other_kind(of_job)) };
            joining.add(of_job.part, found)?;
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
            let names = places.iter().filter_map(|of_tensors| of_tensors.first()).filter_map(|(path, _)| path.file_name());
            take_over(shared, names, folder)?;
            let rows = self.rows(|part| divided.pieces(part), tensors, Some(places));
            check_borders(&rows, &formats, runtime.n_threads, progress)?;
            let files = CodeFiles::reopen_all(folder, rates, tensors).ok_or_else(|| not_as_left(shared))?;
            return Ok((files, coded));
        }
        let shared = self.shared.as_deref().map(places).transpose()?;
        let files = CodeFiles::create_settled(folder, rates, tensors, stays)?;
        let rows = self.rows(|part| divided.pieces(part), tensors, shared);
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
        let found = self.parts.iter().map(|of_job| match &of_job.result {
            PartResult::Atoms(found) => Ok((of_job.part, found.clone())),
            _ => Err(other_kind(of_job)),
        });
        let projected = join_projected(projection, &found.collect::<Result<Vec<_>>>()?)?;
        let (n_atoms, dtype) = (projection.encode.n_columns(), projection.dtype.into());
        let formats = vec![ColumnFormat::Floats(dtype); n_atoms];
        let pieces = |part| pieces(projection, part);
        if let Some(shared) = &self.shared {
            let names = AtomFiles::names(n_atoms, tensors, dtype)?;
            take_over(shared, names.iter().map(AsRef::as_ref), folder)?;
            let places = AtomFiles::places(shared, n_atoms, tensors, dtype)?;
            check_borders(&self.rows(pieces, tensors, Some(places)), &formats, runtime.n_threads, progress)?;
            let files = AtomFiles::reopen(folder, n_atoms, tensors, dtype).ok_or_else(|| not_as_left(shared))?;
            return Ok((files, projected));
        }
        let files = AtomFiles::create(folder, n_atoms, tensors, dtype)?;
        let rows = self.rows(pieces, tensors, None);
        copy_rows(&rows, &formats, &|_| true, Joined::Floats(&files), runtime.n_threads, progress)?;
        Ok((files, projected))
    }

    /// In place of the pass that measures generated columns.
    pub(super) fn products(&self, raw: &RawColumns, plan: &Plan, grams: &Grams) -> Result<(Matrix, Matrix)> {
        self.check_recipe(products_recipe(raw, grams))?;
        let found = self.parts.iter().map(|of_job| match &of_job.result {
            PartResult::Products(found) => Ok((of_job.part, found.clone())),
            _ => Err(other_kind(of_job)),
        });
        Products::new(raw, plan, grams).join(plan, grams, &found.collect::<Result<Vec<_>>>()?)
    }

    /// The rows of every part, in its own files or in those that all share.
    fn rows(
        &self,
        pieces: impl Fn(Part) -> Vec<Piece>,
        tensors: &[(String, Vec<usize>)],
        shared: Option<SharedPlaces>,
    ) -> Vec<RowsOfPart> {
        let shared = shared.map(Arc::new);
        let of_part = |of_job: &PartOfJob| RowsOfPart {
            name: of_job.name.clone(),
            layout: PartLayout::new(pieces(of_job.part), tensors),
            digests: match &of_job.result {
                PartResult::Codes(found) => found.written.clone(),
                PartResult::Atoms(found) => found.written.clone(),
                PartResult::Products(_) => Vec::new(),
            },
            place: match &shared {
                Some(shared) => RowsPlace::Shared(Arc::clone(shared)),
                None => RowsPlace::Own(of_job.folder.clone()),
            },
        };
        self.parts.iter().map(of_part).collect()
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

fn other_kind(of_job: &PartOfJob) -> Error {
    Error::rejected(format!("{}: rows of another kind of basis found", of_job.name)).hint("run this part again")
}

fn not_as_left(shared: &Path) -> Error {
    Error::rejected(format!("{}: its files are not as the parts left them", shared.display()))
        .hint("run the parts again, into another folder")
}

/// Lets files that all parts have written appear in `folder` too: by a second name where the file system has such, else by a
/// copy. They stay where they are until the job is complete.
fn take_over<'n>(
    shared: &Path,
    names: impl IntoIterator<Item = &'n std::ffi::OsStr>,
    folder: &Path,
) -> Result<()> {
    for name in names {
        let (from, to) = (shared.join(name), folder.join(name));
        if !std::fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
            return Err(not_as_left(shared));
        }
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).map_err(|error| Error::io("copying", &from, &error))?;
        }
    }
    Ok(())
}
