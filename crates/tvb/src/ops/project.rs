//! Pass 2: chunks × B → atoms, written where they belong as they are formed.
//!
//! Frozen tensors are left out. Each worker hands its own rows to the sink, which puts them at their place in each atom, so
//! nothing waits for the disk but the thread that has something to write. What is read is digested again and compared
//! with pass 1.

use super::grams::Grams;
use super::same_inputs::check_digests;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::pass::bookmark::{Bookmark, Bookmarks, PassName};
use crate::pass::{Block, Done, Folded, Grid, Operation, Pass, Reads, Runtime};
use crate::progress::Progress;
use tvb_kernels::Project;

/// Where atoms go as they are formed.
pub trait AtomSink: Sync {
    /// Takes one chunk's rows: `rows` holds for each atom in turn the blocks in order, tightly packed. Called by several
    /// threads at once. Answers [n_blocks, n_atoms] digests.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    fn write_rows(&self, blocks: &[Block], rows: &[u8]) -> Result<Vec<Digest>>;

    /// Waits until what was written so far is on the disk.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    fn sync(&self) -> Result<()>;
}

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
        let dtype = crate::checkpoint::Dtype::from(self.dtype);
        let mut bytes = format!("{dtype} {} {}\n", self.encode.n_rows(), self.encode.n_columns()).into_bytes();
        bytes.extend(encode.flat_map(|at| self.encode[at].to_le_bytes()));
        bytes.extend(self.grams.tensors.iter().map(|tensor| u8::from(tensor.frozen)));
        bytes.extend(self.grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()));
        Digest::of(&bytes)
    }
}

/// The operation: rows of the atoms, written where they belong.
struct WriteAtoms<'a> {
    work: Project,
    sink: &'a dyn AtomSink,
}

impl Operation for WriteAtoms<'_> {
    type Work = Project;
    /// [n_blocks, n_atoms] digests of what was written.
    type Part = Vec<Digest>;

    fn work(&self) -> &Project {
        &self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<Vec<Digest>> {
        self.sink.write_rows(done.blocks, rows)
    }
}

/// Forms the atoms S = VB and hands them to `sink`; answers [n_moved_tensors, n_atoms] digests of the atoms. Resumes at
/// `bookmark`, with `sink` holding what was written before it, and leaves bookmarks on the way.
///
/// # Errors
/// Rejected: an input that is not what it was when the Gram matrices were formed. Failed: I/O, device, a bookmark that
/// cannot be written. Interrupted.
pub fn project_from(
    projection: &Projection<'_>,
    reads: &Reads,
    sink: &dyn AtomSink,
    bookmark: Option<Bookmark>,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<TableOfDigests> {
    let Projection { plan, grams, encode, dtype } = *projection;
    let moved = plan.only(|index| !grams.tensors[index].frozen);
    let (n_tasks, n_atoms) = (encode.n_rows(), encode.n_columns());
    let work = Project {
        encode: (0..n_tasks).flat_map(|t| (0..n_atoms).map(move |m| encode[(t, m)] as f32)).collect(),
        n_atoms,
        dtype,
    };
    let grid = moved_grid(plan, grams, runtime);
    let recipe = projection.recipe();
    let mut state = bookmark.unwrap_or_else(|| start(projection));
    progress.begin("project", moved.n_bytes());
    progress.advance(moved.n_bytes() / grid.n_chunks().max(1) as u64 * state.n_folded as u64);
    let pass = Pass { plan: &moved, grid: grid.after(state.n_folded), reads };
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<Digest>>| {
        for (index, block) in blocks.iter().enumerate() {
            state.digests[0].push(block.tensor, &digests[index * plan.n_columns()..(index + 1) * plan.n_columns()]);
            state.digests[1].push(block.tensor, &part[index * n_atoms..(index + 1) * n_atoms]);
        }
        state.n_folded += 1;
        if bookmarks.is_due() {
            // Every chunk up to this one is written; a bookmark must not get ahead of the disk.
            sink.sync()?;
            bookmarks.put(PassName::Atoms, recipe, &state)?;
        }
        Ok(())
    };
    pass.run(&WriteAtoms { work, sink }, runtime, progress, fold)?;
    progress.finish();
    let [inputs, atoms] = <[_; 2]>::try_from(state.digests)
        .map_err(|_| Error::failed("the bookmark of the atoms has no digests of atoms"))?;
    check_digests(plan, grams, &inputs.finish(moved.tensors.len()))?;
    Ok(atoms.finish(moved.tensors.len()))
}

/// The bookmark at the start of a projection.
fn start(projection: &Projection<'_>) -> Bookmark {
    Bookmark::start(0, 0, &[projection.plan.n_columns(), projection.encode.n_columns()])
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
    let grid = Grid::new(tensor_rows, runtime.chunk_size(plan.n_columns()));
    grid.only(|tensor| !grams.tensors[tensor].frozen)
}
