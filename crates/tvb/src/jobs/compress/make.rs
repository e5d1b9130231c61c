//! The folder of a basis, filled: Gram, solve, atoms, coefficients, manifest.

use super::forecast::{check_room, check_room_before_reading, weighed};
use super::in_f32::check_in_f32;
use super::joining::PartsOfJob;
use super::options::CompressOptions;
use super::solving::{choose_atoms, chosen, solve_for, solve_random};
use crate::basis::atoms::AtomFiles;
use crate::basis::coefficients::{self, Solution, Triangles};
use crate::basis::describe::{Described, describe};
use crate::basis::gram_file;
use crate::basis::manifest::AtomRecord;
use crate::checkpoint::StagedOutput;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::jobs::bookmarks::BookmarkFolder;
use crate::jobs::gram::resumed_gram;
use crate::matrix::Matrix;
use crate::ops::Grams;
use crate::ops::generated::RawColumns;
use crate::ops::products::products;
use crate::ops::project::{Projection, find_bookmark, project_from};
use crate::ops::range::Clipped;
use crate::ops::same_inputs::check_same_inputs;
use crate::pass::{Reads, Runtime};
use crate::progress::Progress;
use crate::solve::Method;
use serde_json::json;

/// What a manifest's options call the values that were clipped, where there are any.
pub(crate) const CLIPPED: &str = "clipped";

/// Everything that is given.
#[derive(Clone, Copy)]
pub(super) struct Make<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a CompressOptions,
    pub(super) reads: &'a Reads,
    pub(super) runtime: &'a Runtime,
    pub(super) progress: &'a dyn Progress,
    pub(super) staged: &'a StagedOutput,
    /// What all parts of the job have left, in place of its pass over the inputs.
    pub(super) parts: Option<&'a PartsOfJob>,
}

