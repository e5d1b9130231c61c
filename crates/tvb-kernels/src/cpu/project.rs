//! project: the fused projection S = VB, atom_m(x) = Σ_t δt(x)·B\[t,m\], straight from raw checkpoint bytes.

use super::block::row_ranges;
use super::combine::{block_rows, combine};
use super::output::size_rows;
use super::rows::narrow;
use super::scratch::Scratch;
use crate::check::bytes_per_output;
use crate::chunk::{Chunk, Columns};
use crate::error::KernelError;
use crate::project::Project;
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

impl OnCpu for Project {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let bytes_per_atom = bytes_per_output(chunk.layout, |_| self.dtype)?;
        size_rows(rows, self.n_atoms, bytes_per_atom)?;
        scratch.weights.pack(&self.encode, chunk.layout.n_tasks(), self.n_atoms);
        arch.dispatch(ProjectChunk { project: self, chunk, scratch, bytes_per_atom, rows });
        Ok(())
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
