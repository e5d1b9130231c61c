//! The folder of a coded basis, filled: Gram and codes, in one pass over the inputs where the tasks are coded as they are.

use super::forecast::check_room;
use super::in_f32::check_in_f32;
use super::make::Make;
use super::solving::{gram_of, parts_of, solve_for};
use crate::basis::atoms::{CodeFiles, ColumnRates};
use crate::basis::coefficients::{self, Solution, Triangles};
use crate::basis::describe::{Described, DescribedCodes, describe};
use crate::error::{Error, Result};
use crate::jobs::bookmarks::BookmarkFolder;
use crate::ops::Grams;
use crate::ops::code::{Coded, CodedFrom, code, find_code_bookmark};
use crate::solve::{Coding, Method, Solved, as_they_are, assess};

impl Make<'_> {
    /// Fills the partial output with a coded basis.
    pub(super) fn make_coded(&self, given: Option<Grams>, bookmarks: &mut BookmarkFolder) -> Result<()> {
        let Make { progress, staged, .. } = *self;
        let (mixed, coding, kept) = self.solved_coding(given.as_ref())?;
        let is_mixed = mixed.is_some();
        let from = match (&mixed, &given) {
            (Some(solved), Some(grams)) => CodedFrom::Mixtures(grams, &solved.coefficients.encode),
            (_, grams) => CodedFrom::Tasks(grams.as_ref()),
        };
        let (files, coded) = self.code(from, &coding, bookmarks)?;
        let Coded { grams, measured, digests } = coded;
        let grams = grams.or(given).ok_or_else(|| Error::failed("codes without their Gram matrix"))?;
        let parts = parts_of(&grams);
        let solved = match mixed {
            Some(solved) => solved,
            None => {
                let gram = gram_of(&grams, self.options, &self.runtime.engine, progress)?;
                let coefficients = as_they_are(gram.n_tasks());
                Solved { assessment: assess(&gram, &coefficients)?, gram, coefficients }
            }
        };
        let sizes = parts.sizes(&solved.coefficients);
        let Solved { gram, coefficients, assessment } = solved;
        let assessment = assessment.coded(&gram, &coefficients, &coding, &sizes)?;
        let solved = Solved { gram, coefficients, assessment };
        let stored: Vec<_> = grams
            .tensors
            .iter()
            .filter(|tensor| !tensor.frozen)
            .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
            .collect();
        let atoms = files.finish(&stored, &digests, progress)?;
        let solution = Solution {
            encode: &solved.coefficients.encode,
            decode: &solved.coefficients.decode,
            mix: None,
            kept: Some(&coding.kept).filter(|kept| kept.n_columns() > 0),
            recovered: None,
            eigenvalues: &solved.gram.spectrum().values,
            gram_errors: None,
        };
        let file = coefficients::write(staged.path(), Some(Triangles::of(&grams)), &solution)?;
        progress.check()?;
        let codes = DescribedCodes { coding: &coding, kept, measured: &measured, of_tasks: !is_mixed };
        let described = Described {
            grams: &grams,
            solved: &solved,
            method: &self.options.method,
            dtype: self.options.dtype,
            codes: Some(codes),
            factors: None,
        };
        describe(&described, atoms, file).write(staged.path())
    }

    /// What mixtures are solved to, where that is what is coded; how the atoms are coded, and the words for what is kept.
    pub(super) fn solved_coding(&self, grams: Option<&Grams>) -> Result<(Option<Solved>, Coding, Vec<String>)> {
        let options = self.options.coding.clone().unwrap_or_default();
        let is_mixed = !matches!(self.options.method, Method::Identity);
        let mixed = match grams {
            Some(grams) if is_mixed => {
                let solved = solve_for(grams, self.options, &self.runtime.engine, self.progress)?;
                check_in_f32(&solved, &grams.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>())?;
                Some(solved)
            }
            _ => None,
        };
        let (coding, kept) = match &mixed {
            Some(solved) => options.coding(&solved.coefficients)?,
            None => options.coding(&as_they_are(self.plan.tasks.len()))?,
        };
        Ok((mixed, coding, kept))
    }

    /// The rates of the columns, and the tensors that room is made for.
    pub(super) fn code_columns(
        &self,
        from: CodedFrom<'_>,
        coding: &Coding,
    ) -> (ColumnRates, Vec<(String, Vec<usize>)>) {
        let tensors = self.laid_out(from.grams());
        let n_own = from.n_own(self.plan);
        (ColumnRates { rate: coding.rate, n_own, kept_rate: coding.kept_rate, n_kept: coding.n_kept() }, tensors)
    }

    /// Runs the coding pass, from where an interrupted run of the same pass stopped, where there is one; or takes what all
    /// parts have left of it.
    fn code(&self, from: CodedFrom<'_>, coding: &Coding, bookmarks: &mut BookmarkFolder) -> Result<(CodeFiles, Coded)> {
        let Make { plan, options, reads, runtime, progress, staged, parts } = *self;
        let (rates, tensors) = self.code_columns(from, coding);
        if let Some(parts) = parts {
            return parts.codes(plan, (from, coding), (rates, &tensors), staged.path(), runtime, progress);
        }
        let found = find_code_bookmark(plan, from, coding, runtime, bookmarks);
        let reopened = found.and_then(|(bookmark, resumed)| {
            let files = CodeFiles::reopen(staged.path(), rates, &tensors, &resumed)?;
            Some((files, Some(bookmark)))
        });
        let (mut files, bookmark) = match reopened {
            Some(resumed) => resumed,
            None => {
                bookmarks.clear_beside()?;
                check_room(&options.output, CodeFiles::n_bytes(rates, &tensors)?)?;
                (CodeFiles::create(staged.path(), rates, &tensors)?, None)
            }
        };
        let coded = code(plan, from, coding, reads, &mut files, bookmark, runtime, progress, bookmarks)?;
        Ok((files, coded))
    }

    /// The tensors that room is made for: those that move, or all where that is not known yet.
    fn laid_out(&self, grams: Option<&Grams>) -> Vec<(String, Vec<usize>)> {
        let planned = self.plan.tensors.iter().enumerate();
        let moves = |index: usize| grams.and_then(|grams| grams.tensors.get(index)).is_none_or(|tensor| !tensor.frozen);
        planned
            .filter(|(index, _)| moves(*index))
            .map(|(_, tensor)| (tensor.name.clone(), tensor.shape.clone()))
            .collect()
    }
}
