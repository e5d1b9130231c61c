//! Pass 1: chunks → per-tensor Gram matrices in f64, with the digests of everything that was read.

use super::exact_gram::{SecondLook, is_doubtful, look_again};
use super::factor_gram::{MOST_TILE_BYTES, by_factors, digests_of, factor_grams, with_digests};
use super::grams::{GramTensor, Grams, Origin, Per};
use crate::checkpoint::Place;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests, TensorDigests, fingerprint};
use crate::error::{Error, Result};
use crate::pass::bookmark::{Bookmark, Bookmarks, NoBookmarks, PassName};
use crate::pass::{Block, ChunkReader, Done, Folded, Operation, Pass, Reads, Runtime, add_to};
use crate::progress::Progress;
use tvb_kernels::{Chunk, Triangles, triangle_len};

/// Per-tensor Grams are kept while they take less than this; beyond it, one Gram for everything.
pub const PER_TENSOR_BYTES: usize = 256 << 20;

/// The operation: the Gram matrix of every block.
pub(super) struct GramOfBlocks<'a> {
    /// Which rows; those before come out as zeros.
    pub(super) work: tvb_kernels::Gram,
    pub(super) plan: &'a Plan,
    pub(super) reads: &'a Reads,
}

impl Operation for GramOfBlocks<'_> {
    type Work = tvb_kernels::Gram;
    /// [n_blocks, T(T+1)/2]
    type Part = Vec<f64>;

    fn work(&self) -> &tvb_kernels::Gram {
        &self.work
    }

    fn finish(&self, done: Done<'_>, output: &mut Triangles) -> Result<Vec<f64>> {
        let n_values = triangle_len(self.plan.tasks.len());
        let n_columns = self.plan.n_columns();
        for (index, triangle) in output.values.chunks_exact_mut(n_values).enumerate() {
            if is_doubtful(triangle, done.layout, index, &done.digests[index * n_columns..][..n_columns]) {
                let mut reader = ChunkReader::default();
                reader.read(self.plan, self.reads, &done.blocks[index..=index])?;
                match look_again(triangle, reader.chunk(), 0) {
                    SecondLook::Right => {}
                    SecondLook::Exact(exact) => triangle.copy_from_slice(&exact),
                    SecondLook::NotFinite => return Err(self.not_finite(done.blocks[index], reader.chunk())),
                }
            }
            triangle[..triangle_len(self.work.first)].fill(0.0);
        }
        Ok(std::mem::take(&mut output.values))
    }
}

impl GramOfBlocks<'_> {
    /// Names the first delta of a block that is not finite.
    fn not_finite(&self, block: Block, chunk: Chunk<'_>) -> Error {
        let (_, row, column) = tvb_kernels::locate_non_finite(chunk).unwrap_or_default();
        let tensor = &self.plan.tensors[block.tensor].name;
        Error::rejected(format!(
            "{}, tensor {tensor}: a finite delta expected, an infinite or NaN one found at element {}",
            self.plan.column_name(column),
            block.first_row + row
        ))
        .hint("repair or leave out this checkpoint, or leave out the tensor with --exclude")
    }
}

/// What the matrices of a plan are the sums over: one tensor each while that takes little room.
pub(super) fn per(plan: &Plan) -> Per {
    let matrix_bytes = plan.tasks.len().saturating_pow(2).saturating_mul(8);
    match plan.tensors.len().saturating_mul(matrix_bytes) <= PER_TENSOR_BYTES {
        true => Per::Tensor,
        false => Per::Whole,
    }
}

/// How many matrices there are, and which of them that of a tensor is added to.
pub(super) fn slots(plan: &Plan, per: Per) -> (usize, fn(usize) -> usize) {
    match per {
        Per::Tensor => (plan.tensors.len(), |tensor| tensor),
        Per::Whole => (1, |_| 0),
    }
}

