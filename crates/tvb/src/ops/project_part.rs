//! Pass 2 in parts: the atoms' rows of one part, and what all parts joined come to.

use super::project::{AtomSink, Prepared, Projected, Projection, WriteAtoms, moved_grid};
use super::range::{Clipped, ClippedTensor, RangeCheck};
use super::same_inputs::check_digests;
use crate::digest::Digest;
use crate::error::Result;
use crate::pass::part::{JoinedDigests, PartDigests, Piece, pieces_of};
use crate::pass::{ChunkSize, Folded, Grid, Part, Pass, Reads, Runtime};
use crate::progress::Progress;

/// What the rows of a part leave beside the atoms' rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AtomsPart {
    /// M.
    pub n_atoms: usize,
    /// [n_digests, T + 1]: of what was read.
    pub read: Vec<Digest>,
    /// [n_digests, M]: of what was written.
    pub written: Vec<Digest>,
    /// What was clipped.
    pub clipped: Vec<ClippedTensor>,
}

/// What lies in a part of the tensors that move.
pub fn pieces(projection: &Projection<'_>, part: Part) -> Vec<Piece> {
    let Projection { plan, grams, .. } = *projection;
    let moved = || plan.tensors.iter().zip(&grams.tensors).filter(|(_, tensor)| !tensor.frozen);
    let rows: Vec<usize> = moved().map(|(planned, _)| planned.n_rows).collect();
    // Parts are the same whatever the chunks.
    pieces_of(&part.of(&Grid::new(rows.iter().copied(), ChunkSize::ONE_BLOCK)), |tensor| rows[tensor])
}

/// Forms the atoms' rows of one part and hands them to `sink`.
///
/// # Errors
/// As [`project_from`](super::project::project_from).
pub fn project_part(
    projection: &Projection<'_>,
    part: Part,
    reads: &Reads,
    sink: &dyn AtomSink,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<AtomsPart> {
    let Prepared { moved, work, .. } = Prepared::new(projection, runtime)?;
    let grid = part.of(&moved_grid(projection.plan, projection.grams, runtime));
    let (n_read, n_atoms) = (moved.n_columns(), work.n_atoms);
    let own = pieces(projection, part);
    let (mut read, mut written) = (PartDigests::new(own.clone(), n_read), PartDigests::new(own, n_atoms));
    let range = RangeCheck::new(projection.clip);
    let pass = Pass { plan: &moved, grid, reads };
    progress.begin("project", pass.n_bytes());
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<Digest>>| {
        let of_blocks = digests.chunks_exact(n_read).zip(part.chunks_exact(n_atoms));
        for (block, (of_inputs, of_atoms)) in blocks.iter().zip(of_blocks) {
            read.push(block, of_inputs);
            written.push(block, of_atoms);
        }
        Ok(())
    };
    pass.run(&WriteAtoms { moved: &moved, reads, work, sink, range: &range }, runtime, progress, fold)?;
    progress.finish();
    let clipped = range.finish_by_tensor(|atom| format!("atom {atom}"))?;
    sink.sync()?;
    Ok(AtomsPart { n_atoms, read: read.finish(), written: written.finish(), clipped })
}

/// What one pass answers, from all parts in order.
///
/// # Errors
/// Failed: parts that are missing. Rejected: an input that is not what it was when the Gram matrices were formed.
pub fn join_projected(projection: &Projection<'_>, parts: &[(Part, AtomsPart)]) -> Result<Projected> {
    let Projection { plan, grams, encode, .. } = *projection;
    let (mut read, mut written) = (JoinedDigests::new(plan.n_columns()), JoinedDigests::new(encode.n_columns()));
    let mut clipped = Vec::new();
    for (part, found) in parts {
        let own = pieces(projection, *part);
        read.add(&own, &found.read)?;
        written.add(&own, &found.written)?;
        clipped.extend(found.clipped.iter().cloned());
    }
    let n_moved = grams.tensors.iter().filter(|tensor| !tensor.frozen).count();
    check_digests(plan, grams, &read.finish(n_moved)?)?;
    Ok(Projected { digests: written.finish(n_moved)?, clipped: Clipped::of(clipped) })
}