impl Make<'_> {
    /// Fills the partial output with a basis.
    pub(super) fn make(&self, bookmarks: &mut BookmarkFolder) -> Result<()> {
        let Make { plan, options, reads, runtime, progress, staged, .. } = *self;
        if let Some(rank) = options.shared_rank {
            let grams = match &options.gram {
                Some(path) => gram_file::read_within(path, &runtime.budget)?,
                None => resumed_gram(plan, reads, bookmarks, runtime, progress)?,
            };
            check_same_inputs(plan, &grams)?;
            bookmarks.clear_beside()?;
            return self.make_shared(&grams, rank);
        }
        let weighed = weighed(plan, options)?;
        if let Some(weighed) = weighed {
            progress.note(&weighed.in_words());
        }
        let factors_bytes = weighed.filter(|weighed| weighed.keeps_factors()).map(|weighed| weighed.factors);
        let grams = match &options.gram {
            Some(path) => Some(gram_file::read_within(path, &runtime.budget)?),
            None if factors_bytes.is_some() => Some(resumed_gram(plan, reads, bookmarks, runtime, progress)?),
            None if options.needs_gram_first(&runtime.engine) => {
                // What an interrupted run reserved is no longer free and need not be.
                if !staged.resumed() {
                    check_room_before_reading(plan, options)?;
                }
                Some(resumed_gram(plan, reads, bookmarks, runtime, progress)?)
            }
            None => None,
        };
        if let Some(grams) = &grams {
            check_same_inputs(plan, grams)?;
        }
        if let (Some(n_bytes), Some(grams)) = (factors_bytes, &grams) {
            bookmarks.clear_beside()?;
            return self.make_factors(grams, n_bytes);
        }
        let options = chosen(plan, options, grams.as_ref(), &runtime.engine, progress)?;
        let make = Make { options: &options, ..*self };
        match (&options.coding, grams) {
            (Some(_), grams) => make.make_coded(grams, bookmarks),
            (None, Some(grams)) => make.make_plain(grams, bookmarks),
            (None, None) => Err(Error::failed("atoms without the Gram matrix that they are made from")),
        }
    }

    /// Fills it with a basis whose atoms are stored as floats, or made from a seed.
    pub(super) fn make_plain(&self, grams: Grams, bookmarks: &mut BookmarkFolder) -> Result<()> {
        let Make { plan, options, reads, runtime, progress, staged, .. } = *self;
        let dtype = options.dtype;
        let stored = grams.tensors.iter().filter(|tensor| !tensor.frozen);
        let tensors: Vec<_> = stored.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let (solved, atoms, clipped) = match options.method {
            Method::Random { seed } => {
                let (gram, n_atoms) = choose_atoms(&grams, options, &runtime.engine, progress)?;
                let raw = RawColumns::new(seed, n_atoms, tensors)?;
                let products = match self.parts {
                    Some(parts) => parts.products(&raw, plan, &grams)?,
                    None => products(&raw, plan, &grams, reads, runtime, progress)?,
                };
                (solve_random(gram, &raw, products, progress)?, Vec::new(), Clipped::default())
            }
            _ => {
                let solved = solve_for(&grams, options, &runtime.engine, progress)?;
                check_in_f32(&solved, &grams.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>())?;
                let encode = &solved.coefficients.encode;
                let projection = Projection { plan, grams: &grams, encode, dtype, clip: options.clip };
                let (atoms, clipped) = self.make_atoms(&projection, &tensors, bookmarks)?;
                (solved, atoms, clipped)
            }
        };
        let coefficients = &solved.coefficients;
        let no_encode = Matrix::empty();
        let solution = Solution {
            encode: if coefficients.encode.n_columns() == 0 { &no_encode } else { &coefficients.encode },
            decode: &coefficients.decode,
            mix: coefficients.generated.as_ref().map(|generated| &generated.mix),
            kept: None,
            recovered: None,
            eigenvalues: &solved.gram.spectrum().values,
            gram_errors: None,
        };
        progress.check()?;
        let file = coefficients::write(staged.path(), Some(Triangles::of(&grams)), &solution)?;
        progress.check()?;
        let described =
            Described { grams: &grams, solved: &solved, method: &options.method, dtype, codes: None, factors: None };
        let mut manifest = describe(&described, atoms, file);
        if !clipped.is_none() {
            if let Some(options) = manifest.method.options.as_object_mut() {
                options.insert(CLIPPED.to_owned(), json!(clipped));
            }
            manifest.notes.push(format!("{clipped}: the errors above are of what was not clipped"));
        }
        manifest.write(staged.path())
    }

    /// Projects onto B, from where an interrupted run of the same projection stopped, where there is one.
    fn make_atoms(
        &self,
        projection: &Projection<'_>,
        tensors: &[(String, Vec<usize>)],
        bookmarks: &mut BookmarkFolder,
    ) -> Result<(Vec<AtomRecord>, Clipped)> {
        let Make { options, reads, runtime, progress, staged, parts, .. } = *self;
        if let Some(parts) = parts {
            let (sink, projected) = parts.atoms(projection, tensors, staged.path(), runtime, progress)?;
            return Ok((sink.finish(&projected.digests, progress)?, projected.clipped));
        }
        let (n_atoms, dtype) = (projection.encode.n_columns(), projection.dtype);
        let bookmark = find_bookmark(projection, runtime, bookmarks);
        let reopened = bookmark.and_then(|bookmark| {
            let sink = AtomFiles::reopen(staged.path(), n_atoms, tensors, dtype.into())?;
            Some((sink, Some(bookmark)))
        });
        let (sink, bookmark) = match reopened {
            Some(resumed) => resumed,
            None => {
                bookmarks.clear_beside()?;
                check_room(&options.output, n_atoms as u64 * projection.grams.moved_bytes(dtype.into()))?;
                (AtomFiles::create(staged.path(), n_atoms, tensors, dtype.into())?, None)
            }
        };
        let projected = project_from(projection, reads, &sink, bookmark, runtime, progress, bookmarks)?;
        Ok((sink.finish(&projected.digests, progress)?, projected.clipped))
    }
}