/// Reads every input once and forms the Gram matrices. Tensors that all tasks know by factors are not read where their Gram
/// matrix costs less without.
///
/// # Errors
/// Rejected: a non-finite delta (named by task, tensor and index), or an input that was written to meanwhile. Failed: I/O or
/// device errors. Interrupted.
pub fn gram(plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<Grams> {
    gram_from(plan, &Reads::new(), runtime, progress, &mut NoBookmarks)
}

/// [`gram`], resuming where a bookmark says and leaving bookmarks on the way.
///
/// # Errors
/// As [`gram`]; Failed: a bookmark that cannot be written.
pub fn gram_from(
    plan: &Plan,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Grams> {
    let per = per(plan);
    let (sums, digests) = sums_from(plan, 0, per, reads, runtime, progress, bookmarks)?;
    Ok(assemble(plan, per, sums, digests))
}

/// The matrices, [n_slots, T(T+1)/2], and the digests of everything. Rows of tasks before `first` are zeros.
pub(super) fn sums_from(
    plan: &Plan,
    first: usize,
    per: Per,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<(Vec<f64>, TableOfDigests)> {
    let factored = by_factors(plan);
    if !factored.contains(&true) {
        return sums_of_rows(plan, &factored, first, per, reads, runtime, progress, bookmarks);
    }
    let rows = plan.only(|tensor| !factored[tensor]);
    let (of_rows, digests) = match rows.tensors.is_empty() {
        true => (vec![0.0; slots(&rows, per).0 * triangle_len(plan.tasks.len())], no_digests(plan)),
        false => sums_of_rows(plan, &factored, first, per, reads, runtime, progress, bookmarks)?,
    };
    let mut sums = with_rows(plan, &factored, per, of_rows);
    let slot_of = slots(plan, per).1;
    let add = |tensor: usize, triangle: &[f64]| add_triangle(&mut sums, slot_of(tensor), triangle);
    factor_grams(plan, &factored, first, runtime, progress, add)?;
    let digests = with_digests(plan.n_columns(), &factored, &digests, |tensor| digests_of(plan, tensor));
    Ok((sums, digests))
}

/// Of no tensor.
fn no_digests(plan: &Plan) -> TableOfDigests {
    TensorDigests::new(plan.n_columns()).finish(0)
}

/// Adds the matrix of a tensor to a slot.
pub(super) fn add_triangle(sums: &mut [f64], slot: usize, triangle: &[f64]) {
    add_to(&mut sums[slot * triangle.len()..][..triangle.len()], triangle);
}

/// The sums of the tensors that are not `factored` among those of all.
pub(super) fn with_rows(plan: &Plan, factored: &[bool], per: Per, of_rows: Vec<f64>) -> Vec<f64> {
    if per == Per::Whole {
        return of_rows;
    }
    let len = triangle_len(plan.tasks.len());
    let mut sums = vec![0.0; slots(plan, per).0 * len];
    let slots = factored.iter().enumerate().filter(|(_, factored)| !**factored).map(|(tensor, _)| tensor);
    for (slot, triangle) in slots.zip(of_rows.chunks_exact(len)) {
        sums[slot * len..][..len].copy_from_slice(triangle);
    }
    sums
}

/// The least memory cap that Gram matrices from factors work with.
pub const FACTORS_BYTES: u64 = MOST_TILE_BYTES;

/// Whether any tensor of a plan is read to form its Gram matrix: those that all tasks know by factors may not be.
pub fn reads_rows(plan: &Plan) -> bool {
    by_factors(plan).contains(&false)
}

/// The matrices of the tensors that are not `factored`, [n_slots, T(T+1)/2], and the digests of what was read.
#[expect(clippy::too_many_arguments, reason = "what the pass is over, what of it is asked for, and who runs it")]
fn sums_of_rows(
    plan: &Plan,
    factored: &[bool],
    first: usize,
    per: Per,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<(Vec<f64>, TableOfDigests)> {
    let n_values = triangle_len(plan.tasks.len());
    let recipe = match (first, factored.contains(&true)) {
        (0, false) => Digest::default(),
        (0, true) => of_flags(factored),
        // What is added to the sums later is not in them, so the recipe says nothing of it.
        (first, _) => Digest::of_digests([of_flags(factored), Digest::of(&first.to_le_bytes())]),
    };
    // The chunks are those of the whole plan, so that a later pass finds what was kept of them.
    let whole = Pass::over(plan, runtime, reads);
    let grid = whole.grid.only(|tensor| !factored[tensor]);
    let rows = plan.only(|tensor| !factored[tensor]);
    let plan = &rows;
    let (n_slots, slot_of) = slots(plan, per);
    let add_tensor = |sums: &mut [f64], tensor: usize, values: &[f64]| add_triangle(sums, slot_of(tensor), values);
    let n_chunks = grid.n_chunks();
    let start = Bookmark::start(n_slots * n_values, n_values, &[plan.n_columns()]);
    let found = bookmarks.find(PassName::Gram, recipe);
    let mut state = found.filter(|found| found.fits(&start, n_chunks, plan.tensors.len())).unwrap_or(start);
    progress.begin("gram", plan.n_bytes());
    progress.advance(plan.n_bytes() / n_chunks.max(1) as u64 * state.n_folded as u64);
    let pass = Pass { plan, grid: grid.after(state.n_folded), reads };
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<f64>>| {
        let sums = &mut state.sums;
        let of_blocks = part.chunks_exact(n_values).zip(digests.chunks_exact(plan.n_columns()));
        for (block, (values, digests)) in blocks.iter().zip(of_blocks) {
            state.passing.add(block, values, |tensor, values| add_tensor(sums, tensor, values));
            state.digests[0].push(block.tensor, digests);
        }
        state.n_folded += 1;
        if bookmarks.is_due() { bookmarks.put(PassName::Gram, recipe, &state) } else { Ok(()) }
    };
    let work = tvb_kernels::Gram { first };
    pass.run(&GramOfBlocks { work, plan, reads }, runtime, progress, fold)?;
    progress.finish();
    let Bookmark { mut sums, mut passing, mut digests, .. } = state;
    passing.close(|tensor, values| add_tensor(&mut sums, tensor, values));
    Ok((sums, digests.swap_remove(0).finish(plan.tensors.len())))
}

fn of_flags(flags: &[bool]) -> Digest {
    Digest::of(&flags.iter().map(|flag| u8::from(*flag)).collect::<Vec<u8>>())
}

/// The Gram matrices from their sums, and what was frozen.
pub(super) fn assemble(plan: &Plan, per: Per, triangles: Vec<f64>, digests: TableOfDigests) -> Grams {
    let n_tasks = plan.tasks.len();
    let len = triangle_len(n_tasks);
    let frozen = |index: usize| {
        let planned = &plan.tensors[index];
        let columns = digests.tensor(index);
        let tensor = |column| plan.column_tensor(planned, column);
        let is_base = |column: usize| {
            columns[column] == columns[0] && tensor(column).dtype == tensor(0).dtype && !tensor(column).is_delta()
        };
        let same = (1..=n_tasks).all(|column| is_base(column) || tensor(column).place == Place::Unmoved);
        let still = per == Per::Tensor && {
            let triangle = &triangles[index * len..(index + 1) * len];
            (0..n_tasks).all(|task| triangle[triangle_len(task) + task] == 0.0)
        };
        same || still
    };
    let tensors = plan.tensors.iter().enumerate().map(|(index, planned)| GramTensor {
        name: planned.name.clone(),
        dtype: plan.column_tensor(planned, 0).dtype,
        shape: planned.shape.clone(),
        frozen: frozen(index),
    });
    let origin = |column: usize, name: &str| Origin {
        name: name.to_owned(),
        source: plan.column_checkpoint(column).source(),
        fingerprint: column_fingerprint(plan, &digests, column),
    };
    Grams {
        base: origin(0, "base"),
        tasks: plan.tasks.iter().enumerate().map(|(task, named)| origin(task + 1, &named.name)).collect(),
        tensors: tensors.collect(),
        per,
        triangles,
        skipped: plan.skipped.clone(),
        carried: plan.carried.clone(),
        left_out: plan.left_out.clone(),
        fit: plan.fit.clone(),
        digests,
    }
}

/// The fingerprint of one column over the tensors of a plan.
pub fn column_fingerprint(plan: &Plan, digests: &TableOfDigests, column: usize) -> Digest {
    fingerprint(plan.tensors.iter().zip(digests.column(column)).map(|(planned, digest)| {
        (planned.name.as_str(), plan.column_tensor(planned, column).dtype, planned.shape.as_slice(), digest)
    }))
}
