//! The folder of a basis of adapters, filled: each task's factors as they are, and what it replaces as a whole beside them.

use super::forecast::check_room;
use super::make::Make;
use super::of_adapter::parts_of;
use super::solving::gram_of;
use crate::basis::atoms::factors;
use crate::basis::coefficients::{self, Solution, Triangles};
use crate::basis::describe::{Described, describe};
use crate::basis::manifest::{FactorTensor, FactorsRecord, ModuleRecord};
use crate::checkpoint::{Dtype, Module, Place};
use crate::columns::plan::{Plan, PlannedTensor};
use crate::error::{Error, Result};
use crate::ops::Grams;
use crate::solve::{Method, Solved, as_they_are, assess};
use tvb_kernels::Dtype as Float;

/// Whose weight a tensor is, where all tasks that move it by factors say the same.
fn module_of<'a>(plan: &'a Plan, planned: &PlannedTensor) -> Option<&'a Module> {
    let places = (1..plan.n_columns()).map(|column| &plan.column_tensor(planned, column).place);
    let mut all = places.filter_map(|place| match place {
        Place::LowRank(factors) => Some(factors.module()),
        _ => None,
    });
    let first = all.next()??;
    all.all(|module| module == Some(first)).then_some(first)
}

impl Make<'_> {
    /// Fills the partial output with a basis of the tasks' own factors.
    pub(super) fn make_factors(&self, grams: &Grams, n_bytes: u64) -> Result<()> {
        let Make { plan, options, progress, staged, .. } = *self;
        check_room(&options.output, n_bytes)?;
        let gram = gram_of(grams, options, &self.runtime.engine, progress)?;
        let coefficients = as_they_are(gram.n_tasks());
        let solved = Solved { assessment: assess(&gram, &coefficients)?, gram, coefficients };
        let stored = plan.tensors.iter().zip(&grams.tensors).filter(|(_, tensor)| !tensor.frozen);
        let stored: Vec<&PlannedTensor> = stored.map(|(planned, _)| planned).collect();
        progress.begin("factors", n_bytes);
        let mut atoms = Vec::with_capacity(plan.tasks.len());
        for task in 0..plan.tasks.len() {
            progress.check()?;
            let parts = parts_of(plan, stored.iter().copied(), task + 1);
            let dense = |place: usize, first: usize, out: &mut [f32]| match stored.get(place) {
                Some(planned) => difference(plan, planned, task + 1, first, out),
                None => Err(Error::failed("a tensor that is not stored was asked for")),
            };
            let atom = factors::write(staged.path(), (task, plan.tasks.len()), &parts, dense)?;
            progress.advance(atom.bytes);
            atoms.push(atom);
        }
        (0..plan.n_columns()).try_for_each(|column| plan.column_checkpoint(column).check_unchanged())?;
        progress.finish();
        let solution = Solution {
            encode: &solved.coefficients.encode,
            decode: &solved.coefficients.decode,
            mix: None,
            kept: None,
            recovered: None,
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
            factors: Some(FactorsRecord {
                tensors: stored.iter().map(|planned| factor_tensor(plan, planned, false)).collect(),
                shared: None,
            }),
        };
        describe(&described, atoms, file).write(staged.path())
    }
}

/// What a manifest says of a stored tensor.
pub(super) fn factor_tensor(plan: &Plan, planned: &PlannedTensor, shared: bool) -> FactorTensor {
    let module = module_of(plan, planned).map(ModuleRecord::of);
    FactorTensor { shape: planned.shape.clone(), module, shared }
}

/// Elements of a task's difference from the base, where it has a tensor of its own.
pub(crate) fn difference(
    plan: &Plan,
    planned: &PlannedTensor,
    column: usize,
    first: usize,
    out: &mut [f32],
) -> Result<()> {
    let read = |column: usize| -> Result<Vec<f32>> {
        let tensor = plan.column_tensor(planned, column);
        let dtype = tensor.dtype.float().unwrap_or(Float::F32);
        let mut bytes = vec![0; out.len() * dtype.size()];
        plan.column_checkpoint(column).read(tensor, (first * dtype.size()) as u64, &mut bytes)?;
        Ok(tvb_kernels::decode(&bytes, dtype))
    };
    let (base, tuned) = (read(0)?, read(column)?);
    for ((out, tuned), base) in out.iter_mut().zip(&tuned).zip(&base) {
        *out = tuned - base;
    }
    if out.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let (column, name) = (plan.column_name(column), crate::shown::shown(&planned.name));
    Err(Error::rejected(format!(
        "{column}, tensor {name}: finite differences from the base in {} expected",
        Dtype::F32
    )))
}
