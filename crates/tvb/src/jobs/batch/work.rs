//! What a batch asks of an engine, from headers alone: for the choice of a device.

use super::expand::Batch;
use super::inputs::Inputs;
use crate::checkpoint::{Budget, Existing};
use crate::columns::plan::Plan;
use crate::cost::{Stage, Work};
use crate::error::{ErrorKind, Result};
use crate::jobs::compress::passes;
use crate::progress::{Progress, unless_cancelled};
use std::path::PathBuf;
use std::rc::Rc;

/// The passes that a batch makes where nothing is there yet. Inputs that cannot be read are left out, as their jobs fail.
///
/// # Errors
/// Interrupted.
pub fn batch_work(batch: &Batch, budget: &Budget, progress: &dyn Progress) -> Result<Work> {
    let mut seen: Vec<(Rc<Inputs>, Option<Plan>)> = Vec::new();
    let mut work = Work::default();
    for unit in &batch.units {
        if !seen.iter().any(|(inputs, _)| *inputs == unit.inputs) {
            let (inputs, budget) = (Inputs::clone(&unit.inputs), budget.clone());
            let plan = match unless_cancelled(progress, move |_| inputs.plan(&budget)) {
                Ok(plan) => Some(plan),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(_) => None,
            };
            // Every job of the same inputs shares one Gram pass.
            let gram =
                plan.iter().map(|plan| Work::over(plan, Stage::Gram, plan.tasks.len(), 0).looked_at_columns(plan));
            work = gram.fold(work, Work::and);
            seen.push((unit.inputs.clone(), plan));
        }
        let Some((_, Some(plan))) = seen.iter().find(|(inputs, _)| *inputs == unit.inputs) else { continue };
        let options = unit.options(Some(PathBuf::new()), Existing::Refuse);
        work = work.and(passes(plan, &options));
        for (after, _) in &unit.after {
            let base = &plan.base;
            let out_bytes = base.tensors().iter().map(|tensor| match after.dtype {
                Some(dtype) => (tensor.n_elements() as u64).saturating_mul(dtype.size() as u64),
                None => tensor.n_bytes(),
            });
            let n_atoms = unit.size.n_atoms.max(1);
            work = work.and(Work::over(plan, Stage::Reconstruct, n_atoms, out_bytes.fold(0, u64::saturating_add)));
        }
    }
    Ok(work)
}
