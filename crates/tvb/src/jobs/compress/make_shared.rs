//! The folder of a basis of adapters in shared spaces, filled: the spaces, each task's cores, and what is kept as it is.

use super::forecast::check_room;
use super::make::Make;
use super::make_factors::{difference, factor_tensor};
use super::share::{Share, in_words, share};
use super::sharing::shared_parts;
use crate::basis::atoms::factors;
use crate::basis::atoms::shared::{self, Written};
use crate::basis::coefficients::{self, Solution, Triangles};
use crate::basis::describe::{Described, describe};
use crate::basis::manifest::FactorsRecord;
use crate::columns::plan::PlannedTensor;
use crate::error::{Error, Result};
use crate::ops::Grams;
use crate::solve::{Method, Solved, as_they_are};
use serde_json::json;
use tvb_kernels::Dtype as Float;

impl Make<'_> {
    /// Fills the partial output with adapters in shared spaces of rank `rank`.
    pub(super) fn make_shared(&self, grams: &Grams, rank: usize) -> Result<()> {
        let Make { plan, options, runtime, progress, staged, .. } = *self;
        let dtype = options.dtype;
        let Share { tensors, gram, recovered, assessment } =
            share(plan, grams, (rank, dtype), &options.output, runtime, progress)?;
        let share = Share { tensors, gram, recovered, assessment };
        let stored: Vec<(usize, &PlannedTensor)> = plan
            .tensors
            .iter()
            .enumerate()
            .filter(|(number, _)| grams.tensors.get(*number).is_some_and(|tensor| !tensor.frozen))
            .collect();
        // For each stored tensor, what is shared of it.
        let of_stored: Vec<_> =
            stored.iter().map(|(number, _)| share.tensors.iter().find(|tensor| tensor.number == *number)).collect();
        let planned: Vec<&PlannedTensor> = stored.iter().map(|(_, planned)| *planned).collect();
        let parts = |task: usize| {
            let core_of = |place: usize| of_stored.get(place)?.as_ref()?.cores.get(task)?.as_deref();
            shared_parts(plan, &planned, task + 1, (rank, dtype), core_of)
        };
        let sides: Vec<Written<'_>> = planned
            .iter()
            .zip(&of_stored)
            .filter_map(|(planned, of)| {
                let of = of.as_ref()?;
                Some(Written { name: &planned.name, left: &of.left, right: &of.right })
            })
            .collect();
        let sizes: Vec<_> = sides.iter().map(|of| (of.name, of.left.len() / rank, of.right.len() / rank)).collect();
        let mut n_bytes = shared::n_bytes(&sizes, rank, dtype)?;
        for task in 0..plan.tasks.len() {
            n_bytes = n_bytes.saturating_add(factors::n_bytes(&parts(task))?);
        }
        progress.note(&in_words(&share, grams, rank, n_bytes));
        check_room(&options.output, n_bytes)?;
        progress.begin("factors", n_bytes);
        let record = if sides.is_empty() { None } else { Some(shared::write(staged.path(), &sides, rank, dtype)?) };
        let mut atoms = Vec::with_capacity(plan.tasks.len());
        for task in 0..plan.tasks.len() {
            progress.check()?;
            let dense = |place: usize, first: usize, out: &mut [f32]| match planned.get(place) {
                Some(planned) => difference(plan, planned, task + 1, first, out),
                None => Err(Error::failed("a tensor that is not stored was asked for")),
            };
            let atom = factors::write(staged.path(), (task, plan.tasks.len()), &parts(task), dense)?;
            progress.advance(atom.bytes);
            atoms.push(atom);
        }
        (0..plan.n_columns()).try_for_each(|column| plan.column_checkpoint(column).check_unchanged())?;
        progress.finish();
        let tensors = planned.iter().zip(&of_stored);
        let tensors = tensors.map(|(planned, of)| factor_tensor(plan, planned, of.is_some())).collect();
        let is_shared = record.is_some();
        let solved =
            Solved { gram: share.gram, coefficients: as_they_are(plan.tasks.len()), assessment: share.assessment };
        let solution = Solution {
            encode: &solved.coefficients.encode,
            decode: &solved.coefficients.decode,
            mix: None,
            kept: None,
            recovered: is_shared.then_some(&share.recovered),
            eigenvalues: &solved.gram.spectrum().values,
            gram_errors: None,
        };
        let file = coefficients::write(staged.path(), Some(Triangles::of(grams)), &solution)?;
        let described = Described {
            grams,
            solved: &solved,
            method: &Method::Identity,
            dtype: Float::F32,
            codes: None,
            factors: Some(FactorsRecord { tensors, shared: record }),
        };
        let mut manifest = describe(&described, atoms, file);
        if let Some(options) = manifest.method.options.as_object_mut() {
            options.insert(SHARED_RANK.to_owned(), json!(rank));
        }
        if !is_shared {
            manifest.notes.push(format!(
                "no tensor takes less in shared spaces of rank {rank}: the factors of all are kept as they are"
            ));
        }
        manifest.write(staged.path())
    }
}

/// What a manifest's options call the rank that was asked for.
const SHARED_RANK: &str = "shared_rank";
