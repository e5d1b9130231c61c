//! One part of a job: the pass over its rows, and what that leaves for the join.

use super::forecast::check_room;
use super::in_f32::check_in_f32;
use super::joining::{PartResult, code_formats, products_recipe};
use super::make::Make;
use super::solving::{choose_atoms, solve_for};
use crate::basis::atoms::part_rows::{ColumnFormat, PartLayout, RowFiles};
use crate::basis::atoms::{AtomFiles, CodeFiles};
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ops::Grams;
use crate::ops::code::{CodedFrom, DividedCodes, code_recipe};
use crate::ops::generated::RawColumns;
use crate::ops::products::Products;
use crate::ops::project::Projection;
use crate::ops::project_part::{pieces, project_part};
use crate::pass::Part;
use crate::pass::part::Piece;
use crate::solve::Method;
use std::path::Path;

/// What the pass over the rows of a part has left.
#[derive(Clone, Debug)]
pub(crate) struct MadePart {
    /// The digest of everything beside the inputs that decided the rows.
    pub recipe: Digest,
    /// Sums and digests.
    pub result: PartResult,
}

impl Make<'_> {
    /// Makes one part: its rows go to files of their own in the partial output, or to where they belong in `shared`.
    pub(super) fn make_part(&self, part: Part, shared: Option<&Path>, grams: Option<&Grams>) -> Result<MadePart> {
        let (recipe, result) = match (&self.options.coding, grams, &self.options.method) {
            (Some(_), grams, _) => self.codes_of_part(part, shared, grams)?,
            (None, Some(grams), Method::Random { seed }) => self.products_of_part(part, *seed, grams)?,
            (None, Some(grams), _) => self.atoms_of_part(part, shared, grams)?,
            (None, None, _) => return Err(Error::failed("atoms without the Gram matrix that they are made from")),
        };
        Ok(MadePart { recipe, result })
    }

    fn codes_of_part(&self, part: Part, shared: Option<&Path>, grams: Option<&Grams>) -> Result<(Digest, PartResult)> {
        let Make { plan, reads, runtime, progress, .. } = *self;
        let (mixed, coding, _) = self.solved_coding(grams)?;
        let from = match (&mixed, grams) {
            (Some(solved), Some(grams)) => CodedFrom::Mixtures(grams, &solved.coefficients.encode),
            (_, grams) => CodedFrom::Tasks(grams),
        };
        let (rates, tensors) = self.code_columns(from, &coding);
        let divided = DividedCodes::new(plan, from, &coding, runtime);
        let own = divided.pieces(part);
        let result = match shared {
            Some(shared) => {
                let first = own.first().map(|piece| (piece.tensor, piece.rows.start));
                check_bytes(shared, &PartLayout::new(own, &tensors), &code_formats(rates))?;
                let mut files = CodeFiles::share(shared, rates, &tensors, first)?;
                divided.code_part(part, reads, &mut files, runtime, progress)?
            }
            None => {
                let mut files = self.own_files(own, &tensors, &code_formats(rates))?;
                let result = divided.code_part(part, reads, &mut files, runtime, progress)?;
                files.finish()?;
                result
            }
        };
        Ok((code_recipe(from, &coding), PartResult::Codes(result)))
    }

    fn atoms_of_part(&self, part: Part, shared: Option<&Path>, grams: &Grams) -> Result<(Digest, PartResult)> {
        let Make { plan, options, reads, runtime, progress, .. } = *self;
        let solved = solve_for(grams, options, &runtime.engine, progress)?;
        check_in_f32(&solved, &grams.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>())?;
        let encode = &solved.coefficients.encode;
        let projection = Projection { plan, grams, encode, dtype: options.dtype, clip: options.clip };
        let tensors = moved(plan, grams);
        let n_atoms = encode.n_columns();
        let formats = vec![ColumnFormat::Floats(options.dtype.into()); n_atoms];
        let own = pieces(&projection, part);
        let result = match shared {
            Some(shared) => {
                check_bytes(shared, &PartLayout::new(own, &tensors), &formats)?;
                let files = AtomFiles::share(shared, n_atoms, &tensors, options.dtype.into())?;
                project_part(&projection, part, reads, &files, runtime, progress)?
            }
            None => {
                let files = self.own_files(own, &tensors, &formats)?;
                let result = project_part(&projection, part, reads, &files, runtime, progress)?;
                files.finish()?;
                result
            }
        };
        Ok((projection.recipe(), PartResult::Atoms(result)))
    }

    fn products_of_part(&self, part: Part, seed: u64, grams: &Grams) -> Result<(Digest, PartResult)> {
        let Make { plan, options, reads, runtime, progress, .. } = *self;
        let (_, n_atoms) = choose_atoms(grams, options, &runtime.engine, progress)?;
        let raw = RawColumns::new(seed, n_atoms, moved(plan, grams))?;
        let result = Products::new(&raw, plan, grams).of_part(part, reads, runtime, progress)?;
        Ok((products_recipe(&raw, grams), PartResult::Products(result)))
    }

    /// Files of this part's rows alone, in its folder.
    fn own_files(
        &self,
        pieces: Vec<Piece>,
        tensors: &[(String, Vec<usize>)],
        formats: &[ColumnFormat],
    ) -> Result<RowFiles> {
        let layout = PartLayout::new(pieces, tensors);
        check_bytes(self.staged.target(), &layout, formats)?;
        RowFiles::create(self.staged.path(), layout, formats)
    }
}

/// Whether a disk has room for the rows of a part.
fn check_bytes(output: &Path, layout: &PartLayout, formats: &[ColumnFormat]) -> Result<()> {
    check_room(output, formats.iter().fold(0, |sum: u64, format| sum.saturating_add(layout.n_bytes(*format))))
}

/// The tensors that move, and their shapes.
fn moved(plan: &Plan, grams: &Grams) -> Vec<(String, Vec<usize>)> {
    let planned = plan.tensors.iter().zip(&grams.tensors).filter(|(_, tensor)| !tensor.frozen);
    planned.map(|(planned, _)| (planned.name.clone(), planned.shape.clone())).collect()
}
