//! A coding pass from end to end: what is folded in order, where it resumes.

use super::part::{CodedChunk, Coder};
use super::setup::{Coded, CodedFrom, Setup};
use super::sink::CodeSink;
use crate::columns::plan::Plan;
use crate::digest::TensorDigests;
use crate::error::{Error, Result};
use crate::ops::grams::Per;
use crate::pass::bookmark::{Bookmark, Bookmarks, PassName};
use crate::pass::{Block, Folded, Reads, Runtime};
use crate::progress::Progress;
use crate::solve::Coding;
use tvb_kernels::triangle_len;

/// How far an interrupted pass had come, for the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// For each tensor of the plan whose last block has been folded, whether it stays.
    pub ended: Vec<Option<bool>>,
    /// The tensor and the row that come next; `None` at the end.
    pub next: Option<(usize, usize)>,
}

/// Of a tensor that is passing or has passed, in a bookmark's sums: a task's bytes differ from the base's; a task moves;
/// it has ended and stays, or was dropped.
const DIFFERS: u8 = 1;
const MOVES: u8 = 2;
const STAYS: u8 = 4;
const DROPPED: u8 = 8;

/// The bookmark of an interrupted run of the same pass, where there is one, and what it says to the sink.
pub fn find_code_bookmark(
    plan: &Plan,
    from: CodedFrom<'_>,
    coding: &Coding,
    runtime: &Runtime,
    bookmarks: &mut dyn Bookmarks,
) -> Option<(Bookmark, Resumed)> {
    let setup = Setup::new(plan, from, coding, runtime);
    let found = bookmarks.find(PassName::Codes, setup.recipe)?;
    let n_tensors = setup.plan.tensors.len();
    let found = Some(found).filter(|found| found.fits(&setup.start, setup.grid.n_chunks(), n_tensors))?;
    let flags = found.sums.get(setup.flags_at()..)?;
    let ended = flags.iter().map(|&flags| match flags as u8 {
        flags if flags & STAYS != 0 => Some(true),
        flags if flags & DROPPED != 0 => Some(false),
        _ => None,
    });
    let ended = ended.collect();
    let next = setup.grid.blocks(found.n_folded).first().map(|block| (block.tensor, block.first_row));
    Some((found, Resumed { ended, next }))
}

/// Codes what is asked for and hands it to `sink`, whose tensors are those of the plan that are not known to be frozen.
/// Resumes at `bookmark`, with `sink` holding what was written before it, and leaves bookmarks on the way.
///
/// # Errors
/// Rejected: a delta that is not finite or too large to be coded, an input that is not what it was when the Gram matrices
/// were formed, or was written to meanwhile. Failed: I/O, device, a bookmark that cannot be written. Interrupted.
#[expect(clippy::too_many_arguments, reason = "a pass' usual company, and what is coded")]
pub fn code(
    plan: &Plan,
    from: CodedFrom<'_>,
    coding: &Coding,
    reads: &Reads,
    sink: &mut dyn CodeSink,
    bookmark: Option<Bookmark>,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Coded> {
    let setup = Setup::new(plan, from, coding, runtime);
    let mut state = bookmark.unwrap_or_else(|| setup.start.clone());
    let n_bytes = setup.plan.n_bytes();
    let n_chunks = setup.grid.n_chunks();
    progress.begin("code", n_bytes);
    progress.advance(n_bytes / n_chunks.max(1) as u64 * state.n_folded as u64);
    let grid = setup.grid.clone().after(state.n_folded);
    setup.run(grid, reads, runtime, progress, |coder, folded| {
        fold_chunk(&setup, coder, &mut state, sink, bookmarks, folded)
    })?;
    progress.finish();
    finish(&setup, plan, state)
}

/// Writes a chunk's codes and adds up its sums, in its turn.
fn fold_chunk(
    setup: &Setup<'_>,
    coder: &Coder<'_>,
    state: &mut Bookmark,
    sink: &mut dyn CodeSink,
    bookmarks: &mut dyn Bookmarks,
    Folded { blocks, digests, part }: Folded<'_, CodedChunk>,
) -> Result<()> {
    let n_columns = setup.plan.n_columns();
    let mut values = Vec::with_capacity(setup.n_values + setup.n_measured);
    let mut index = 0;
    coder.each_block(&part, blocks, |block: &Block, pieces| {
        let inputs = &digests[index * n_columns..][..n_columns];
        state.digests[0].push(block.tensor, inputs);
        state.digests[1].push(block.tensor, &part.digests[index * pieces.len()..][..pieces.len()]);
        let (triangle, measured) = setup.values_of(&part, index);
        values.clear();
        values.extend_from_slice(triangle);
        values.extend_from_slice(measured);
        let sums = &mut state.sums;
        state.passing.add(block, &values, |tensor, values| setup.add_tensor(sums, tensor, values));
        let differs = inputs.iter().any(|digest| *digest != inputs[0]);
        let moves = (0..setup.plan.tasks.len()).any(|task| {
            let at = triangle_len(task) + task;
            triangle.get(at).is_some_and(|square| *square != 0.0)
        });
        let flags = &mut state.sums[setup.flags_at() + block.tensor];
        let mut now = *flags as u8 | if differs { DIFFERS } else { 0 } | if moves { MOVES } else { 0 };
        sink.put(block, pieces)?;
        if block.first_row + block.n_rows == setup.plan.tensors[block.tensor].n_rows {
            let stays = stays(setup, block.tensor, now);
            sink.end(block.tensor, stays)?;
            now |= if stays { STAYS } else { DROPPED };
        }
        *flags = f64::from(now);
        index += 1;
        Ok(())
    })?;
    state.n_folded += 1;
    if bookmarks.is_due() {
        // A bookmark must not get ahead of the disk.
        sink.sync()?;
        bookmarks.put(PassName::Codes, setup.recipe, state)?;
    }
    Ok(())
}

fn finish(setup: &Setup<'_>, plan: &Plan, state: Bookmark) -> Result<Coded> {
    let Bookmark { mut sums, mut passing, digests, .. } = state;
    passing.close(|tensor, values| setup.add_tensor(&mut sums, tensor, values));
    let [inputs, written] = <[TensorDigests; 2]>::try_from(digests)
        .map_err(|_| Error::failed("the bookmark of the codes has no digests of codes"))?;
    let n_tensors = setup.plan.tensors.len();
    setup.coded(plan, sums, inputs.finish(n_tensors), written.finish(n_tensors))
}

/// Whether a tensor whose blocks have all been seen is stored: as the Gram pass says which are frozen.
fn stays(setup: &Setup<'_>, tensor: usize, flags: u8) -> bool {
    if setup.from.grams().is_some() {
        return true;
    }
    let planned = &setup.plan.tensors[tensor];
    let dtype = |column| setup.plan.column_tensor(planned, column).dtype;
    let is_same = flags & DIFFERS == 0 && (1..setup.plan.n_columns()).all(|column| dtype(column) == dtype(0));
    !(is_same || (setup.per == Per::Tensor && flags & MOVES == 0))
}
