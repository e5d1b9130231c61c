//! Pass 2: chunks × B → atoms, written where they belong as they are formed.
//!
//! Frozen tensors are left out. Each worker writes its own rows at their place in each atom's file, so nothing waits for
//! the disk but the thread that has something to write. What is read is digested again and compared with pass 1.

use crate::basis::atom::AtomSink;
use crate::basis::manifest::AtomRecord;
use crate::checkpoint::Dtype;
use crate::chunks::{Block, Grid};
use crate::digest::{Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::gram::Grams;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::stream::{Done, Pass, Runtime};
use faer::Mat;
use tvb_kernels::{Output, Project, Work};

/// Forms the atoms S = VB and writes them through `sink`.
///
/// # Errors
/// Rejected: an input that is not what it was when the Gram matrices were formed. Failed: I/O, device. Interrupted.
pub fn project(
    plan: &Plan,
    grams: &Grams,
    encode: &Mat<f64>,
    dtype: tvb_kernels::Dtype,
    sink: AtomSink,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<AtomRecord>> {
    let moved = plan.only(|index| !grams.tensors[index].frozen);
    let (n_tasks, n_atoms) = (encode.nrows(), encode.ncols());
    let work = Work::Project(Project {
        encode: (0..n_tasks).flat_map(|t| (0..n_atoms).map(move |m| encode[(t, m)] as f32)).collect(),
        n_atoms,
        dtype,
    });
    let tensor_rows = moved.tensors.iter().map(|tensor| tensor.n_rows);
    let pass = Pass {
        plan: &moved,
        grid: Grid::new(tensor_rows, runtime.rows_per_chunk(plan.n_columns())),
        work,
        slots: Vec::new(),
    };
    let mut inputs = TensorDigests::new(plan.n_columns());
    let mut atoms = TensorDigests::new(n_atoms);
    progress.begin("project", moved.n_bytes());
    let each = |done: Done<'_>| -> Result<(Vec<Digest>, Vec<Digest>)> {
        let Output::Rows(bytes) = done.output else {
            return Err(Error::failed("the engine answered a projection with something else"));
        };
        let digests = sink.write_rows(done.blocks, bytes)?;
        Ok((done.digests.to_vec(), digests))
    };
    let fold = |blocks: &[Block], (read, written): (Vec<Digest>, Vec<Digest>)| {
        for (index, block) in blocks.iter().enumerate() {
            inputs.push(block.tensor, &read[index * plan.n_columns()..(index + 1) * plan.n_columns()]);
            atoms.push(block.tensor, &written[index * n_atoms..(index + 1) * n_atoms]);
        }
        Ok(())
    };
    pass.run(runtime, progress, each, fold)?;
    progress.finish();
    check_digests(plan, grams, &inputs.finish(moved.tensors.len()))?;
    sink.finish(&atoms.finish(moved.tensors.len()))
}

/// Compares digests of the moved tensors, [n_moved, n_columns], with those of pass 1.
///
/// # Errors
/// Rejected: an input that is not what it was then.
pub(crate) fn check_digests(plan: &Plan, grams: &Grams, inputs: &TableOfDigests) -> Result<()> {
    let originals = grams.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.frozen);
    for (row, (index, _)) in originals.enumerate() {
        let differing = inputs.tensor(row).iter().zip(grams.digests.tensor(index)).position(|(now, then)| now != then);
        if let Some(column) = differing {
            return Err(changed(plan, column, &plan.tensors[index].name));
        }
    }
    Ok(())
}

fn changed(plan: &Plan, column: usize, tensor: &str) -> Error {
    Error::rejected(format!(
        "{}, tensor {tensor}: its data is not what it was when the Gram matrix was formed",
        plan.column_name(column)
    ))
    .hint("form the Gram matrix again: run without --gram, and do not change inputs meanwhile")
}

/// Whether Gram matrices are about these inputs, as far as headers tell.
///
/// # Errors
/// Rejected: other tasks or tensors, named.
pub fn check_same_inputs(plan: &Plan, grams: &Grams) -> Result<()> {
    let rejected = |what: String| {
        Err(Error::rejected(format!("the Gram matrix is of other inputs: {what}"))
            .hint("name the same base and tasks, in the same order, with the same --include and --exclude"))
    };
    if grams.tasks.len() != plan.tasks.len() {
        return rejected(format!("{} tasks expected, {} found", grams.tasks.len(), plan.tasks.len()));
    }
    for (origin, task) in grams.tasks.iter().zip(&plan.tasks) {
        if origin.name != task.name {
            return rejected(format!("task {} expected, task {} found", origin.name, task.name));
        }
    }
    if grams.tensors.len() != plan.tensors.len() {
        return rejected(format!("{} tensors expected, {} found", grams.tensors.len(), plan.tensors.len()));
    }
    for (tensor, planned) in grams.tensors.iter().zip(&plan.tensors) {
        let dtype: Dtype = plan.column_tensor(planned, 0).dtype;
        if (&tensor.name, &tensor.shape, tensor.dtype) != (&planned.name, &planned.shape, dtype) {
            return rejected(format!(
                "tensor {} {} {:?} expected, {} {dtype} {:?} found",
                tensor.name, tensor.dtype, tensor.shape, planned.name, planned.shape
            ));
        }
    }
    Ok(())
}
