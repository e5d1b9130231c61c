//! project: the fused projection S = VB, atom_m(x) = Σ_t δt(x)·B\[t,m\], straight from raw checkpoint bytes.

use super::block::row_ranges;
use super::combine::combine;
use super::rows::narrow;
use super::{CpuEngine, Scratch};
use crate::check::size_rows;
use crate::{Chunk, Columns, KernelError, Project, Work};
use pulp::{Simd, WithSimd};

/// Overwrites `rows` with the chunk's atoms.
pub(super) fn run(
    engine: &CpuEngine,
    work: &Work,
    project: &Project,
    chunk: Chunk<'_>,
    scratch: &mut Scratch,
    rows: &mut Vec<u8>,
) -> Result<(), KernelError> {
    let bytes_per_atom = work.bytes_per_output(chunk.layout)?;
    size_rows(rows, bytes_per_atom.checked_mul(project.n_atoms).ok_or(KernelError::TooLarge { what: "atoms" })?)?;
    scratch.weights.pack(&project.encode, chunk.layout.n_tasks(), project.n_atoms);
    engine.arch.dispatch(ProjectChunk { project, chunk, scratch, bytes_per_atom, rows });
    Ok(())
}

/// Rows decoded at a time: few enough that the deltas stay in the nearest cache.
pub(super) fn block_rows(n_columns: usize) -> usize {
    match n_columns {
        0..=16 => 512,
        17..=64 => 256,
        65..=256 => 128,
        _ => 64,
    }
}

struct ProjectChunk<'a> {
    project: &'a Project,
    chunk: Chunk<'a>,
    scratch: &'a mut Scratch,
    bytes_per_atom: usize,
    rows: &'a mut [u8],
}

impl WithSimd for ProjectChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { project, chunk, scratch, bytes_per_atom, rows } = self;
        let (dtype, size) = (project.dtype, project.dtype.size());
        let mut segment_start = 0;
        for (at, segment) in chunk.layout.segments.iter().enumerate() {
            for range in row_ranges(at, segment.n_rows, block_rows(chunk.layout.n_tasks())) {
                let start = segment_start + range.start * size;
                let block = scratch.block.decode(chunk, range, Columns::Checkpoints);
                combine(simd, block, false, &scratch.weights, &mut scratch.rows, |atom, atom_rows| {
                    let out = &mut rows[atom * bytes_per_atom + start..][..range.n_rows * size];
                    narrow(&atom_rows[..range.n_rows], dtype, out);
                });
            }
            segment_start += segment.n_rows * size;
        }
    }
}
