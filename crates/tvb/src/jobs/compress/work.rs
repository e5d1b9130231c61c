//! What `compress` asks of an engine, from headers alone: for the choice of a device.

use super::forecast::most_bytes;
use super::options::CompressOptions;
use super::size::Size;
use crate::columns::plan::Plan;
use crate::cost::{Stage, Step, Width, Work};

/// The passes that [`compress`](super::compress()) makes. Where only the Gram matrix will tell how many atoms there are, half as many
/// as tasks are taken.
pub fn compress_work(plan: &Plan, options: &CompressOptions) -> Work {
    passes(plan, options).looked_at_columns(plan)
}

/// The same without a look at the files.
pub(crate) fn passes(plan: &Plan, options: &CompressOptions) -> Work {
    let n_tasks = plan.tasks.len();
    let code_bytes = |n_atoms: usize| most_bytes(plan, options, n_atoms).unwrap_or(0);
    let gram = || match options.gram {
        Some(_) => Work::default(),
        None => Work::over(plan, Stage::Gram, n_tasks, 0),
    };
    if options.codes_tasks() {
        let coded = Work::over(plan, Stage::Code, n_tasks, code_bytes(n_tasks));
        // The Gram matrix says first how finely to code.
        return if matches!(options.size, Size::MaxError(_)) { gram().and(coded) } else { coded };
    }
    if !options.method.stores_atoms() {
        return gram();
    }
    let n_atoms = match options.size {
        Size::MaxError(_) | Size::MaxBytes(_) if options.method.fixed_atoms(n_tasks).is_none() => n_tasks.div_ceil(2),
        _ => options.most_outputs(n_tasks),
    };
    let f32_bytes = plan.n_rows().saturating_mul(4).saturating_mul(n_atoms as u64);
    let out_bytes = match options.coding {
        Some(_) => 0,
        None => f32_bytes / 4 * options.dtype.size() as u64,
    };
    let mut project = Work::over(plan, Stage::Project, n_tasks, out_bytes);
    project.steps.iter_mut().for_each(|step| step.again = options.gram.is_none());
    let work = gram().and(project);
    match options.coding {
        None => work,
        // They are formed in f32 and coded where they are.
        Some(_) => work.step(Step {
            stage: Stage::Code,
            n_columns: n_atoms,
            in_bytes: vec![(Width::Four, f32_bytes)],
            out_bytes: code_bytes(n_atoms),
            again: true,
            n_times: 1,
        }),
    }
}
