//! Pass 2: chunks × B → atoms, written where they belong as they are formed.
//!
//! Frozen tensors are left out. Each worker hands its own rows to the sink, which puts them at their place in each atom, so
//! nothing waits for the disk but the thread that has something to write. What is read is digested again and compared
//! with pass 1.

use super::grams::Grams;
use super::range::{Clipped, Origin, RangeCheck, Rows};
use super::same_inputs::check_digests;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::pass::bookmark::{Bookmark, Bookmarks, PassName};
use crate::pass::{Block, ChunkReader, Done, Folded, Grid, Operation, Pass, Reads, Runtime, decode_deltas};
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
    /// Write the largest finite value of the type in place of one beyond it; otherwise that is an error.
    pub clip: bool,
}

/// What a projection has written.
#[derive(Clone, Debug)]
pub struct Projected {
    /// [n_moved_tensors, n_atoms] digests of the atoms.
    pub digests: TableOfDigests,
    /// Of their values.
    pub clipped: Clipped,
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
pub(super) struct WriteAtoms<'a> {
    pub(super) moved: &'a Plan,
    pub(super) reads: &'a Reads,
    pub(super) work: Project,
    pub(super) sink: &'a dyn AtomSink,
    pub(super) range: &'a RangeCheck,
}

impl WriteAtoms<'_> {
    /// One atom over one block, formed again in f64. The inputs need no look: their Gram matrix is finite, or the pass fails
    /// for having read others.
    fn origin(&self, atom: usize, block: Block) -> Result<Origin> {
        let mut reader = ChunkReader::default();
        reader.read(self.moved, self.reads, &[block])?;
        let deltas = decode_deltas(reader.chunk(), 0, self.moved.tasks.len());
        let mut exact = vec![0.0; block.n_rows];
        for (task, delta) in deltas.iter().enumerate() {
            let weight = f64::from(self.work.encode[task * self.work.n_atoms + atom]);
            exact.iter_mut().zip(delta).for_each(|(exact, delta)| *exact += weight * f64::from(*delta));
        }
        Ok(Origin { inputs: Vec::new(), exact })
    }
}

impl Operation for WriteAtoms<'_> {
    type Work = Project;
    /// [n_blocks, n_atoms] digests of what was written.
    type Part = Vec<Digest>;

    fn work(&self) -> &Project {
        &self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<Vec<Digest>> {
        let dtype = self.work.dtype;
        let mut at = 0;
        for atom in 0..self.work.n_atoms {
            for block in done.blocks {
                let bytes = &mut rows[at..at + block.n_rows * dtype.size()];
                at += bytes.len();
                let tensor = &self.moved.tensors[block.tensor].name;
                let own = Rows { outputs: atom..atom + 1, tensor, first_row: block.first_row, dtype, bytes };
                self.range.look(own, || self.origin(atom, *block))?;
            }
        }
        self.sink.write_rows(done.blocks, rows)
    }
}

/// Forms the atoms S = VB and hands them to `sink`. Resumes at `bookmark`, with `sink` holding what was written before it,
/// and leaves bookmarks on the way.
///
/// # Errors
/// Rejected: an input that is not what it was when the Gram matrices were formed, values that the type of the atoms cannot
/// hold, a coefficient beyond f32. Failed: I/O, device, a bookmark that cannot be written. Interrupted.
pub fn project_from(
    projection: &Projection<'_>,
    reads: &Reads,
    sink: &dyn AtomSink,
    bookmark: Option<Bookmark>,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Projected> {
    let Projection { plan, grams, clip, .. } = *projection;
    let Prepared { moved, grid, work } = Prepared::new(projection, runtime)?;
    let n_atoms = work.n_atoms;
    let range = RangeCheck::new(clip);
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
        // What was found so far is in no bookmark: a run that resumes has to come across it again.
        if bookmarks.is_due() && !range.has_found() {
            // Every chunk up to this one is written; a bookmark must not get ahead of the disk.
            sink.sync()?;
            bookmarks.put(PassName::Atoms, recipe, &state)?;
        }
        Ok(())
    };
    pass.run(&WriteAtoms { moved: &moved, reads, work, sink, range: &range }, runtime, progress, fold)?;
    progress.finish();
    let [inputs, atoms] = <[_; 2]>::try_from(state.digests)
        .map_err(|_| Error::failed("the bookmark of the atoms has no digests of atoms"))?;
    check_digests(plan, grams, &inputs.finish(moved.tensors.len()))?;
    let clipped = range.finish(|atom| format!("atom {atom}"))?;
    Ok(Projected { digests: atoms.finish(moved.tensors.len()), clipped })
}

/// What a projection reads, in which chunks, and what the engine does with them.
pub(super) struct Prepared {
    pub(super) moved: Plan,
    pub(super) grid: Grid,
    pub(super) work: Project,
}

impl Prepared {
    pub(super) fn new(projection: &Projection<'_>, runtime: &Runtime) -> Result<Prepared> {
        let Projection { plan, grams, encode, dtype, .. } = *projection;
        let (n_tasks, n_atoms) = (encode.n_rows(), encode.n_columns());
        let at = (0..n_tasks).flat_map(|t| (0..n_atoms).map(move |m| (t, m)));
        let encode = at.map(|at| encode_in_f32(plan, encode, at)).collect::<Result<_>>()?;
        let work = Project { encode, n_atoms, dtype };
        let moved = plan.only(|index| !grams.tensors[index].frozen);
        Ok(Prepared { moved, grid: moved_grid(plan, grams, runtime), work })
    }
}

/// A coefficient of B as the engines take it.
pub(super) fn encode_in_f32(plan: &Plan, encode: &Matrix, (task, atom): (usize, usize)) -> Result<f32> {
    let value = encode[(task, atom)];
    let narrow = value as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    let name = plan.column_name(task + 1);
    Err(Error::rejected(format!(
        "{name}: its coefficient in atom {atom} comes to {value:e}: at most ±{:.1e} expected",
        f32::MAX
    ))
    .hint(
        "its task vector is too small beside the others: leave it out, or use a method that does not divide by norms",
    ))
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
pub(super) fn moved_grid(plan: &Plan, grams: &Grams, runtime: &Runtime) -> Grid {
    let tensor_rows = plan.tensors.iter().map(|tensor| tensor.n_rows);
    let grid = Grid::new(tensor_rows, runtime.chunk_size(plan));
    grid.only(|tensor| !grams.tensors[tensor].frozen)
}
