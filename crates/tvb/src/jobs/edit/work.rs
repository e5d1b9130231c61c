//! What an edit asks of an engine, from headers alone: for the choice of a device.

use super::weights::Source;
use crate::basis::Basis;
use crate::checkpoint::Checkpoint;
use crate::cost::{Stage, Step, Width, Work};
use tvb_kernels::Dtype;

/// One pass that forms `n_outputs` edits at once, each of `n_tasks` of the source's tasks, onto `base` where there is one, stored as
/// `dtype` or as the base is.
pub fn edit_work(
    source: Source<'_>,
    base: Option<&Checkpoint>,
    n_tasks: usize,
    n_outputs: usize,
    dtype: Option<Dtype>,
) -> Work {
    let n_tasks = n_tasks.max(1);
    let (floats, width) = floats_of(base);
    let stored_bytes = floats.map(|(n_bytes, n_elements)| match dtype {
        Some(dtype) => n_elements.saturating_mul(dtype.size() as u64),
        None => n_bytes,
    });
    match source {
        Source::Checkpoints(plan) => {
            let out_bytes = stored_bytes.unwrap_or(plan.n_rows().saturating_mul(4)).saturating_mul(n_outputs as u64);
            Work::over(plan, Stage::Reconstruct, n_tasks, out_bytes).looked_at_columns(plan)
        }
        Source::Basis(basis) => of_basis(basis, base, (n_tasks, n_outputs), stored_bytes, width),
    }
}

/// The pass of a patch: one edit, coded where it is formed.
pub fn patch_work(source: Source<'_>, n_tasks: usize) -> Work {
    let mut work = edit_work(source, None, n_tasks, 1, None);
    let formed_bytes = work.steps.iter().map(|step| step.out_bytes).sum();
    work.steps.iter_mut().for_each(|step| step.out_bytes = 0);
    work.step(Step {
        stage: Stage::Code,
        n_columns: 1,
        in_bytes: vec![(Width::Four, formed_bytes)],
        out_bytes: formed_bytes / 8,
        again: false,
        n_times: 1,
    })
}

/// The passes of a sweep over this many scales: the edit once, then the base and λ times the edit.
pub fn sweep_work(
    source: Source<'_>,
    base: &Checkpoint,
    n_tasks: usize,
    n_scales: usize,
    dtype: Option<Dtype>,
) -> Work {
    let formed = edit_work(source, None, n_tasks, 1, None);
    let edit_bytes: u64 = formed.steps.iter().map(|step| step.out_bytes).sum();
    let (floats, width) = floats_of(Some(base));
    let (n_bytes, n_elements) = floats.unwrap_or_default();
    formed.looked_at(std::iter::once(base)).step(Step {
        stage: Stage::Reconstruct,
        n_columns: 1,
        in_bytes: vec![(Width::Four, edit_bytes), (width, n_bytes)],
        out_bytes: dtype.map_or(n_bytes, |dtype| n_elements.saturating_mul(dtype.size() as u64)),
        again: false,
        n_times: n_scales as u64,
    })
}

fn of_basis(
    basis: &Basis,
    base: Option<&Checkpoint>,
    (n_tasks, n_outputs): (usize, usize),
    stored_bytes: Option<u64>,
    width: Width,
) -> Work {
    let manifest = &basis.manifest;
    if manifest.factors.is_some() {
        return Work::only_on_cpu("adapters are formed from their factors");
    }
    if manifest.generated.is_some() {
        return Work::only_on_cpu("atoms are made from a seed");
    }
    let n_atoms = basis.n_atoms().max(1);
    let is_identity = manifest.method.name == "identity";
    let step = |stage, n_columns, in_bytes, n_elements: u64| Step {
        stage,
        n_columns,
        in_bytes,
        out_bytes: stored_bytes.unwrap_or(n_elements.saturating_mul(4)).saturating_mul(n_outputs as u64),
        again: false,
        n_times: 1,
    };
    if let Some(coded) = &manifest.coded {
        let elements = |shape: &[usize]| shape.iter().map(|n| *n as u64).fold(1, u64::saturating_mul);
        let n_elements = coded.tensors.iter().map(|tensor| elements(&tensor.shape)).fold(0, u64::saturating_add);
        // A task that is an atom of its own is read alone, with what is shared.
        let n_columns = if is_identity { n_tasks.min(n_atoms) } else { n_atoms } + coded.n_kept;
        let in_bytes = vec![(width, n_elements.saturating_mul(4 * n_columns as u64))];
        let step = step(Stage::Decode, n_columns, in_bytes, n_elements);
        return Work::default().step(step).looked_at(base.into_iter());
    }
    let n_columns = if is_identity { n_tasks.min(n_atoms) } else { n_atoms };
    let share = n_columns as f64 / n_atoms as f64;
    let dtype = manifest.atoms.first().and_then(|atom| atom.dtype.float());
    let Some(of_atoms) = dtype.and_then(Width::of) else { return Work::only_on_cpu("f64 is for the CPU") };
    let size = if of_atoms == Width::Two { 2 } else { 4 };
    let n_elements = manifest.stored_bytes() / size / n_atoms as u64;
    let mut in_bytes = vec![(of_atoms, (manifest.stored_bytes() as f64 * share) as u64)];
    in_bytes.extend(floats_of(base).0.map(|(n_bytes, _)| (width, n_bytes)));
    let atom = basis.open_atom(0).ok();
    let step = step(Stage::Reconstruct, n_columns, in_bytes, n_elements);
    Work::default().step(step).looked_at(atom.iter().chain(base))
}

/// Bytes and elements of a base's floats, and their width.
fn floats_of(base: Option<&Checkpoint>) -> (Option<(u64, u64)>, Width) {
    let Some(base) = base else { return (None, Width::Four) };
    let floats = base.tensors().iter().filter(|tensor| tensor.dtype.float().is_some());
    let (n_bytes, n_elements) = floats.fold((0u64, 0u64), |(bytes, n), tensor| {
        (bytes.saturating_add(tensor.n_bytes()), n.saturating_add(tensor.n_elements() as u64))
    });
    (Some((n_bytes, n_elements)), if n_bytes / 3 < n_elements { Width::Two } else { Width::Four })
}
