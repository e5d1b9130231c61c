//! Pass 1: chunks → per-tensor Gram matrices in f64, with the digests of everything that was read.

use super::exact_gram::{SecondLook, is_doubtful, look_again};
use super::factor_gram::{MOST_TILE_BYTES, add_factor_grams, by_factors, with_digests};
use super::grams::{GramTensor, Grams, Origin, Per};
use crate::checkpoint::Place;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests, TensorDigests, fingerprint};
use crate::error::{Error, Result};
use crate::pass::bookmark::{Bookmark, Bookmarks, NoBookmarks, PassName};
use crate::pass::{Block, ChunkReader, Done, Folded, Operation, Pass, Reads, Runtime, Span, SpanSums, add_to};
use crate::progress::Progress;
use tvb_kernels::{Chunk, Triangles, triangle_len};

/// Per-tensor Grams are kept while they take less than this; beyond it, one Gram for everything.
pub const PER_TENSOR_BYTES: usize = 256 << 20;

/// The operation: the Gram matrix of every block.
pub(super) struct GramOfBlocks<'a> {
    pub(super) plan: &'a Plan,
    pub(super) reads: &'a Reads,
}

impl Operation for GramOfBlocks<'_> {
    type Work = tvb_kernels::Gram;
    /// [n_blocks, T(T+1)/2]
    type Part = Vec<f64>;

    fn work(&self) -> &tvb_kernels::Gram {
        &tvb_kernels::Gram
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

/// Adds a chunk's block matrices, \[n_blocks, T(T+1)/2\], to the sums of the spans that are passing.
fn fold_blocks(spans: &mut SpanSums, blocks: &[Block], part: &[f64], mut close: impl FnMut(Span, &[f64])) {
    let n_values = spans.parts().1.len();
    for (block, values) in blocks.iter().zip(part.chunks_exact(n_values)) {
        spans.add(block, values, &mut close);
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

/// How many matrices there are, and which of them a span is added to.
pub(super) fn slots(plan: &Plan, per: Per) -> (usize, fn(Span) -> usize) {
    match per {
        Per::Tensor => (plan.tensors.len(), |span| span.tensor),
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
    let factored = by_factors(plan);
    if !factored.contains(&true) {
        let (sums, digests) = sums_of_rows(plan, &factored, per, reads, runtime, progress, bookmarks)?;
        return Ok(assemble(plan, per, sums, digests));
    }
    let rows = plan.only(|tensor| !factored[tensor]);
    let (of_rows, digests) = match rows.tensors.is_empty() {
        true => (Vec::new(), TensorDigests::new(plan.n_columns()).finish(0)),
        false => sums_of_rows(plan, &factored, per, reads, runtime, progress, bookmarks)?,
    };
    let len = triangle_len(plan.tasks.len());
    let slot_of = |tensor: usize| if per == Per::Tensor { tensor } else { 0 };
    let mut sums = vec![0.0; slots(plan, per).0 * len];
    let slots_of_rows = (0..plan.tensors.len()).filter(|tensor| !factored[*tensor]).map(slot_of);
    for (slot, triangle) in slots_of_rows.zip(of_rows.chunks_exact(len)) {
        sums[slot * len..][..len].copy_from_slice(triangle);
    }
    add_factor_grams(plan, &factored, &mut sums, slot_of, runtime, progress)?;
    Ok(assemble(plan, per, sums, with_digests(plan, &factored, &digests)))
}

/// The least memory cap that Gram matrices from factors work with.
pub const FACTORS_BYTES: u64 = MOST_TILE_BYTES;

/// Whether any tensor of a plan is read to form its Gram matrix: those that all tasks know by factors may not be.
pub fn reads_rows(plan: &Plan) -> bool {
    by_factors(plan).contains(&false)
}

/// The matrices of the tensors that are not `factored`, [n_slots, T(T+1)/2], and the digests of what was read.
fn sums_of_rows(
    plan: &Plan,
    factored: &[bool],
    per: Per,
    reads: &Reads,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<(Vec<f64>, TableOfDigests)> {
    let n_values = triangle_len(plan.tasks.len());
    let recipe = if factored.contains(&true) {
        Digest::of(&factored.iter().map(|factored| u8::from(*factored)).collect::<Vec<u8>>())
    } else {
        Digest::default()
    };
    // The chunks are those of the whole plan, so that a later pass finds what was kept of them.
    let whole = Pass::over(plan, runtime, reads);
    let grid = whole.grid.only(|tensor| !factored[tensor]);
    let rows = plan.only(|tensor| !factored[tensor]);
    let plan = &rows;
    let (n_slots, slot_of) = slots(plan, per);
    let add_span = |sums: &mut [f64], span: Span, values: &[f64]| {
        add_to(&mut sums[slot_of(span) * n_values..][..n_values], values);
    };
    let n_chunks = grid.n_chunks();
    let start = Bookmark::start(n_slots * n_values, n_values, &[plan.n_columns()]);
    let found = bookmarks.find(PassName::Gram, recipe);
    let mut state = found.filter(|found| found.fits(&start, n_chunks, plan.tensors.len())).unwrap_or(start);
    progress.begin("gram", plan.n_bytes());
    progress.advance(plan.n_bytes() / n_chunks.max(1) as u64 * state.n_folded as u64);
    let pass = Pass { plan, grid: grid.after(state.n_folded), reads };
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<f64>>| {
        let sums = &mut state.sums;
        fold_blocks(&mut state.spans, blocks, &part, |span, values| add_span(sums, span, values));
        for (block, columns) in blocks.iter().zip(digests.chunks_exact(plan.n_columns())) {
            state.digests[0].push(block.tensor, columns);
        }
        state.n_folded += 1;
        if bookmarks.is_due() { bookmarks.put(PassName::Gram, recipe, &state) } else { Ok(()) }
    };
    pass.run(&GramOfBlocks { plan, reads }, runtime, progress, fold)?;
    progress.finish();
    let Bookmark { mut sums, mut spans, mut digests, .. } = state;
    spans.close(|span, values| add_span(&mut sums, span, values));
    Ok((sums, digests.swap_remove(0).finish(plan.tensors.len())))
}

/// The Gram matrices of the spans of one part of the work, \[T(T+1)/2\] each, in order. Part `part` of `n_parts` is cut where
/// spans end, so the spans of all parts in order are those of the whole, and [`add_spans`] gives its bits.
///
/// # Errors
/// As [`gram`].
pub fn gram_of_spans(
    plan: &Plan,
    (part, n_parts): (usize, usize),
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Vec<(Span, Vec<f64>)>> {
    let reads = Reads::new();
    let mut pass = Pass::over(plan, runtime, &reads);
    pass.grid = pass.grid.part(part, n_parts);
    let mut found = Vec::new();
    let mut spans = SpanSums::new(triangle_len(plan.tasks.len()));
    let fold = |Folded { blocks, part, .. }: Folded<'_, Vec<f64>>| {
        fold_blocks(&mut spans, blocks, &part, |span, values| found.push((span, values.to_vec())));
        Ok(())
    };
    pass.run(&GramOfBlocks { plan, reads: &reads }, runtime, progress, fold)?;
    spans.close(|span, values| found.push((span, values.to_vec())));
    Ok(found)
}

/// Adds up the matrices of all spans in order, tensor by tensor: [n_tensors, T(T+1)/2].
pub fn add_spans<'a>(
    n_tensors: usize,
    n_tasks: usize,
    spans: impl IntoIterator<Item = &'a (Span, Vec<f64>)>,
) -> Vec<f64> {
    let n_values = triangle_len(n_tasks);
    let mut sums = vec![0.0; n_tensors * n_values];
    for (span, values) in spans {
        add_to(&mut sums[span.tensor * n_values..][..n_values], values);
    }
    sums
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
