//! Pass 2: chunks × B → atoms, written where they belong as they are formed.
//!
//! Frozen tensors are left out. Each worker writes its own rows at their place in each atom's file, so nothing waits for
//! the disk but the thread that has something to write. What is read is digested again and compared with pass 1.

use crate::basis::atom::AtomSink;
use crate::basis::manifest::AtomRecord;
use crate::checkpoint::Dtype;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::gram::Grams;
use crate::pass::bookmark::{Bookmark, Bookmarks, NoBookmarks, PassName};
use crate::pass::chunks::{Block, Grid};
use crate::pass::stream::{Done, Pass, Runtime};
use crate::progress::Progress;
use tvb_kernels::{Output, Project, Work};

/// What is projected onto what.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// The inputs.
    pub plan: &'a Plan,
    /// Their Gram matrices, for what is frozen and what was read.
    pub grams: &'a Grams,
    /// B [T, M].
    pub encode: &'a Matrix,
    /// How atoms are stored.
    pub dtype: tvb_kernels::Dtype,
}

impl Projection<'_> {
    /// The digest of everything beside the input files that decides the atoms' bytes.
    pub fn recipe(&self) -> Digest {
        let encode = (0..self.encode.n_rows()).flat_map(|t| (0..self.encode.n_columns()).map(move |m| (t, m)));
        let mut bytes =
            format!("{:?} {:?} {:?}\n", self.dtype, self.encode.n_rows(), self.encode.n_columns()).into_bytes();
        bytes.extend(encode.flat_map(|at| self.encode[at].to_le_bytes()));
        bytes.extend(self.grams.tensors.iter().map(|tensor| u8::from(tensor.frozen)));
        bytes.extend(self.grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()));
        Digest::of(&bytes)
    }
}

/// Forms the atoms S = VB and writes them through `sink`.
///
/// # Errors
/// Rejected: an input that is not what it was when the Gram matrices were formed. Failed: I/O, device. Interrupted.
pub fn project(
    plan: &Plan,
    grams: &Grams,
    encode: &Matrix,
    dtype: tvb_kernels::Dtype,
    sink: AtomSink,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<AtomRecord>> {
    project_from(&Projection { plan, grams, encode, dtype }, sink, None, runtime, progress, &mut NoBookmarks)
}

/// [`project`], taken up at `bookmark`, with `sink` holding what was written before it, and leaving bookmarks on the way.
///
/// # Errors
/// As [`project`]; Failed: a bookmark that cannot be written.
pub fn project_from(
    projection: &Projection<'_>,
    sink: AtomSink,
    bookmark: Option<Bookmark>,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Vec<AtomRecord>> {
    let Projection { plan, grams, encode, dtype } = *projection;
    let moved = plan.only(|index| !grams.tensors[index].frozen);
    let (n_tasks, n_atoms) = (encode.n_rows(), encode.n_columns());
    let work = Work::Project(Project {
        encode: (0..n_tasks).flat_map(|t| (0..n_atoms).map(move |m| encode[(t, m)] as f32)).collect(),
        n_atoms,
        dtype,
    });
    let grid = moved_grid(plan, grams, runtime);
    let recipe = projection.recipe();
    let mut state = bookmark.unwrap_or_else(|| start(projection));
    progress.begin("project", moved.n_bytes());
    progress.advance(moved.n_bytes() / grid.n_chunks().max(1) as u64 * state.n_folded as u64);
    let pass = Pass { plan: &moved, grid: grid.after(state.n_folded), work, slots: Vec::new() };
    let each = |done: Done<'_>| -> Result<(Vec<Digest>, Vec<Digest>)> {
        let Output::Rows(bytes) = done.output else {
            return Err(Error::failed("the engine answered a projection with something else"));
        };
        let digests = sink.write_rows(done.blocks, bytes)?;
        Ok((done.digests.to_vec(), digests))
    };
    let fold = |blocks: &[Block], (read, written): (Vec<Digest>, Vec<Digest>)| {
        for (index, block) in blocks.iter().enumerate() {
            state.digests[0].push(block.tensor, &read[index * plan.n_columns()..(index + 1) * plan.n_columns()]);
            state.digests[1].push(block.tensor, &written[index * n_atoms..(index + 1) * n_atoms]);
        }
        state.n_folded += 1;
        if bookmarks.is_due() {
            // Every chunk up to this one is written; a bookmark must not get ahead of the disk.
            sink.sync()?;
            bookmarks.put(PassName::Atoms, recipe, &state)?;
        }
        Ok(())
    };
    pass.run(runtime, progress, each, fold)?;
    progress.finish();
    let [inputs, atoms] = <[_; 2]>::try_from(state.digests)
        .map_err(|_| Error::failed("the bookmark of the atoms has no digests of atoms"))?;
    check_digests(plan, grams, &inputs.finish(moved.tensors.len()))?;
    sink.finish(&atoms.finish(moved.tensors.len()))
}

/// Compares digests of the moved tensors, \[n_moved, n_columns\], with those of pass 1.
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

/// The bookmark at the start of a projection.
fn start(projection: &Projection<'_>) -> Bookmark {
    Bookmark::start(0, &[projection.plan.n_columns(), projection.encode.n_columns()])
}

/// The bookmark of an interrupted run of the same projection, where there is one.
pub fn find_bookmark(
    projection: &Projection<'_>,
    runtime: &Runtime,
    bookmarks: &mut dyn Bookmarks,
) -> Option<Bookmark> {
    let Projection { plan, grams, .. } = *projection;
    let found = bookmarks.find(PassName::Atoms, projection.recipe())?;
    let n_moved = grams.tensors.iter().filter(|tensor| !tensor.frozen).count();
    let n_chunks = moved_grid(plan, grams, runtime).n_chunks();
    Some(found).filter(|found| found.fits(&start(projection), n_chunks, n_moved))
}

/// The chunks of pass 1 without the frozen tensors: those that were kept on a device are found again.
fn moved_grid(plan: &Plan, grams: &Grams, runtime: &Runtime) -> Grid {
    let tensor_rows = plan.tensors.iter().map(|tensor| tensor.n_rows);
    let grid = Grid::new(tensor_rows, runtime.rows_per_chunk(plan.n_columns()));
    grid.only(|tensor| !grams.tensors[tensor].frozen)
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
